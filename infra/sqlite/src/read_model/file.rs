//! The file of the read model: creating, opening, locking, quarantining and removing it.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::{ColumnsMissing, EmptyFile, ForeignDatabase, NotCreated, VersionMismatch, classify_error};
use crate::file_format::{FileContent, FileFormat};
use chat_files::durable_fs;
use chat_files::durable_fs::path_with_suffix;
use chat_files::file_id::FileId;
use chat_files::heartbeat;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::read_model::ReadModelError;
use chat_sql::tables::{ADD_SENDER_INDEX, ADDED_COLUMNS, SCHEMA, SCHEMA_VERSION, add_column_sql};

/// Application id "ChRM" in ASCII.
const FORMAT: FileFormat = FileFormat { application_id: 0x4368_524d, version: SCHEMA_VERSION };

/// The time limit of waiting for a lock of another connection.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Prepared statements that a connection caches.
const STATEMENT_CACHE_CAPACITY: usize = 48;

/// An exclusive lock on a file beside the database: the writer's lock (`.lock`) or a named one (`.<name>.lock`).
/// Released when dropped, and by the operating system when the process ends.
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Acquires the lock of the writer.
    pub(super) fn acquire_for_writer(path: &Path) -> Result<Self, ReadModelError> {
        Self::acquire_file(path, ".lock")
    }

    /// Acquires a named lock, which does not exclude the writer.
    pub(super) fn acquire_named(path: &Path, name: &str) -> Result<Self, ReadModelError> {
        Self::acquire_file(path, &format!(".{name}.lock"))
    }

    fn acquire_file(path: &Path, suffix: &str) -> Result<Self, ReadModelError> {
        let unavailable = |error: io::Error| ReadModelError::Unavailable(Box::new(error));
        durable_fs::create_dir_all(&durable_fs::parent_dir(path)).map_err(unavailable)?;
        let lock = path_with_suffix(path, suffix);
        let file =
            File::options().create(true).truncate(false).write(true).open(lock).map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(ReadModelError::InUse),
            Err(TryLockError::Error(error)) => Err(unavailable(error)),
        }
    }
}

/// See [`replacement_count`].
static REPLACEMENT_COUNT: AtomicU64 = AtomicU64::new(0);

/// The number of times that this process has created, renamed or removed a file, or tried to. While it is unchanged,
/// only another process can have replaced a file.
pub(super) fn replacement_count() -> u64 {
    REPLACEMENT_COUNT.load(Ordering::SeqCst)
}

/// Opens the database for writing, and creates it if it does not exist. The caller holds the writer's [`FileLock`].
pub(super) fn open_for_writing(path: &Path) -> Result<(Connection, StorageOrigin), ReadModelError> {
    let exists =
        FileId::for_path(path).map_err(|error| ReadModelError::Unavailable(Box::new(error)))?.is_some();
    if !exists {
        create(path)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(classify_error)?;
    configure_and_check(&connection)?;
    add_missing_columns(&mut connection).map_err(classify_error)?;
    // 64 MiB of page cache. The WalCheckpointer checkpoints a few MiB at a time, because syncing 64 MiB at once blocks
    // the commits of the event log on the same disk for 0.17 s. The WAL file is truncated to 64 MiB after a long read
    // made it grow.
    connection
        .execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(classify_error)?;
    Ok((connection, if exists { StorageOrigin::Existing } else { StorageOrigin::Created }))
}

/// Opens the database beside its writer, and begins a transaction that is never committed.
pub(super) fn open_for_dry_run(path: &Path) -> Result<Connection, ReadModelError> {
    let exists =
        FileId::for_path(path).map_err(|error| ReadModelError::Unavailable(Box::new(error)))?.is_some();
    if !exists {
        return Err(ReadModelError::Unavailable(Box::new(NotCreated)));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(classify_error)?;
    configure_and_check(&connection)?;
    require_columns(&connection)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(classify_error)?;
    Ok(connection)
}

/// Opens the database for reading.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, ReadModelError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(classify_error)?;
    configure_and_check(&connection)?;
    require_columns(&connection)?;
    // 2 MiB of page cache for each connection, enough for the inner B-tree pages of five million messages. The
    // operating system caches the other pages.
    connection.execute_batch("PRAGMA cache_size = -2048;").map_err(classify_error)?;
    // With this setting, query plans do not depend on parameters, so new parameters never recompile a statement.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(classify_error)?;
    Ok(connection)
}

/// Sets the busy timeout and the size of the statement cache, and refuses a file that is not a read model of this
/// version. A file of another version or without content counts as damaged: it is quarantined and rebuilt. A database
/// of another kind, such as the event log, is left alone: its path was given by mistake.
fn configure_and_check(connection: &Connection) -> Result<(), ReadModelError> {
    connection.busy_timeout(BUSY_TIMEOUT).map_err(classify_error)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    match FORMAT.identify(connection).map_err(classify_error)? {
        FileContent::Current => Ok(()),
        FileContent::OtherVersion(found) => {
            let mismatch = VersionMismatch { found, expected: SCHEMA_VERSION };
            Err(ReadModelError::Damaged(Box::new(mismatch)))
        }
        FileContent::Empty => Err(ReadModelError::Damaged(Box::new(EmptyFile))),
        FileContent::Foreign { application_id } => {
            Err(ReadModelError::Unavailable(Box::new(ForeignDatabase { application_id })))
        }
    }
}

/// The columns of [`ADDED_COLUMNS`] that the file lacks.
fn missing_columns(connection: &Connection) -> rusqlite::Result<Vec<&'static str>> {
    let mut columns = connection.prepare("SELECT name FROM pragma_table_info('messages')")?;
    let present: Vec<String> = columns.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(ADDED_COLUMNS.into_iter().filter(|column| !present.iter().any(|name| name == column)).collect())
}

