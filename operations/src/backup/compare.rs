//! Compares a log with a backup of it.

use std::path::Path;

use chat_ports::event_store::EventStore;
use serde::Serialize;

use super::check::{check_file, open_copy};
use super::error::BackupError;
use super::manifest::Manifest;
use crate::proof::ProgressCallback;
use crate::proof::first_difference::{FirstDifference, find_first_difference};
use crate::proof::log_integrity::{self, IntegrityReport};

/// The result of comparing a log with a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupComparison {
    /// The manifest of the backup.
    pub manifest: Manifest,
    /// How the copy of the log in the backup differs from the manifest, if it does.
    pub altered_copy: Option<String>,
    /// Whether the log has every event of the backup.
    pub holds_backup: bool,
    /// The first event that differs between the copy and the log; `None` if none was found.
    pub difference: Option<FirstDifference>,
    /// The content and the faults of the log, up to the backup's last position.
    pub log: IntegrityReport,
}

impl BackupComparison {
    /// Whether the log has every event of the backup, and neither has a problem of its own.
    pub fn is_good(&self) -> bool {
        self.holds_backup && self.altered_copy.is_none() && self.log.faults.is_empty()
    }
}

/// Compares a log with the backup that has this manifest. Changes neither.
pub async fn compare(
    backup: &Path,
    manifest: Manifest,
    log: &dyn EventStore,
    on_progress: ProgressCallback<'_>,
) -> Result<BackupComparison, BackupError> {
    let altered_copy = match check_file(backup, &manifest).await {
        Ok(()) => None,
        Err(altered @ BackupError::Altered { .. }) => Some(altered.to_string()),
        Err(error) => return Err(error),
    };
    let report = log_integrity::check(log, Some(manifest.position), on_progress).await?;
    let holds_backup = report.log_root() == manifest.log_root();
    let difference = if holds_backup { None } else { first_difference(backup, &manifest, log).await };
    Ok(BackupComparison { manifest, altered_copy, holds_backup, difference, log: report })
}

/// Finds the first event that differs. `None` if there is none, or if the copy or the log can't be read. This is no
/// error: if the copy can't be read because it was altered, [`BackupComparison::altered_copy`] says so.
async fn first_difference(
    backup: &Path,
    manifest: &Manifest,
    log: &dyn EventStore,
) -> Option<FirstDifference> {
    let copy = open_copy(backup).await.ok()?;
    find_first_difference(&copy, log, manifest.position).await.ok()?
}
