//! Reads of the log. A read returns at most [`MAX_READ_EVENTS`] events and about [`MAX_READ_BYTES`] bytes, which bounds
//! its memory here and on the server.

use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision, Timestamp};
use chat_sql::row::to_sql_int;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _, query};

use super::call_error::CallError;
use super::server::LogServer;
use chat_ports::event_store::{EventTypeFilter, ReadStart, RecordedEvent, StreamRead};

/// The largest number of events in one read.
const MAX_READ_EVENTS: usize = 4_096;

/// The payload and metadata bytes after which a read stops.
const MAX_READ_BYTES: usize = 8 << 20;

/// The head of the log: the position and the id of the last event.
pub(super) type Head = Option<(Position, EventId)>;

impl LogServer {
    pub(super) async fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, CallError> {
        self.read_by_position(page_sql("e.position > $1", "position ASC"), after.get(), limit).await
    }

    pub(super) async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, CallError> {
        let before = before.map_or(u64::MAX, Position::get);
        self.read_by_position(page_sql("e.position < $1", "position DESC"), before, limit).await
    }

    async fn read_by_position(
        &self,
        sql: String,
        bound: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, CallError> {
        let statement = || query(AssertSqlSafe(sql.clone())).bind(to_sql_int(bound)).bind(sql_limit(limit));
        let rows = self.fetch(&self.log_reads, statement).await?;
        // Consecutive events of one stream share its name.
        let mut previous_stream: Option<Arc<str>> = None;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            let name: &str = row.try_get(8)?;
            let stream =
                previous_stream.take().filter(|previous| **previous == *name).unwrap_or_else(|| name.into());
            previous_stream = Some(Arc::clone(&stream));
            events.push(event_from_row(row, stream)?);
        }
        Ok(events)
    }

    pub(super) async fn read_stream(&self, read: &StreamRead) -> Result<Vec<RecordedEvent>, CallError> {
        let (comparison, order, from) = match read.start {
            ReadStart::Forwards(from) => (">=", "ASC", from.get()),
            ReadStart::Backwards(from) => ("<=", "DESC", from.get()),
            ReadStart::End => ("<=", "DESC", u64::MAX),
        };
        // Event types are constants of this program, so they may be literals. Only with a literal can Postgres use the
        // partial index `events_changing`.
        let types = match read.filter {
            EventTypeFilter::All => String::new(),
            EventTypeFilter::Only(only) => format!("AND e.event_type = '{only}'"),
            EventTypeFilter::Except(except) => format!("AND e.event_type <> '{except}'"),
        };
        let condition = format!(
            "e.stream = (SELECT id FROM chat_event_log.streams WHERE name = $3) AND e.revision {comparison} $1 {types}"
        );
        let sql = page_sql(&condition, &format!("revision {order}"));
        let statement = || {
            query(AssertSqlSafe(sql.clone()))
                .bind(to_sql_int(from))
                .bind(sql_limit(read.limit))
                .bind(read.stream.to_string())
        };
        let rows = self.fetch(&self.stream_reads, statement).await?;
        let events = rows.iter().map(|row| event_from_row(row, Arc::clone(&read.stream)));
        Ok(events.collect::<sqlx::Result<_>>()?)
    }

    /// Finds an event by its id, through the unique index of ids.
    pub(super) async fn find_event(&self, id: EventId) -> Result<Option<RecordedEvent>, CallError> {
        let statement = || {
            query(
                "SELECT e.position, e.revision, e.recorded_at, e.id, e.schema_version, e.event_type, e.data, e.metadata,
                 s.name FROM chat_event_log.events e JOIN chat_event_log.streams s ON s.id = e.stream WHERE e.id = $1",
            )
            .bind(id.uuid())
        };
        let rows = self.fetch(&self.stream_reads, statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(event_from_row(row, row.try_get::<&str, _>(8)?.into())?))
    }

    /// Reads the position of the last event.
    pub(super) async fn head(&self) -> Result<Position, CallError> {
        let statement = || query("SELECT coalesce(max(position), 0) FROM chat_event_log.events");
        let rows = self.fetch(&self.log_reads, statement).await?;
        let head: i64 = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        Ok(Position::new(head.unsigned_abs()))
    }
}

/// A statement that returns a page of events: `$1` is the bound in `condition`, `$2` the largest number of events. The
/// page ends with the event that brings it to [`MAX_READ_BYTES`] or more.
fn page_sql(condition: &str, order: &str) -> String {
    format!(
        "SELECT position, revision, recorded_at, id, schema_version, event_type, data, metadata, name FROM (
            SELECT e.*, s.name, sum(octet_length(e.data) + octet_length(e.metadata))
                OVER (ORDER BY e.{order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
            FROM chat_event_log.events e JOIN chat_event_log.streams s ON s.id = e.stream
            WHERE {condition} ORDER BY e.{order} LIMIT $2
        ) page WHERE coalesce(bytes_before, 0) < {MAX_READ_BYTES} ORDER BY {order}"
    )
}

fn sql_limit(limit: usize) -> i64 {
    to_sql_int(limit.min(MAX_READ_EVENTS) as u64)
}

fn event_from_row(row: &PgRow, stream: Arc<str>) -> sqlx::Result<RecordedEvent> {
    Ok(RecordedEvent {
        position: Position::new(row.try_get::<i64, _>(0)?.unsigned_abs()),
        stream,
        revision: Revision::new(row.try_get::<i64, _>(1)?.unsigned_abs()),
        recorded_at: Timestamp::from_millis(row.try_get(2)?),
        id: EventId::new(row.try_get(3)?),
        schema_version: SchemaVersion(row.try_get::<i32, _>(4)?.cast_unsigned()),
        event_type: row.try_get(5)?,
        data: row.try_get::<String, _>(6)?.into_bytes(),
        metadata: row.try_get::<String, _>(7)?.into_bytes(),
    })
}
