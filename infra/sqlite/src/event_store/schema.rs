//! The file's layout, and opening it.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use uuid::Uuid;

use super::classify;
use chat_ports::event_store::{EventStoreError, LogId};

/// Tells that the file is an event log of ours: "chat" in ASCII.
const APPLICATION_ID: i32 = 0x6368_6174;

/// The layout's version, in the file's `user_version`.
const VERSION: i32 = 1;

/// How long to wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Positions are rowids, so that reading the log in order reads the table in order. The unique index on the stream's
/// revisions is what refuses a second event at the same place, whoever appends it.
///
/// `events_changing` holds what is not a creation of a message: with it, a chat's edits and deletions are found without
/// reading its messages. Its condition must stand in a query word for word for SQLite to use it.
const SCHEMA: &str = "
    CREATE TABLE log (
        id BLOB NOT NULL
    ) STRICT;
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL REFERENCES streams,
        revision INTEGER NOT NULL,
        id BLOB NOT NULL UNIQUE,
        event_type TEXT NOT NULL,
        schema_version INTEGER NOT NULL,
        recorded_at INTEGER NOT NULL,
        data TEXT NOT NULL,
        metadata TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX events_in_stream ON events (stream, revision);
    CREATE INDEX events_changing ON events (stream, revision) WHERE event_type <> 'MessageCreated';
";

/// What is in the file is not an event log that this program can read.
#[derive(Debug, thiserror::Error)]
enum IncompatibleFile {
    #[error("the file is a database of another program")]
    ForeignDatabase,
    #[error("the file has layout version {0}, this program reads up to {VERSION}")]
    NewerVersion(i32),
    #[error("the log's id is not a UUID")]
    InvalidLogId(#[source] uuid::Error),
}

pub(super) fn open_for_writing(path: &Path) -> Result<Connection, EventStoreError> {
    let connection = Connection::open(path).map_err(classify)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(classify)?;
    // A statement is compiled once, and not again for what is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(classify)?;
    // A commit is on disk when it returns: FULL syncs the write-ahead log at every commit. Copying that into the file is
    // for `write_ahead`: an append would wait for it.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
             PRAGMA wal_autocheckpoint = 0;",
        )
        .map_err(classify)?;
    Ok(connection)
}

pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A statement is compiled once, and not again for what is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA cache_size = -4096;")?;
    Ok(connection)
}

/// Lays out a new file, or checks an existing one; returns the log's identity. Two processes may do it at once.
pub(super) fn migrate(connection: &mut Connection) -> Result<LogId, EventStoreError> {
    let foreign = |foreign: IncompatibleFile| EventStoreError::Damaged(foreign.into());
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(classify)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id"), pragma("user_version"));
    match (application.map_err(classify)?, version.map_err(classify)?) {
        (APPLICATION_ID, VERSION) => {}
        (0, 0) => {
            let tables: u32 = transaction
                .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
                .map_err(classify)?;
            if tables > 0 {
                return Err(foreign(IncompatibleFile::ForeignDatabase));
            }
            transaction.execute_batch(SCHEMA).map_err(classify)?;
            transaction
                .execute("INSERT INTO log (id) VALUES (?)", [Uuid::new_v4().as_bytes()])
                .map_err(classify)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(classify)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(classify)?;
        }
        (APPLICATION_ID, version) => return Err(foreign(IncompatibleFile::NewerVersion(version))),
        _ => return Err(foreign(IncompatibleFile::ForeignDatabase)),
    }
    let id: Vec<u8> = transaction.query_row("SELECT id FROM log", [], |row| row.get(0)).map_err(classify)?;
    transaction.commit().map_err(classify)?;
    Uuid::from_slice(&id).map(LogId).map_err(|error| foreign(IncompatibleFile::InvalidLogId(error)))
}
