//! The schema of the event log's file, and the functions that open the file.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use uuid::Uuid;

use super::error::classify;
use crate::file_format::{FileContent, FileFormat};
use chat_ports::event_store::EventStoreError;

/// Application id "chat" in ASCII.
const FORMAT: FileFormat = FileFormat { application_id: 0x6368_6174, version: VERSION };

const VERSION: i32 = 1;

/// The time limit of waiting for the transaction of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Positions are rowids, so that reading the log in order reads the table in order. The unique index on stream and
/// revision refuses a second event at the same revision, from any process.
///
/// The index `events_changing` holds all events except creations of messages, so that the edits and deletions of a
/// chat's messages are found without reading their creations. SQLite uses the index only if the query repeats the
/// index's condition literally.
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

/// Whether a log's file may change while it is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileChanges {
    /// Other processes may append. Events may be only in the WAL.
    Possible,
    /// The file is a copy that is complete without a WAL, and that no process writes.
    Excluded,
}

/// The file is not an event log that this program can read.
#[derive(Debug, thiserror::Error)]
enum IncompatibleFile {
    #[error("the file is empty")]
    Empty,
    #[error("the file is a database of another kind")]
    ForeignDatabase,
    #[error("the file has layout version {0}, but this program reads versions up to {VERSION}")]
    NewerVersion(i32),
}

pub(super) fn open_for_writing(path: &Path) -> Result<Connection, EventStoreError> {
    let mut connection = Connection::open(path).map_err(classify)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(classify)?;
    refuse_other_formats(&mut connection)?;
    // With this setting, query plans do not depend on parameters, so new parameters never recompile a statement.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(classify)?;
    // By default, SQLite copies the WAL into the file and deletes the WAL when the last connection closes. If the WAL
    // is damaged, the frames after the damage are not copied, and may be the only copies of their events.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(classify)?;
    // FULL syncs the WAL at every commit, so a commit is durable when it returns. The WalCheckpointer checkpoints the
    // WAL on its own thread, because an append would wait for a checkpoint by SQLite.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
             PRAGMA wal_autocheckpoint = 0;",
        )
        .map_err(classify)?;
    Ok(connection)
}

/// Refuses a file of another format before a pragma changes it.
fn refuse_other_formats(connection: &mut Connection) -> Result<(), EventStoreError> {
    // In a transaction, because another process may be creating the tables.
    let transaction = connection.transaction().map_err(classify)?;
    match FORMAT.identify(&transaction).map_err(classify)? {
        FileContent::Empty => Ok(()),
        _ => check_format(&transaction),
    }
}

pub(super) fn open_for_reading(path: &Path, changes: FileChanges) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match changes {
        FileChanges::Possible => Connection::open_with_flags(path, flags)?,
        FileChanges::Excluded => {
            Connection::open_with_flags(immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)?
        }
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // With this setting, query plans do not depend on parameters, so new parameters never recompile a statement.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA cache_size = -4096;")?;
    Ok(connection)
}

/// Returns the URI that opens a file as immutable: SQLite then takes no locks, and neither reads nor creates files
/// beside it.
fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            // Writing to a string never fails.
            byte => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Creates the tables in a new file, or checks an existing file. Safe to run in two processes at once.
pub(super) fn create_or_check(connection: &mut Connection) -> Result<(), EventStoreError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(classify)?;
    if matches!(FORMAT.identify(&transaction).map_err(classify)?, FileContent::Empty) {
        transaction.execute_batch(SCHEMA).map_err(classify)?;
        transaction
            .execute("INSERT INTO log (id) VALUES (?)", [Uuid::new_v4().as_bytes()])
            .map_err(classify)?;
        FORMAT.write(&transaction).map_err(classify)?;
    }
    check_format(&transaction)?;
    transaction.commit().map_err(classify)
}

/// Checks that the file is an event log of this version.
pub(super) fn check_format(connection: &Connection) -> Result<(), EventStoreError> {
    let incompatible = |file: IncompatibleFile| EventStoreError::Damaged(file.into());
    match FORMAT.identify(connection).map_err(classify)? {
        FileContent::Current => {}
        FileContent::OtherVersion(version) => {
            return Err(incompatible(IncompatibleFile::NewerVersion(version)));
        }
        FileContent::Empty => return Err(incompatible(IncompatibleFile::Empty)),
        FileContent::Foreign { .. } => {
            return Err(incompatible(IncompatibleFile::ForeignDatabase));
        }
    }
    Ok(())
}
