//! The database's file: creating it, opening it, locking it against a second writer, moving it aside.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::{EmptyFile, ForeignDatabase, NotCreated, VersionMismatch, classify_error};
use chat_files::durable_fs;
use chat_files::durable_fs::path_with_suffix;
use chat_files::heartbeat;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::read_model::ReadModelError;
use chat_sql::tables::{SCHEMA, SCHEMA_VERSION};

/// `PRAGMA application_id`: "ChRM" in ASCII. The event log has another one.
const APPLICATION_ID: i32 = 0x4368_524d;

/// How long a connection waits for another one that recovers or resets the WAL.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Prepared statements that a connection keeps.
const STATEMENT_CACHE_CAPACITY: usize = 48;

/// The right to write the database; held until dropped, and released by the operating system when the process dies.
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    pub(super) fn acquire(path: &Path) -> Result<Self, ReadModelError> {
        let unavailable = |error: io::Error| ReadModelError::Unavailable(Box::new(error));
        durable_fs::create_dir_all(&durable_fs::parent_dir(path)).map_err(unavailable)?;
        let lock = path_with_suffix(path, ".lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(lock).map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(ReadModelError::InUse),
            Err(TryLockError::Error(error)) => Err(unavailable(error)),
        }
    }
}

/// Tells one file from another that took its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    /// The file that has this name now; `None` where there is none.
    pub(super) fn for_path(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::from(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<&Metadata> for FileId {
    #[cfg(unix)]
    fn from(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(metadata.dev(), metadata.ino())
    }

    #[cfg(not(unix))]
    fn from(metadata: &Metadata) -> Self {
        let created =
            metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Self(0, created.map_or(0, |since| since.as_nanos() as u64))
    }
}

/// Files that this process has put in the place of others, or taken away.
static REPLACEMENT_COUNT: AtomicU64 = AtomicU64::new(0);

/// How many files this process has put in the place of others, or taken away. While that is the same number, only
/// another process can have.
pub(super) fn replacement_count() -> u64 {
    REPLACEMENT_COUNT.load(Ordering::SeqCst)
}

/// Opens the database for writing, and creates it where there is none. Whoever calls this holds the lock.
pub(super) fn open_for_writing(path: &Path) -> Result<(Connection, StorageOrigin), ReadModelError> {
    let exists =
        FileId::for_path(path).map_err(|error| ReadModelError::Unavailable(Box::new(error)))?.is_some();
    if !exists {
        create(path)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(classify_error)?;
    check(&connection)?;
    // 64 MiB of page cache. Copying the WAL into the file is for `write_ahead`, a few MiB at a time: syncing 64 MiB holds
    // up the log's commits, on the same disk, for 0.17 s. It is cut back to 64 MiB where a long read made it grow.
    connection
        .execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(classify_error)?;
    Ok((connection, if exists { StorageOrigin::Existing } else { StorageOrigin::Created }))
}

/// Opens the database beside its writer, in a transaction of its own.
pub(super) fn open_for_dry_run(path: &Path) -> Result<Connection, ReadModelError> {
    let exists =
        FileId::for_path(path).map_err(|error| ReadModelError::Unavailable(Box::new(error)))?.is_some();
    if !exists {
        return Err(ReadModelError::Unavailable(Box::new(NotCreated)));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(classify_error)?;
    check(&connection)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(classify_error)?;
    Ok(connection)
}

/// Opens the database for reading.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, ReadModelError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(classify_error)?;
    check(&connection)?;
    // 2 MiB of page cache, which the inner pages of five million messages' trees fit in. Each connection has its own, and
    // fills it where more is stored; what does not fit is in the operating system's cache.
    connection.execute_batch("PRAGMA cache_size = -2048;").map_err(classify_error)?;
    // Without this, a statement is compiled anew for each value that its plan might depend on.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(classify_error)?;
    Ok(connection)
}

/// Refuses a file that is not a read model of this version. One of another version, or without any content, is damaged:
/// it is moved aside and folded anew. A sound database of something else, such as the event log, is left alone: its path
/// was given by mistake.
fn check(connection: &Connection) -> Result<(), ReadModelError> {
    connection.busy_timeout(BUSY_TIMEOUT).map_err(classify_error)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application_id = pragma("application_id").map_err(classify_error)?;
    let version = pragma("user_version").map_err(classify_error)?;
    match (application_id, version) {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(()),
        (APPLICATION_ID, found) => {
            let other = VersionMismatch { found, expected: SCHEMA_VERSION };
            Err(ReadModelError::Damaged(Box::new(other)))
        }
        _ if is_empty(connection).map_err(classify_error)? => {
            Err(ReadModelError::Damaged(Box::new(EmptyFile)))
        }
        _ => Err(ReadModelError::Unavailable(Box::new(ForeignDatabase { application_id }))),
    }
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Makes an empty database under another name and then gives it its own, so that no reader meets half of one.
fn create(path: &Path) -> Result<(), ReadModelError> {
    let unavailable = |error: io::Error| ReadModelError::Unavailable(Box::new(error));
    let new = path_with_suffix(path, ".new");
    remove_database(&new).map_err(unavailable)?;
    initialize(&new).map_err(classify_error)?;
    // A WAL that lost its database would be taken for this one's: it is gone for good before this one has its name.
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
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    // `user_version` is the version of the tables.
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    // Closing folds the WAL into the file and removes it.
    connection.close().map_err(|(_, error)| error)
}

/// Moves the database to `<name>.damaged-<unix milliseconds>`, in place of one that was moved there before. The database
/// goes first: from here on readers find none, instead of one without its WAL.
pub(super) fn quarantine(path: &Path) -> Result<(), ReadModelError> {
    let moved = durable_fs::quarantine(path, &["-wal", "-shm"]);
    REPLACEMENT_COUNT.fetch_add(1, Ordering::SeqCst);
    moved.map_err(|error| ReadModelError::Unavailable(Box::new(error)))
}

/// Removes a database with all that is kept beside it.
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
