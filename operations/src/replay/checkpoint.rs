//! Up to where a replay was delivered, in a file.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_files::durable_fs::path_with_suffix;
use chat_ports::event_store::LogId;
use serde::{Deserialize, Serialize};

use super::ReplayError;
use super::target_fingerprint::TargetFingerprint;
use crate::atomic_file::replace_file;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCheckpoint {
    /// Of which log.
    pub log: LogId,
    /// Everything up to here was delivered or not wanted.
    pub position: Position,
    /// How many events that were.
    pub events: u64,
    /// Where they went.
    pub to: TargetFingerprint,
    /// Which were meant: the SHA-256 of how that was said.
    pub meant: String,
    /// Whether the replay ended in order. Until then a file may be longer than it says.
    pub closed: bool,
    /// Where events go to a file: how long it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// The file, kept for one replay by a lock beside it.
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

    /// What the file says, `None` where there is none yet. Fails where it can't be of this log.
    pub(super) fn read(
        &mut self,
        log: LogId,
        head: Position,
    ) -> Result<Option<ReplayCheckpoint>, ReplayError> {
        let wrong = |reason: String| ReplayError::Checkpoint { path: self.path.clone(), reason };
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReplayError::File { path: self.path.clone(), source }),
        };
        let bookmark: ReplayCheckpoint = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("this is no checkpoint of a replay: {error}")))?;
        if bookmark.log != log {
            return Err(wrong(format!(
                "it is of another log, {}; to replay this one from its start, name a new file",
                bookmark.log.0
            )));
        }
        if bookmark.position > head {
            return Err(wrong(format!(
                "it is at position {}, and the log ends at {head}: the log has lost events",
                bookmark.position
            )));
        }
        Ok(Some(bookmark))
    }

    /// Fails where what the file says is of a replay to elsewhere, or of other events.
    pub(super) fn ensure_matches(
        &self,
        checkpoint: &ReplayCheckpoint,
        to: Option<&TargetFingerprint>,
        meant: &str,
    ) -> Result<(), ReplayError> {
        let other = if to != Some(&checkpoint.to) {
            checkpoint.to.describe()
        } else if checkpoint.meant != meant {
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

    pub(super) fn write(&mut self, bookmark: &ReplayCheckpoint) -> Result<(), ReplayError> {
        let failed = |source| ReplayError::File { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(bookmark).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        replace_file(&self.path, &text).map_err(failed)
    }
}
