//! The schema of the idempotency store's file, and the functions that open the file and quarantine a damaged one.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use chat_domain::{Position, Timestamp};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;

use super::file_clock::FileClock;
use super::reservations_table::time_before;
use crate::file_format::{FileContent, FileFormat};
use chat_files::durable_fs;
use chat_files::durable_fs::path_with_suffix;
use chat_ports::clock;
use chat_ports::event_store::LogId;
use chat_ports::idempotency::IdempotencyTerms;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;

/// Application id "ChIK" in ASCII. Files of other versions are quarantined.
const FORMAT: FileFormat = FileFormat { application_id: 0x4368_494b, version: VERSION };

const VERSION: i32 = 1;

/// The time limit of waiting for the transaction of another process, which takes less than a millisecond on a fast
/// disk.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The file with the kernel's id of the current boot of the machine.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// `memory` is empty before the initialization, and then has one row: reservations that were made before its `since`
/// may have been lost, later ones were not. In `reservations`, `since` is the earliest time at which an owner may have
/// executed the command, and 0 once the command is completed. `position` and `number` are NULL until the command is
/// completed; `number` stays NULL if the command created an app.
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

/// An error of opening or using the file.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("the file can't be used")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the file can't be reached")]
    Io(#[from] io::Error),
    #[error("the file is a database of another kind; is its path right?")]
    ForeignDatabase,
    #[error("the file has layout version {0}, this program reads {VERSION}")]
    UnsupportedVersion(i32),
}

impl FileError {
    /// Whether a new file repairs the error. The old one holds only the reservations and answers of the last day.
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

/// Opens the file for a log, and creates it if it does not exist.
pub(super) fn open(
    path: &Path,
    log: LogId,
    terms: IdempotencyTerms,
) -> Result<(Connection, FileClock), FileError> {
    // Locked, so that a file that another process has just created is not mistaken for the damaged one.
    let lock =
        File::options().create(true).truncate(false).write(true).open(path_with_suffix(path, ".lock"))?;
    lock.lock()?;
    match try_open(path, log, terms) {
        Err(error) if error.is_damage() => {
            tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error,
                "the idempotency file is damaged; it is quarantined and replaced by a new one");
            durable_fs::quarantine(path, &["-wal", "-shm"])?;
            try_open(path, log, terms)
        }
        opened => opened,
    }
}

fn try_open(path: &Path, log: LogId, terms: IdempotencyTerms) -> Result<(Connection, FileClock), FileError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Checked before a pragma changes the file. No other process creates its tables meanwhile: see the lock in `open`.
    let is_empty = match FORMAT.identify(&connection)? {
        FileContent::Empty => true,
        FileContent::Current => false,
        FileContent::OtherVersion(version) => return Err(FileError::UnsupportedVersion(version)),
        FileContent::Foreign { .. } => return Err(FileError::ForeignDatabase),
    };
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_empty {
        transaction.execute_batch(SCHEMA)?;
        FORMAT.write(&transaction)?;
    }
    delete_reservations_of_other_logs(&transaction, log)?;
    let clock = handle_reboot(&transaction, terms)?;
    transaction.commit()?;
    Ok((connection, clock))
}

/// Reads which log the file belongs to, and the highest position of a completed command in it. `None` if the file does
/// not exist, has another format or version, is not initialized, or has no completed commands. Changes nothing.
pub fn read_idempotency_checkpoint(path: &Path) -> rusqlite::Result<Option<ProjectionCheckpoint>> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if !matches!(FORMAT.identify(&connection)?, FileContent::Current) {
        return Ok(None);
    }
    let log: Option<Vec<u8>> =
        connection.query_row("SELECT log FROM memory", [], |row| row.get(0)).optional()?;
    let last: Option<u64> =
        connection.query_row("SELECT max(position) FROM reservations", [], |row| row.get(0))?;
    let log = log.and_then(|log| uuid::Uuid::from_slice(&log).ok());
    Ok(log
        .zip(last)
        .map(|(log, last)| ProjectionCheckpoint { log: Some(LogId(log)), position: Position::new(last) }))
}

/// Deletes the reservations if they belong to another log.
fn delete_reservations_of_other_logs(connection: &Connection, log: LogId) -> rusqlite::Result<()> {
    if connection.execute("DELETE FROM memory WHERE log <> ?", [log.0.as_bytes()])? > 0 {
        connection.execute("DELETE FROM reservations", [])?;
    }
    Ok(())
}

/// Returns the clock of the file, and starts it again if the machine was rebooted. A reboot may have lost the last
/// reservations, so `memory.since` then moves forward, to one lease before now. If it were now, new keys would wait for
/// one lease, needlessly: the processes that held leases ended at the reboot.
fn handle_reboot(connection: &Connection, terms: IdempotencyTerms) -> rusqlite::Result<FileClock> {
    // Without a boot id, each opening counts as a reboot.
    let boot_id = std::fs::read_to_string(BOOT_ID_FILE).unwrap_or_else(|_| uuid::Uuid::new_v4().to_string());
    let stored_boot_id: Option<String> =
        connection.query_row("SELECT id FROM boot", [], |row| row.get(0)).optional()?;
    // Not in `SCHEMA`: files that earlier releases created with the same `VERSION` lack the table.
    connection.execute_batch("CREATE TABLE IF NOT EXISTS file_clock (at_boot INTEGER NOT NULL) STRICT")?;
    if stored_boot_id.as_deref() != Some(&boot_id) {
        connection.execute("DELETE FROM boot", [])?;
        connection.execute("INSERT INTO boot (id) VALUES (?)", [&boot_id])?;
        connection.execute("DELETE FROM file_clock", [])?;
        let clock = start_clock(connection, terms)?;
        connection.execute(
            "UPDATE memory SET since = max(since, ?)",
            params![time_before(clock.now(), terms.lease).millis()],
        )?;
        return Ok(clock);
    }
    let at_boot: Option<i64> =
        connection.query_row("SELECT at_boot FROM file_clock", [], |row| row.get(0)).optional()?;
    match at_boot {
        Some(at_boot) => Ok(FileClock::from_time_at_boot(at_boot)),
        None => start_clock(connection, terms),
    }
}

/// Starts the clock of the file at the system time, but not before the last reservation and not before `memory.since`:
/// if the system time was set back, each new key would otherwise wait until the clock reaches `since`.
fn start_clock(connection: &Connection, terms: IdempotencyTerms) -> rusqlite::Result<FileClock> {
    let last_expiry: Option<i64> =
        connection.query_row("SELECT max(expires) FROM reservations", [], |row| row.get(0))?;
    let last_reserved =
        last_expiry.map(|expires| time_before(Timestamp::from_millis(expires), terms.retention));
    let remembered_since: Option<i64> =
        connection.query_row("SELECT max(since) FROM memory", [], |row| row.get(0))?;
    let earliest = last_reserved.max(remembered_since.map(Timestamp::from_millis));
    let clock =
        FileClock::starting_at(earliest.map_or_else(clock::now, |earliest| earliest.max(clock::now())));
    connection.execute("INSERT INTO file_clock (at_boot) VALUES (?)", [clock.at_boot()])?;
    Ok(clock)
}
