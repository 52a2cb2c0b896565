//! The file: its layout, opening it, moving a damaged one aside.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use chat_domain::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;

use super::reservations_table::earlier;
use chat_files::durable_fs;
use chat_files::durable_fs::path_with_suffix;
use chat_ports::event_store::LogId;
use chat_ports::idempotency::IdempotencyTerms;

/// `PRAGMA application_id`: "ChIK" in ASCII.
const APPLICATION_ID: i32 = 0x4368_494b;

/// `PRAGMA user_version`: the layout's version. Files of other versions are moved aside.
const VERSION: i32 = 1;

/// How long to wait for another process's transaction: a fraction of a millisecond, unless the disk is slow.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the kernel says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// `memory` has one row, or none before it began. In `reservations`, `position` is NULL until the command is done, and
/// `number` is NULL where it created an app.
const SCHEMA: &str = "
    CREATE TABLE memory (
        log BLOB NOT NULL,
        since INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE boot (
        id TEXT NOT NULL
    ) STRICT;
    CREATE TABLE reservations (
        key BLOB PRIMARY KEY,
        fingerprint BLOB NOT NULL,
        owner BLOB NOT NULL,
        app TEXT,
        since INTEGER NOT NULL,
        leased_until INTEGER NOT NULL,
        doubtful INTEGER NOT NULL,
        taken_over INTEGER NOT NULL,
        position INTEGER,
        number INTEGER,
        expires INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX reservations_by_expiry ON reservations (expires);
";

/// Why the file is of no use now.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("the file can't be used")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the file can't be reached")]
    Io(#[from] io::Error),
    #[error("the file is a database of another kind; is its path right?")]
    ForeignDatabase,
    #[error("the file has layout version {0}, this program knows {VERSION}")]
    UnsupportedVersion(i32),
}

impl FileError {
    /// Whether a new file is what helps. Nothing but the memory of the last day is lost with the old one.
    fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(failure, _)) => {
                matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            }
            Self::UnsupportedVersion(_) => true,
            _ => false,
        }
    }
}

/// Opens the file for a log, and creates it where there is none.
pub(super) fn open(
    path: &Path,
    log: LogId,
    terms: IdempotencyTerms,
    now: Timestamp,
) -> Result<Connection, FileError> {
    durable_fs::create_dir_all(&durable_fs::parent_dir(path))?;
    // One process at a time: a file that another process has just made must not be taken for the damaged one.
    let lock =
        File::options().create(true).truncate(false).write(true).open(path_with_suffix(path, ".lock"))?;
    lock.lock()?;
    match try_open(path, log, terms, now) {
        Err(error) if error.is_damage() => {
            tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error,
                "the file of idempotency keys is damaged; a new one takes its place");
            durable_fs::quarantine(path, &["-wal", "-shm"])?;
            try_open(path, log, terms, now)
        }
        opened => opened,
    }
}

fn try_open(
    path: &Path,
    log: LogId,
    terms: IdempotencyTerms,
    now: Timestamp,
) -> Result<Connection, FileError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, VERSION) => {}
        (APPLICATION_ID, version) => return Err(FileError::UnsupportedVersion(version)),
        (0, 0) if is_empty(&transaction)? => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        _ => return Err(FileError::ForeignDatabase),
    }
    delete_other_logs(&transaction, log)?;
    handle_reboot(&transaction, terms, now)?;
    transaction.commit()?;
    Ok(connection)
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// What was reserved for another log says nothing about this one.
fn delete_other_logs(connection: &Connection, log: LogId) -> rusqlite::Result<()> {
    if connection.execute("DELETE FROM memory WHERE log <> ?", [log.0.as_bytes()])? > 0 {
        connection.execute("DELETE FROM reservations", [])?;
    }
    Ok(())
}

/// A machine that went down may have lost the last reservations: the memory counts from now. No lease of before runs.
fn handle_reboot(connection: &Connection, terms: IdempotencyTerms, now: Timestamp) -> rusqlite::Result<()> {
    // Where the kernel does not tell, each opening counts as one.
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_else(|_| uuid::Uuid::new_v4().to_string());
    let last: Option<String> =
        connection.query_row("SELECT id FROM boot", [], |row| row.get(0)).optional()?;
    if last.as_deref() != Some(&boot) {
        connection.execute("DELETE FROM boot", [])?;
        connection.execute("INSERT INTO boot (id) VALUES (?)", [&boot])?;
        connection.execute(
            "UPDATE memory SET since = max(since, ?)",
            params![earlier(now, terms.lease).millis()],
        )?;
    }
    Ok(())
}
