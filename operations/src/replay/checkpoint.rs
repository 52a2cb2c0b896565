//! Replay checkpoints: a file that records how far a replay was delivered.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_files::durable_fs::path_with_suffix;
use chat_ports::event_store::LogId;
use serde::{Deserialize, Serialize};

use super::error::ReplayError;
use super::target_fingerprint::TargetFingerprint;
use crate::atomic_file::replace_file;

/// The content of the checkpoint file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCheckpoint {
    /// The log that was replayed.
    pub log: LogId,
    /// Every event up to here was delivered or excluded by the filter.
    pub position: Position,
    /// The number of events delivered.
    pub events: u64,
    /// The destination.
    #[serde(rename = "to")]
    pub target: TargetFingerprint,
    /// The SHA-256 of the description of the filter.
    #[serde(rename = "meant")]
    pub filter_sha256: String,
    /// Whether the replay ended in order. Until then a destination file may be longer than `bytes`.
    pub closed: bool,
    /// The length of the destination file, where the destination is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// The checkpoint file, reserved for one replay by a lock file beside it.
pub(super) struct CheckpointFile {
    path: PathBuf,
    _lock: File,
}

impl CheckpointFile {
    pub(super) fn open(path: &Path) -> Result<Self, ReplayError> {
        let lock_path = path_with_suffix(path, ".lock");
        let failed = |source| ReplayError::File { path: lock_path.clone(), source };
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => Err(ReplayError::Checkpoint {
                path: path.to_owned(),
                reason: "another replay is using it".to_owned(),
            }),
        }
    }

    /// Reads the file, `None` if there is none yet. Fails if it can't be a checkpoint of this log.
    pub(super) fn read(
        &mut self,
        log: LogId,
        head: Position,
    ) -> Result<Option<ReplayCheckpoint>, ReplayError> {
        let invalid = |reason: String| ReplayError::Checkpoint { path: self.path.clone(), reason };
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReplayError::File { path: self.path.clone(), source }),
        };
        let checkpoint: ReplayCheckpoint = serde_json::from_slice(&text)
            .map_err(|error| invalid(format!("this is no checkpoint of a replay: {error}")))?;
        if checkpoint.log != log {
            return Err(invalid(format!(
                "it is of another log, {}; to replay this one from its start, name a new file",
                checkpoint.log.0
            )));
        }
        if checkpoint.position > head {
            return Err(invalid(format!(
                "it is at position {}, and the log ends at {head}: the log has lost events",
                checkpoint.position
            )));
        }
        Ok(Some(checkpoint))
    }

    /// Fails if the checkpoint is of a replay to another destination, or through another filter.
    pub(super) fn ensure_matches(
        &self,
        checkpoint: &ReplayCheckpoint,
        target: Option<&TargetFingerprint>,
        filter_sha256: &str,
    ) -> Result<(), ReplayError> {
        let other = if target != Some(&checkpoint.target) {
            checkpoint.target.describe()
        } else if checkpoint.filter_sha256 != filter_sha256 {
            "of other events: the options that say which are not the same".to_owned()
        } else {
            return Ok(());
        };
        let reason = format!(
            "it is of a replay {other}; for this one name a new file, with --after {} to go on from there",
            checkpoint.position
        );
        Err(ReplayError::Checkpoint { path: self.path.clone(), reason })
    }

    pub(super) fn write(&mut self, checkpoint: &ReplayCheckpoint) -> Result<(), ReplayError> {
        let failed = |source| ReplayError::File { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(checkpoint).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        replace_file(&self.path, &text).map_err(failed)
    }
}
