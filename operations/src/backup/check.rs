//! Compares a backup with its manifest.

use std::path::Path;

use chat_ports::event_store::EventStore;
use chat_sqlite::{SqliteEventStore, check_event_log_file};

use super::blocking::{measure_file, run_blocking};
use super::error::BackupError;
use super::files::LOG_FILE;
use super::manifest::Manifest;
use crate::proof::ProgressCallback;
use crate::proof::log_root::LogRoot;

/// Checks that the files of a backup are those that its manifest describes, and that the copy of the log is sound and
/// holds the events that were backed up. Changes nothing.
pub async fn check(backup: &Path, on_progress: ProgressCallback<'_>) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(backup)?;
    let expected = manifest.log_file()?.clone();
    let path = backup.join(LOG_FILE);
    let copy = run_blocking(move || {
        let (bytes, sha256) = measure_file(&path)?;
        if bytes != expected.bytes {
            return Err(BackupError::altered("length"));
        }
        if sha256 != expected.sha256 {
            return Err(BackupError::altered("SHA-256"));
        }
        check_event_log_file(&path)?;
        Ok(SqliteEventStore::open_read_only(&path)?)
    })
    .await?;
    if copy.log_id().await? != manifest.log {
        return Err(BackupError::altered("log id"));
    }
    if LogRoot::compute(&copy, None, on_progress).await? != manifest.log_root() {
        return Err(BackupError::altered("Merkle root"));
    }
    Ok(manifest)
}
