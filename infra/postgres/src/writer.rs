//! The write side: one connection, which holds the writer's lock.

use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{AppToken, MessageNumber, Position};
use futures::future::BoxFuture;
use sqlx::{Connection, PgConnection, query_scalar, raw_sql};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::error::{NotCreated, ResponseTimeout, SessionLost, classify_error, classify_read_error};
use super::schema::{self, QuarantineReason, SchemaState};
use super::session;
use super::url::{PostgresUrl, SchemaName};
use super::{commit, load};
use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts};
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::read_model::{
    AppRow, ChatKey, ReadModelChanges, ReadModelError, ReadModelWriter, StorageLock, StoredChat,
    StoredMessage,
};
use chat_sql::tables::REQUIRE_ADDED_COLUMNS;

/// The time limit of a set of statements. Postgres itself cancels a statement after a minute; this covers a server that
/// does not respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(75);

/// The time limit of building an index over all messages, which happens once after an upgrade.
const INDEX_TIMEOUT: Duration = Duration::from_hours(1);

/// The read model in Postgres, for its projection. A schema has one writer at a time, across all processes: the
/// connection that commits holds an advisory lock, which ends with the connection.
pub struct PostgresReadModelWriter {
    /// `None` after an error, since the state of the session is unknown then.
    session: Mutex<Option<PgConnection>>,
    /// Whether all changes are in one transaction that is never committed.
    is_dry_run: bool,
}

impl PostgresReadModelWriter {
    /// Opens the read model at `url`, and creates it if it does not exist.
    ///
    /// Fails with [`ReadModelError::InUse`] while another writer has it open, with [`ReadModelError::Damaged`] if it is
    /// of another version or incomplete, and with [`ReadModelError::Unavailable`] if Postgres is unreachable, or the
    /// schema holds tables of another program, which must not be quarantined.
    pub async fn open(url: &PostgresUrl) -> Result<(Self, StorageOrigin), ReadModelError> {
        let mut session = connect_and_lock(url).await?;
        let schema_name = url.schema();
        let found = with_response_timeout(schema::inspect(&mut session, schema_name)).await?;
        let checked = timeout(RESPONSE_TIMEOUT, schema::check(&mut session, schema_name, found)).await;
        checked.map_err(|_| ReadModelError::Unavailable(Box::new(ResponseTimeout(RESPONSE_TIMEOUT))))??;
        let origin = if found == SchemaState::ReadModel {
            with_response_timeout(schema::add_missing_columns(&mut session)).await?;
            with_time_limit(INDEX_TIMEOUT, schema::add_missing_index(&mut session)).await?;
            StorageOrigin::Existing
        } else {
            with_response_timeout(create_tables(&mut session, schema_name, found)).await?;
            StorageOrigin::Created
        };
        Ok((Self { session: Mutex::new(Some(session)), is_dry_run: false }, origin))
    }

    /// Quarantines the schema if it has tables, and creates a new, empty one. Quarantining renames the schema to
    /// `<name>_damaged`, and drops the schema that had this name before. All of this is one transaction: readers see
    /// either the old schema or the new one.
    ///
    /// Fails with [`ReadModelError::InUse`] while another writer has it open, and with [`ReadModelError::Unavailable`]
    /// if the schema holds tables of another program.
    pub async fn recreate(url: &PostgresUrl) -> Result<Self, ReadModelError> {
        Self::quarantine_and_create(url, QuarantineReason::Damaged).await
    }

    /// As [`Self::recreate`], but for a read model that does not follow from the log: its schema is renamed to
    /// `<name>_log_<unix seconds>` and never dropped.
    pub async fn recreate_for_other_log(url: &PostgresUrl) -> Result<Self, ReadModelError> {
        Self::quarantine_and_create(url, QuarantineReason::OtherLog).await
    }

