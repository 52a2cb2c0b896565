//! Reads that also check the log's file for damage.
//!
//! `PRAGMA quick_check` holds one snapshot of the file until it ends, and the WAL grows meanwhile. Therefore the
//! periodic check goes through the log in slices. It reads the events of a slice from the table, and then looks up each
//! event in every index. [`quick_check`] is for operators: it also finds damage that hits no event.

use std::path::Path;

use chat_domain::Position;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::classify;
use super::reader;
use super::schema::{self, FileChanges};
use chat_ports::event_store::{EventStoreError, RecordedEvent};

/// The maximum number of messages of a check of the whole file.
const MAX_MESSAGES: usize = 10;

/// Finds the first event of a slice that is missing from an index, or whose stream is missing from the table of streams
/// or its index. `INDEXED BY` makes SQLite search the named index, even if the query planner considers another one
/// cheaper.
const FIRST_EVENT_THAT_AN_INDEX_LACKS: &str = "
    SELECT e.position FROM events e
    WHERE e.position > ?1 AND e.position <= ?2 AND NOT (
        EXISTS (SELECT 1 FROM events i INDEXED BY events_in_stream
            WHERE i.stream = e.stream AND i.revision = e.revision AND i.position = e.position)
        AND EXISTS (SELECT 1 FROM events i INDEXED BY sqlite_autoindex_events_1
            WHERE i.id = e.id AND i.position = e.position)
        AND (e.event_type = 'MessageCreated' OR EXISTS (SELECT 1 FROM events i INDEXED BY events_changing
            WHERE i.stream = e.stream AND i.revision = e.revision AND i.position = e.position
            AND i.event_type <> 'MessageCreated'))
        AND EXISTS (SELECT 1 FROM streams s JOIN streams n INDEXED BY sqlite_autoindex_streams_1 ON n.name = s.name
            WHERE s.id = e.stream AND n.id = s.id)
    ) ORDER BY e.position LIMIT 1
";

/// Finds the position of the last event of a slice, whether or not its stream is in the table of streams.
const LAST_POSITION_OF_SLICE: &str = "
    SELECT max(position) FROM (SELECT position FROM events WHERE position > ?1 ORDER BY position LIMIT ?2)
";

/// The error for an event that is missing from an index, or whose stream is missing from the table of streams.
#[derive(Debug, thiserror::Error)]
#[error("an index or the table of streams lacks the event at position {0}")]
struct MissingFromIndex(u64);

/// Reads up to `limit` events after `after`, and looks each of them up in every index. `changes` says whether other
/// processes may write the file meanwhile. Blocks.
///
/// Opens a new connection, because the cached pages of an open connection would hide damage.
pub(super) fn read_all(
    path: &Path,
    changes: FileChanges,
    after: Position,
    limit: usize,
) -> Result<Vec<RecordedEvent>, EventStoreError> {
    let connection = schema::open_for_reading(path, changes).map_err(classify)?;
    schema::check_format(&connection)?;
    let (events, missing) = read_snapshot(&connection, after, limit).map_err(classify)?;
    match missing {
        None => Ok(events),
        Some(position) => Err(EventStoreError::Damaged(MissingFromIndex(position).into())),
    }
}

/// Checks every page of the file with `PRAGMA quick_check`, and returns its messages; none if the file is sound.
/// Blocks.
pub(super) fn quick_check(path: &Path, changes: FileChanges) -> Result<Vec<String>, EventStoreError> {
    let connection = schema::open_for_reading(path, changes).map_err(classify)?;
    let sql = format!("PRAGMA quick_check({MAX_MESSAGES})");
    let mut statement = connection.prepare(&sql).map_err(classify)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(classify)?;
    let mut messages: Vec<String> = rows.collect::<Result<_, _>>().map_err(classify)?;
    messages.retain(|message| message != "ok");
    Ok(messages)
}

/// Reads the events of a slice, and the position that [`FIRST_EVENT_THAT_AN_INDEX_LACKS`] finds, in one snapshot.
fn read_snapshot(
    connection: &Connection,
    after: Position,
    limit: usize,
) -> rusqlite::Result<(Vec<RecordedEvent>, Option<u64>)> {
    let snapshot = connection.unchecked_transaction()?;
    let events = reader::read_all(&snapshot, after, limit)?;
    // An event whose stream is missing is not among `events`, and may be the last one of the slice.
    let last_in_table: Option<u64> =
        snapshot.query_row(LAST_POSITION_OF_SLICE, params![after.get(), limit], |row| row.get(0))?;
    let last_read = events.last().map(|event| event.position.get());
    let Some(up_to) = last_in_table.max(last_read) else { return Ok((events, None)) };
    let missing = snapshot
        .query_row(FIRST_EVENT_THAT_AN_INDEX_LACKS, params![after.get(), up_to], |row| row.get(0))
        .optional()?;
    Ok((events, missing))
}
