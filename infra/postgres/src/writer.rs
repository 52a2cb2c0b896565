//! The writing side: one connection, which holds the lock for as long as it lives.

use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{AppToken, MessageNumber, Position};
use futures::future::BoxFuture;
use sqlx::{Connection, PgConnection, query_scalar, raw_sql};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::error::{NotCreated, ResponseTimeout, SessionLost, classify_error};
use super::schema::{self, SchemaState};
use super::session;
use super::url::{PostgresUrl, SchemaName};
use super::{commit, load};
use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts};
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::read_model::{
    AppRow, ChatKey, ReadModelChanges, ReadModelError, ReadModelWriter, StoredChat, StoredMessage,
};

/// How long a set of statements may take. Postgres itself ends a statement after a minute; this is for a Postgres that
/// says nothing any more.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(75);

/// The read model in Postgres, for the projection. There is one a namespace, in whatever process: the connection that
/// commits holds an advisory lock, and loses it when it is lost itself.
pub struct PostgresReadModelWriter {
    /// `None` after an error: what became of the session is not known.
    session: Mutex<Option<PgConnection>>,
    /// Whether everything happens in one transaction that is never committed.
    is_dry_run: bool,
}

impl PostgresReadModelWriter {
    /// Opens the read model at `url`, and lays it out where there is none.
    ///
    /// [`ReadModelError::InUse`] while another writer has it; [`ReadModelError::Damaged`] where it is of another version
    /// or incomplete; [`ReadModelError::Unavailable`] where Postgres can't be reached, or the namespace holds tables of
    /// something else, which is no reason to move them.
    pub async fn open(url: &PostgresUrl) -> Result<(Self, StorageOrigin), ReadModelError> {
        let mut session = connect_and_lock(url).await?;
        let namespace = url.schema();
        let found = with_timeout(schema::inspect(&mut session, namespace)).await?;
        let checked = timeout(RESPONSE_TIMEOUT, schema::check(&mut session, namespace, found)).await;
        checked.map_err(|_| ReadModelError::Unavailable(Box::new(ResponseTimeout(RESPONSE_TIMEOUT))))??;
        let opened = if found == SchemaState::ReadModel {
            StorageOrigin::Existing
        } else {
            with_timeout(create_tables(&mut session, namespace, found)).await?;
            StorageOrigin::Created
        };
        Ok((Self { session: Mutex::new(Some(session)), is_dry_run: false }, opened))
    }

    /// Renames the namespace, where there is one, to `<name>_damaged` (what was put there before is dropped), and lays
    /// out a new and empty one, in one transaction: readers see one or the other.
    pub async fn recreate(url: &PostgresUrl) -> Result<Self, ReadModelError> {
        let mut session = connect_and_lock(url).await?;
        with_timeout(recreate_tables(&mut session, url.schema())).await?;
        Ok(Self { session: Mutex::new(Some(session)), is_dry_run: false })
    }

    /// Opens the read model beside whoever writes it, to find out what changes would come to: all that is committed here
    /// is undone when this is dropped, and until then nobody else can commit.
    ///
    /// [`ReadModelError::Unavailable`] where there is no read model, or Postgres can't be reached.
    pub async fn open_dry_run(url: &PostgresUrl) -> Result<Self, ReadModelError> {
        let mut session = session::connect(&session::writer_options(url)).await?;
        let namespace = url.schema();
        let found = with_timeout(schema::inspect(&mut session, namespace)).await?;
        let checked = timeout(RESPONSE_TIMEOUT, schema::check(&mut session, namespace, found)).await;
        checked.map_err(|_| ReadModelError::Unavailable(Box::new(ResponseTimeout(RESPONSE_TIMEOUT))))??;
        if found != SchemaState::ReadModel {
            return Err(ReadModelError::Unavailable(Box::new(NotCreated)));
        }
        // Nothing ever commits it; the session's end undoes it.
        with_timeout(raw_sql("BEGIN").execute(&mut session)).await?;
        // Before anything is read: what the projector commits in between would move the checkpoint away from it.
        with_timeout(raw_sql("SELECT 1 FROM checkpoint FOR UPDATE").execute(&mut session)).await?;
        Ok(Self { session: Mutex::new(Some(session)), is_dry_run: true })
    }

    /// Removes the read model at `url`, and what was put aside of it. Nothing happens where there is none.
    ///
    /// [`ReadModelError::InUse`] while a writer has it; [`ReadModelError::Unavailable`] where the namespace holds tables
    /// of something else, too.
    pub async fn remove(url: &PostgresUrl) -> Result<(), ReadModelError> {
        let mut session = connect_and_lock(url).await?;
        let namespace = url.schema();
        match with_timeout(schema::inspect(&mut session, namespace)).await? {
            SchemaState::Absent => Ok(()),
            SchemaState::Empty | SchemaState::Incomplete | SchemaState::ReadModel => {
                with_timeout(schema::remove(&mut session, namespace)).await
            }
            found @ SchemaState::Foreign => schema::check(&mut session, namespace, found).await,
        }
    }

    async fn run<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send,
    ) -> Result<T, ReadModelError> {
        let mut place = self.session.lock().await;
        // Taken out: neither an error nor a caller that gives up leaves a session in the middle of something.
        let lost = || ReadModelError::Unavailable(Box::new(SessionLost));
        let mut session = place.take().ok_or_else(lost)?;
        let answer = with_timeout(work(&mut session)).await?;
        *place = Some(session);
        Ok(answer)
    }
}

async fn with_timeout<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T, ReadModelError> {
    match timeout(RESPONSE_TIMEOUT, work).await {
        Ok(answer) => answer.map_err(classify_error),
        Err(_) => Err(ReadModelError::Unavailable(Box::new(ResponseTimeout(RESPONSE_TIMEOUT)))),
    }
}

/// Connects and takes the lock. Its key is of the namespace; Postgres keeps those of each database apart.
async fn connect_and_lock(url: &PostgresUrl) -> Result<PgConnection, ReadModelError> {
    let mut session = session::connect(&session::writer_options(url)).await?;
    let taken =
        query_scalar("SELECT pg_try_advisory_lock(hashtextextended('chat-api read model ' || $1, 0))")
            .bind(url.schema().as_str())
            .fetch_one(&mut session);
    if with_timeout(taken).await? { Ok(session) } else { Err(ReadModelError::InUse) }
}

async fn create_tables(
    session: &mut PgConnection,
    namespace: &SchemaName,
    found: SchemaState,
) -> sqlx::Result<()> {
    let mut transaction = session.begin().await?;
    schema::create_tables(&mut transaction, namespace, found).await?;
    transaction.commit().await
}

async fn recreate_tables(session: &mut PgConnection, namespace: &SchemaName) -> sqlx::Result<()> {
    let mut transaction = session.begin().await?;
    let mut found = schema::inspect(&mut transaction, namespace).await?;
    if !matches!(found, SchemaState::Absent | SchemaState::Empty) {
        schema::quarantine(&mut transaction, namespace).await?;
        found = SchemaState::Absent;
    }
    schema::create_tables(&mut transaction, namespace, found).await?;
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

    async fn letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError> {
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
        let moved = if self.is_dry_run {
            self.run(|db| Box::pin(commit::apply_changes(db, changes))).await?
        } else {
            self.run(|db| Box::pin(commit::commit(db, changes))).await?
        };
        if moved { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }
}