    async fn quarantine_and_create(
        url: &PostgresUrl,
        reason: QuarantineReason,
    ) -> Result<Self, ReadModelError> {
        let mut session = connect_and_lock(url).await?;
        let schema_name = url.schema();
        let found = with_response_timeout(schema::inspect(&mut session, schema_name)).await?;
        if found == SchemaState::Foreign {
            // Fails: a schema of another program is left alone.
            schema::check(&mut session, schema_name, found).await?;
        }
        with_response_timeout(recreate_tables(&mut session, schema_name, found, reason)).await?;
        Ok(Self { session: Mutex::new(Some(session)), is_dry_run: false })
    }

    /// Opens the read model for a dry run, also while another writer has it open: all changes are rolled back on drop,
    /// and until then the other writer can't commit.
    ///
    /// Fails with [`ReadModelError::Unavailable`] if there is no read model, or Postgres is unreachable.
    pub async fn open_dry_run(url: &PostgresUrl) -> Result<Self, ReadModelError> {
        let mut session = session::connect(&session::writer_options(url)).await?;
        let schema_name = url.schema();
        let found = with_response_timeout(schema::inspect(&mut session, schema_name)).await?;
        let checked = timeout(RESPONSE_TIMEOUT, schema::check(&mut session, schema_name, found)).await;
        checked.map_err(|_| ReadModelError::Unavailable(Box::new(ResponseTimeout(RESPONSE_TIMEOUT))))??;
        if found != SchemaState::ReadModel {
            return Err(ReadModelError::Unavailable(Box::new(NotCreated)));
        }
        let required = timeout(RESPONSE_TIMEOUT, raw_sql(REQUIRE_ADDED_COLUMNS).execute(&mut session)).await;
        required
            .map_err(|_| ReadModelError::Unavailable(Box::new(ResponseTimeout(RESPONSE_TIMEOUT))))?
            .map_err(classify_read_error)?;
        // This transaction is never committed; the end of the session rolls it back.
        with_response_timeout(raw_sql("BEGIN").execute(&mut session)).await?;
        // Locked before the first read: a commit of the projector in between would move the checkpoint.
        with_response_timeout(raw_sql("SELECT 1 FROM checkpoint FOR UPDATE").execute(&mut session)).await?;
        Ok(Self { session: Mutex::new(Some(session)), is_dry_run: true })
    }

    /// Removes the read model at `url` and the damaged one that was quarantined, if they exist.
    ///
    /// Fails with [`ReadModelError::InUse`] while a writer has it open, and with [`ReadModelError::Unavailable`] if the
    /// schema holds tables of another program.
    pub async fn remove(url: &PostgresUrl) -> Result<(), ReadModelError> {
        let mut session = connect_and_lock(url).await?;
        let schema_name = url.schema();
        match with_response_timeout(schema::inspect(&mut session, schema_name)).await? {
            // The quarantined schema may exist by itself.
            SchemaState::Absent | SchemaState::Empty | SchemaState::Incomplete | SchemaState::ReadModel => {
                with_response_timeout(schema::remove(&mut session, schema_name)).await
            }
            // Fails: a schema of another program is left alone.
            found @ SchemaState::Foreign => schema::check(&mut session, schema_name, found).await,
        }
    }

    async fn run<T>(
        &self,
        statements: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send,
    ) -> Result<T, ReadModelError> {
        let mut slot = self.session.lock().await;
        let lost = || ReadModelError::Unavailable(Box::new(SessionLost));
        // Taken out, so that after an error or a cancellation no session in an unknown state is reused.
        let mut session = slot.take().ok_or_else(lost)?;
        let value = with_response_timeout(statements(&mut session)).await?;
        *slot = Some(session);
        Ok(value)
    }
}