/// Adds the columns of senders and data, and the index of senders, to a file that an older version of the program
/// created. Readers of the older version keep working, because their queries name the columns.
fn add_missing_columns(connection: &mut Connection) -> rusqlite::Result<()> {
    let missing = missing_columns(connection)?;
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for column in missing {
        transaction.execute_batch(&add_column_sql(column))?;
    }
    transaction.execute_batch(ADD_SENDER_INDEX)?;
    transaction.commit()
}

fn require_columns(connection: &Connection) -> Result<(), ReadModelError> {
    if missing_columns(connection).map_err(classify_error)?.is_empty() {
        return Ok(());
    }
    Err(ReadModelError::Unavailable(Box::new(ColumnsMissing)))
}

/// Creates an empty database under a temporary name and then renames it, so that no reader sees an incomplete one.
fn create(path: &Path) -> Result<(), ReadModelError> {
    let unavailable = |error: io::Error| ReadModelError::Unavailable(Box::new(error));
    let new = path_with_suffix(path, ".new");
    remove_database(&new).map_err(unavailable)?;
    initialize(&new).map_err(classify_error)?;
    // A leftover WAL would be applied to the new database, so its removal is made durable before the rename.
    for suffix in ["-wal", "-shm"] {
        remove_if_exists(&path_with_suffix(path, suffix)).map_err(unavailable)?;
    }
    durable_fs::sync_parent_dir(path).map_err(unavailable)?;
    fs::rename(&new, path).map_err(unavailable)?;
    REPLACEMENT_COUNT.fetch_add(1, Ordering::SeqCst);
    durable_fs::sync_parent_dir(path).map_err(unavailable)
}

fn initialize(path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tables = SCHEMA
        .replace("BIGINT", "INTEGER")
        .replace("/* options */", "STRICT")
        .replace("/* options of a table that is its key's index */", "STRICT, WITHOUT ROWID");
    transaction.execute_batch(&tables)?;
    transaction.execute("INSERT INTO checkpoint (layout, position) VALUES ($1, 0)", [SCHEMA_VERSION])?;
    FORMAT.write(&transaction)?;
    transaction.commit()?;
    // Closing checkpoints the WAL and removes it.
    connection.close().map_err(|(_, error)| error)
}

/// Renames the database to `<name>.damaged-<unix milliseconds>` and removes the one that was quarantined before. The
/// database is renamed before its WAL, so that readers never find a database without its WAL.
pub(super) fn quarantine(path: &Path) -> Result<(), ReadModelError> {
    let moved = durable_fs::quarantine(path, &["-wal", "-shm"]);
    REPLACEMENT_COUNT.fetch_add(1, Ordering::SeqCst);
    moved.map_err(|error| ReadModelError::Unavailable(Box::new(error)))
}

/// Renames the database, as [`quarantine`] does, to `<name>.other-log-<unix milliseconds>`, which is never removed.
pub(super) fn quarantine_other_log(path: &Path) -> Result<(), ReadModelError> {
    let moved = durable_fs::quarantine_other_log(path, &["-wal", "-shm"]);
    REPLACEMENT_COUNT.fetch_add(1, Ordering::SeqCst);
    moved.map_err(|error| ReadModelError::Unavailable(Box::new(error)))
}

/// Removes a database, its WAL and its heartbeats.
pub(super) fn remove_database(path: &Path) -> io::Result<()> {
    let removed =
        ["", "-wal", "-shm"].iter().try_for_each(|suffix| remove_if_exists(&path_with_suffix(path, suffix)));
    REPLACEMENT_COUNT.fetch_add(1, Ordering::SeqCst);
    removed?;
    heartbeat::remove_all(path)
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
