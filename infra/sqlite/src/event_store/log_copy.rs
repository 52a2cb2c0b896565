//! Copies of an event log: one file each, without a WAL beside it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::error::classify;
use super::schema::{self, FileChanges};
use chat_files::durable_fs;
use chat_ports::event_store::EventStoreError;

/// The maximal number of SQLite's messages in an error.
const MAX_MESSAGES: usize = 3;

/// The error for a file that fails the integrity check.
#[derive(Debug, thiserror::Error)]
#[error("the integrity check of SQLite failed: {0}")]
struct UnsoundFile(String);

/// Copies a snapshot of the log at `from` into a new file. Other processes may append to the log meanwhile.
///
/// `VACUUM INTO` reads one snapshot, so concurrent appends neither restart the copy nor wait for it. The copy is
/// synced, and readable by its owner only. Blocks until the whole log is read and written. Fails if `to` exists.
pub fn copy_event_log(from: &Path, to: &Path) -> Result<(), EventStoreError> {
    let unavailable = |error: std::io::Error| EventStoreError::Unavailable(error.into());
    let connection = schema::open_for_reading(from, FileChanges::Possible).map_err(classify)?;
    // `VACUUM INTO` accepts an empty file, so the file is created with its permissions first.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(unavailable)?;
    let target =
        to.as_os_str().to_str().ok_or_else(|| unavailable(std::io::ErrorKind::InvalidFilename.into()))?;
    connection.execute("VACUUM INTO ?1", [target]).map_err(classify)?;
    // SQLite leaves the sync to the caller.
    File::open(to).and_then(|file| file.sync_all()).map_err(unavailable)?;
    durable_fs::sync_parent_dir(to).map_err(unavailable)
}

/// Checks every page, row and index of a log's file with `PRAGMA integrity_check`. Only for copies: what is in a
/// WAL beside the file is not checked. Changes nothing. Blocks.
pub fn check_event_log_file(path: &Path) -> Result<(), EventStoreError> {
    let connection = schema::open_for_reading(path, FileChanges::Excluded).map_err(classify)?;
    let sql = format!("PRAGMA integrity_check({MAX_MESSAGES})");
    let mut statement = connection.prepare(&sql).map_err(classify)?;
    let messages = statement.query_map([], |row| row.get::<_, String>(0)).map_err(classify)?;
    let messages: Vec<String> = messages.collect::<Result<_, _>>().map_err(classify)?;
    if messages == ["ok"] {
        return Ok(());
    }
    Err(EventStoreError::Damaged(UnsoundFile(messages.join("; ")).into()))
}