async fn with_response_timeout<T>(
    future: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, ReadModelError> {
    with_time_limit(RESPONSE_TIMEOUT, future).await
}

async fn with_time_limit<T>(
    limit: Duration,
    future: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, ReadModelError> {
    match timeout(limit, future).await {
        Ok(result) => result.map_err(classify_error),
        Err(_) => Err(ReadModelError::Unavailable(Box::new(ResponseTimeout(limit)))),
    }
}

/// Connects and takes the advisory lock of the schema. Advisory locks are separate for each database.
pub(super) async fn connect_and_lock(url: &PostgresUrl) -> Result<PgConnection, ReadModelError> {
    connect_and_lock_key(url, &format!("chat-api read model {}", url.schema().as_str())).await
}

async fn connect_and_lock_key(url: &PostgresUrl, key: &str) -> Result<PgConnection, ReadModelError> {
    let mut session = session::connect(&session::writer_options(url)).await?;
    let taken = query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(key)
        .fetch_one(&mut session);
    if with_response_timeout(taken).await? { Ok(session) } else { Err(ReadModelError::InUse) }
}

/// A named lock, which ends with its connection.
pub(super) struct NamedLock {
    session: Mutex<PgConnection>,
}

impl NamedLock {
    /// Takes the lock. It is separate from the lock of the writer.
    pub(super) async fn acquire(url: &PostgresUrl, name: &str) -> Result<Self, ReadModelError> {
        let key = format!("chat-api {name} {}", url.schema().as_str());
        Ok(Self { session: Mutex::new(connect_and_lock_key(url, &key).await?) })
    }
}

#[async_trait]
impl StorageLock for NamedLock {
    async fn is_held(&self) -> bool {
        let mut session = self.session.lock().await;
        with_response_timeout(session.ping()).await.is_ok()
    }
}

async fn create_tables(
    session: &mut PgConnection,
    schema_name: &SchemaName,
    found: SchemaState,
) -> sqlx::Result<()> {
    let mut transaction = session.begin().await?;
    schema::create_tables(&mut transaction, schema_name, found).await?;
    transaction.commit().await
}

async fn recreate_tables(
    session: &mut PgConnection,
    schema_name: &SchemaName,
    mut found: SchemaState,
    reason: QuarantineReason,
) -> sqlx::Result<()> {
    let mut transaction = session.begin().await?;
    if !matches!(found, SchemaState::Absent | SchemaState::Empty) {
        schema::quarantine(&mut transaction, schema_name, reason).await?;
        found = SchemaState::Absent;
    }
    schema::create_tables(&mut transaction, schema_name, found).await?;
    transaction.commit().await
}

#[async_trait]
impl ReadModelWriter for PostgresReadModelWriter {
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError> {
        self.run(|db| Box::pin(load::checkpoint(db))).await
    }

    async fn blocked_streams(&self) -> Result<Vec<String>, ReadModelError> {
        self.run(|db| Box::pin(load::blocked_streams(db))).await
    }

    async fn dead_letter_counts(&self) -> Result<DeadLetterCounts, ReadModelError> {
        self.run(|db| Box::pin(load::dead_letter_counts(db))).await
    }

    async fn dead_letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError> {
        self.run(|db| Box::pin(load::dead_letter(db, position))).await
    }

    async fn dead_letters_of_stream(
        &self,
        stream: String,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.run(|db| Box::pin(load::dead_letters_of_stream(db, stream, limit))).await
    }

    async fn apps(&self, tokens: Vec<AppToken>) -> Result<Vec<AppRow>, ReadModelError> {
        self.run(|db| Box::pin(load::apps(db, tokens))).await
    }

    async fn chats(&self, keys: Vec<ChatKey>) -> Result<Vec<StoredChat>, ReadModelError> {
        self.run(|db| Box::pin(load::chats(db, keys))).await
    }

    async fn messages(
        &self,
        keys: Vec<(Position, MessageNumber)>,
    ) -> Result<Vec<StoredMessage>, ReadModelError> {
        self.run(|db| Box::pin(load::messages(db, keys))).await
    }

    async fn commit(&self, changes: ReadModelChanges) -> Result<(), ReadModelError> {
        let is_applied = if self.is_dry_run {
            self.run(|db| Box::pin(commit::apply_changes(db, changes))).await?
        } else {
            self.run(|db| Box::pin(commit::commit(db, changes))).await?
        };
        if is_applied { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }

    async fn adopt_log(&self, from: ProjectionCheckpoint, log: LogId) -> Result<(), ReadModelError> {
        let adopted = self.run(move |db| Box::pin(commit::adopt_log(db, from, log))).await?;
        if adopted { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }
}
