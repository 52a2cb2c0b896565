//! The query side of the read model in Postgres.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::{Connection, PgConnection, PgTransaction, query};
use tokio::time::timeout;

use super::error::{InvariantViolation, ResponseTimeout, VersionMismatch, classify_read_error};
use super::pool::{self, Pool};
use super::row::PostgresRow;
use super::session;
use super::url::PostgresUrl;
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::{ReadModelError, Snapshot};
use chat_sql::contents::ENTITY_TABLES;
use chat_sql::load::CHECKPOINT;
use chat_sql::query::Query;
use chat_sql::row;
use chat_sql::tables::SCHEMA_VERSION;
use chat_sql::{SqlEngine, SqlReadModel};

/// The time limit of waiting for the next row of a full scan.
const ROW_TIMEOUT: Duration = Duration::from_mins(1);

/// The invariants of the read model: a statement that returns whether the invariant holds, and the error if it does
/// not.
const INVARIANTS: [(&str, &str); 3] = [
    (
        "SELECT (SELECT coalesce(sum(chat_count), 0) FROM apps) = (SELECT count(*) FROM chats)",
        "the chat counts of apps do not match the chats",
    ),
    (
        "SELECT (SELECT coalesce(sum(message_count), 0) FROM chats) = (SELECT count(*) FROM messages)",
        "the message counts of chats do not match the messages",
    ),
    (
        "SELECT coalesce((SELECT max(id) FROM messages), 0) <= (SELECT max(position) FROM checkpoint)",
        "there are messages beyond the checkpoint",
    ),
];

/// The read model in Postgres, for queries.
pub type PostgresReadModel = SqlReadModel<PostgresEngine>;

/// The read model's Postgres engine. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct PostgresEngine {
    url: PostgresUrl,
    pool: Arc<Pool>,
}

impl PostgresEngine {
    /// Returns the disk size in bytes, including indexes; `None` if there are no tables.
    pub async fn disk_bytes(&self) -> Result<Option<u64>, ReadModelError> {
        let mut connection = session::connect(&session::full_scan_options(&self.url)).await?;
        let bytes: Option<i64> = sqlx::query_scalar(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind = 'r'",
        )
        .bind(self.url.schema_name())
        .fetch_one(&mut connection)
        .await
        .map_err(classify_read_error)?;
        Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()))
    }

    /// Checks the invariants. Counts all chats and messages for this. Returns [`ReadModelError::Damaged`] if an
    /// invariant is violated, or if a page that the check reads is unreadable. Damage stays undetected in tombstones
    /// and dead letters, which are not read, and in rows that Postgres counts by an index alone. Dropping the future
    /// closes the connection.
    pub async fn verify(&self) -> Result<(), ReadModelError> {
        let mut connection = session::connect(&session::full_scan_options(&self.url)).await?;
        let mut snapshot = begin_snapshot(&mut connection).await?;
        for (statement, violation) in INVARIANTS {
            let holds: bool =
                sqlx::query_scalar(statement).fetch_one(&mut *snapshot).await.map_err(classify_read_error)?;
            if !holds {
                return Err(ReadModelError::Damaged(Box::new(InvariantViolation(violation))));
            }
        }
        Ok(())
    }
}

/// Begins a transaction whose statements read one snapshot.
async fn begin_snapshot(connection: &mut PgConnection) -> Result<PgTransaction<'_>, ReadModelError> {
    connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(classify_read_error)
}

/// The error of a read that found no checkpoint of this version of the tables.
fn version_mismatch() -> ReadModelError {
    ReadModelError::Damaged(Box::new(VersionMismatch(SCHEMA_VERSION)))
}

impl SqlEngine for PostgresEngine {
    type Location = PostgresUrl;

    fn new(url: PostgresUrl) -> Self {
        Self::with_connections(url, pool::default_connections())
    }

    /// A query waits at most a second until one of the connections is free.
    fn with_connections(url: PostgresUrl, connections: usize) -> Self {
        let pool = Arc::new(Pool::new(session::query_options(&url), connections));
        Self { url, pool }
    }

    async fn run_query<Q: Query>(&self, mut query: Q) -> Result<Q::Output, ReadModelError> {
        for row in self.pool.fetch_rows(&query).await? {
            query.read(&PostgresRow(&row)).map_err(classify_read_error)?;
        }
        query.into_output().ok_or_else(version_mismatch)
    }

    async fn read_contents(&self) -> Result<Snapshot<ProjectionContents>, ReadModelError> {
        let mut connection = session::connect(&session::full_scan_options(&self.url)).await?;
        let mut snapshot = begin_snapshot(&mut connection).await?;
        let checkpoint =
            query(CHECKPOINT).fetch_optional(&mut *snapshot).await.map_err(classify_read_error)?;
        let position = row::read_checkpoint(&PostgresRow(&checkpoint.ok_or_else(version_mismatch)?))
            .map_err(classify_read_error)?
            .position;
        let mut contents = ProjectionContents::default();
        for table in &ENTITY_TABLES {
            let mut rows = query(table.select_sql).fetch(&mut *snapshot);
            let timed_out = |_| ReadModelError::Unavailable(Box::new(ResponseTimeout(ROW_TIMEOUT)));
            while let Some(row) = timeout(ROW_TIMEOUT, rows.try_next())
                .await
                .map_err(timed_out)?
                .map_err(classify_read_error)?
            {
                table.add_row(&mut contents, &PostgresRow(&row)).map_err(classify_read_error)?;
            }
        }
        Ok(Snapshot { position, value: contents })
    }
}
