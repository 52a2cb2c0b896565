//! Reads of the event log on a pool of read-only connections.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision, Timestamp};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::error::classify;
use super::open_files::OpenFiles;
use super::schema::{self, FileChanges};
use chat_ports::event_store::{EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead};

/// The payload and metadata bytes after which a read stops: bounds the memory of a read.
const MAX_READ_BYTES: usize = 8 << 20;

/// A pool with a limited number of read-only connections, each opened when it is first needed. While all are in use,
/// further reads wait.
pub(super) struct ReaderPool {
    path: PathBuf,
    changes: FileChanges,
    files: Arc<OpenFiles>,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl ReaderPool {
    pub(super) fn new(path: &Path, changes: FileChanges, files: Arc<OpenFiles>, connections: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            changes,
            files,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(connections)),
        }
    }

    /// Runs `work` on a connection, on a thread for blocking work.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, EventStoreError> {
        let unavailable =
            |error: Box<dyn std::error::Error + Send + Sync>| EventStoreError::Unavailable(error);
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.map_err(|error| unavailable(error.into()))?;
        let pool = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = pool.idle().pop();
            let connection = if let Some(connection) = idle { connection } else { pool.open()? };
            // A connection whose work failed is closed.
            let value = work(&connection).map_err(classify)?;
            pool.idle().push(connection);
            Ok(value)
        });
        task.await.unwrap_or_else(|error| Err(unavailable(error.into())))
    }

    fn open(&self) -> Result<Connection, EventStoreError> {
        let check = || {
            let checked = self.files.check();
            checked.map_err(|replaced| EventStoreError::Unavailable(replaced.into()))
        };
        // Checked before, because opening creates a missing WAL; and after, because another file may have taken the
        // name meanwhile.
        check()?;
        let opened = schema::open_for_reading(&self.path, self.changes).map_err(classify);
        check()?;
        opened
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the last position, and checks that the last two positions are at least 1 and in order. SQLite does not check
/// the order of the rows of a page: if the end of the last page is lost, SQLite reads 0 as the last position, as if the
/// log were empty.
///
/// # Errors
/// `SQLITE_CORRUPT` if the last two positions are not in order.
pub(super) fn read_head(connection: &Connection) -> rusqlite::Result<Position> {
    let mut statement =
        connection.prepare_cached("SELECT position FROM events ORDER BY position DESC LIMIT 2")?;
    let last_two = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let is_in_order = match *last_two {
        [] => true,
        [last] => last >= 1,
        [last, before, ..] => last > before && before >= 1,
    };
    if !is_in_order {
        let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        let detail = "the last events are damaged: their positions are not in order".to_owned();
        return Err(rusqlite::Error::SqliteFailure(corrupt, Some(detail)));
    }
    Ok(last_two.first().map_or(Position::START, |last| Position::new(last.unsigned_abs())))
}

pub(super) fn read_all(
    connection: &Connection,
    after: Position,
    limit: usize,
) -> rusqlite::Result<Vec<RecordedEvent>> {
    read_by_position(connection, "> ?1 ORDER BY position ASC", after.get(), limit)
}

pub(super) fn read_all_backwards(
    connection: &Connection,
    before: Option<Position>,
    limit: usize,
) -> rusqlite::Result<Vec<RecordedEvent>> {
    let before = before.map_or(i64::MAX as u64, Position::get);
    read_by_position(connection, "< ?1 ORDER BY position DESC", before, limit)
}

/// Reads events by `comparison_and_order`: a comparison of the position with `?1`, which is `bound`, and an `ORDER BY`.
fn read_by_position(
    connection: &Connection,
    comparison_and_order: &str,
    bound: u64,
    limit: usize,
) -> rusqlite::Result<Vec<RecordedEvent>> {
    let sql = format!(
        "SELECT {COLUMNS}, name FROM events JOIN streams ON streams.id = stream \
         WHERE position {comparison_and_order} LIMIT ?2"
    );
    // Positions never exceed SQLite's largest integer.
    let bound = bound.min(i64::MAX as u64);
    // Consecutive events of one stream share one allocation of the stream's name.
    let mut last_name: Option<Arc<str>> = None;
    collect_events(connection, &sql, &[&bound, &limit], |row| {
        let name = text_lossy(row, 8)?;
        let shared = last_name.take().filter(|last| **last == *name).unwrap_or_else(|| (&*name).into());
        last_name = Some(Arc::clone(&shared));
        event_from_row(row, shared)
    })
}

/// Finds an event by its id, through the unique index of ids.
pub(super) fn find_event(connection: &Connection, id: EventId) -> rusqlite::Result<Option<RecordedEvent>> {
    let sql = format!(
        "SELECT {COLUMNS}, name FROM events JOIN streams ON streams.id = stream WHERE events.id = ?1"
    );
    let read = |row: &Row<'_>| event_from_row(row, (&*text_lossy(row, 8)?).into());
    collect_events(connection, &sql, &[id.uuid().as_bytes()], read).map(|mut events| events.pop())
}

pub(super) fn read_stream(
    connection: &Connection,
    read: &StreamRead,
) -> rusqlite::Result<Vec<RecordedEvent>> {
    let Some(stream) = stream_id(connection, &read.stream)? else { return Ok(Vec::new()) };
    let (comparison_and_order, from) = match read.start {
        ReadStart::Forwards(from) => (">= ?2 ORDER BY revision ASC", from.get()),
        ReadStart::Backwards(from) => ("<= ?2 ORDER BY revision DESC", from.get()),
        ReadStart::End => ("<= ?2 ORDER BY revision DESC", i64::MAX as u64),
    };
    let from = from.min(i64::MAX as u64);
    // As a literal, the event type lets SQLite use the partial index `events_changing`. Event types are constants of
    // this program, so they need no escaping.
    let types = match read.filter {
        EventTypeFilter::All => String::new(),
        EventTypeFilter::Only(only) => format!("AND event_type = '{only}'"),
        EventTypeFilter::Except(except) => format!("AND event_type <> '{except}'"),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE stream = ?1 {types} AND revision {comparison_and_order} LIMIT ?3"
    );
    collect_events(connection, &sql, &[&stream, &from, &read.limit], |row| {
        event_from_row(row, Arc::clone(&read.stream))
    })
}

pub(super) fn stream_id(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM streams WHERE name = ?")?;
    statement.query_row([name], |row| row.get(0)).optional()
}

pub(super) fn last_revision(connection: &Connection, stream: i64) -> rusqlite::Result<Option<Revision>> {
    let mut statement = connection.prepare_cached("SELECT max(revision) FROM events WHERE stream = ?")?;
    let last: Option<u64> = statement.query_row(params![stream], |row| row.get(0))?;
    Ok(last.map(Revision::new))
}

/// The columns that [`event_from_row`] reads. Where `name` is selected too, it follows them as column 8.
const COLUMNS: &str =
    "position, revision, events.id, event_type, schema_version, recorded_at, data, metadata";

fn collect_events(
    connection: &Connection,
    sql: &str,
    parameters: &[&dyn ToSql],
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<RecordedEvent>,
) -> rusqlite::Result<Vec<RecordedEvent>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let event = read(row)?;
        bytes += event.data.len() + event.metadata.len();
        events.push(event);
        if bytes >= MAX_READ_BYTES {
            break;
        }
    }
    Ok(events)
}

/// Reads a stream name or event type, with replacement characters for invalid UTF-8. So damaged text does not fail the
/// read, and the caller reports an unknown stream or event type.
fn text_lossy<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<Cow<'a, str>> {
    Ok(String::from_utf8_lossy(raw_bytes(row, column)?))
}

/// Reads a text or a blob as bytes, and any other value as no bytes. A damaged payload is reported when it is decoded.
fn raw_bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    })
}

fn event_from_row(row: &Row<'_>, stream: Arc<str>) -> rusqlite::Result<RecordedEvent> {
    Ok(RecordedEvent {
        position: Position::new(row.get(0)?),
        stream,
        revision: Revision::new(row.get(1)?),
        id: EventId::new(row.get::<_, [u8; 16]>(2).map(Uuid::from_bytes)?),
        event_type: text_lossy(row, 3)?.into_owned(),
        schema_version: SchemaVersion(row.get(4)?),
        recorded_at: Timestamp::from_millis(row.get(5)?),
        data: raw_bytes(row, 6)?.to_vec(),
        metadata: raw_bytes(row, 7)?.to_vec(),
    })
}
