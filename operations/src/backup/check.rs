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
use crate::proof::tree::Hash;

/// The copies of the log that a check accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedCopy {
    /// The file that the backup wrote, byte for byte.
    SameFile,
    /// A sound file with the events that were backed up, also if other bytes differ: a program that opened the file may
    /// have changed its header.
    SameEvents,
}

/// A backup that was checked.
#[derive(Debug)]
pub(super) struct CheckedBackup {
    pub(super) manifest: Manifest,
    /// The SHA-256 of the copy that was checked.
    pub(super) sha256: Hash,
}

/// Checks that the copy of the log in a backup is one that `accepted` allows, is sound, and holds the events that were
/// backed up. Changes nothing.
pub(super) async fn check(
    backup: &Path,
    accepted: AcceptedCopy,
    on_progress: ProgressCallback<'_>,
) -> Result<CheckedBackup, BackupError> {
    let manifest = Manifest::read(backup)?;
    let (differing_property, sha256) = measure_copy(backup, &manifest).await?;
    let events = check_events(backup, &manifest, on_progress).await;
    match (differing_property, events, accepted) {
        (None, Err(error), _) => Err(error),
        (Some(property), Err(_), _) => Err(BackupError::altered(property)),
        (Some(property), Ok(()), AcceptedCopy::SameFile) => Err(BackupError::OnlyEventsMatch { property }),
        (None, Ok(()), _) | (Some(_), Ok(()), AcceptedCopy::SameEvents) => {
            Ok(CheckedBackup { manifest, sha256 })
        }
    }
}

/// Compares the file of the log's copy in a backup with the manifest, without reading its events. Changes nothing.
/// Fails with [`BackupError::Altered`] if its length or SHA-256 differs.
pub(super) async fn check_file(backup: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    match measure_copy(backup, manifest).await? {
        (None, _) => Ok(()),
        (Some(property), _) => Err(BackupError::altered(property)),
    }
}

/// Opens the copy of the log in a backup, without changing it.
pub(super) async fn open_copy(backup: &Path) -> Result<SqliteEventStore, BackupError> {
    let path = backup.join(LOG_FILE);
    run_blocking(move || Ok(SqliteEventStore::open_immutable(&path)?)).await
}

/// Returns the property in which the file of the log's copy differs from the manifest, and the SHA-256 of the file.
async fn measure_copy(
    backup: &Path,
    manifest: &Manifest,
) -> Result<(Option<&'static str>, Hash), BackupError> {
    let (path, expected) = (backup.join(LOG_FILE), manifest.log_file()?.clone());
    let (bytes, sha256) = run_blocking(move || measure_file(&path)).await?;
    let differing_property = if bytes != expected.bytes {
        Some("length")
    } else if sha256 != expected.sha256 {
        Some("SHA-256")
    } else {
        None
    };
    Ok((differing_property, sha256))
}

/// Checks that the copy is sound, and that it holds the events that were backed up.
async fn check_events(
    backup: &Path,
    manifest: &Manifest,
    on_progress: ProgressCallback<'_>,
) -> Result<(), BackupError> {
    let path = backup.join(LOG_FILE);
    run_blocking(move || Ok(check_event_log_file(&path)?)).await?;
    let copy = open_copy(backup).await?;
    if copy.log_id().await? != manifest.log {
        return Err(BackupError::altered("log id"));
    }
    if LogRoot::compute(&copy, None, on_progress).await? != manifest.log_root() {
        return Err(BackupError::altered("Merkle root"));
    }
    Ok(())
}
