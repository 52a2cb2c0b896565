//! Replay checkpoints: a file that records how far a replay was delivered.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use chat_domain::Position;
use chat_files::durable_fs::path_with_suffix;
use chat_ports::event_store::{LogId, LogLineage, LogMismatch};
use serde::{Deserialize, Serialize};

use super::error::ReplayError;
use super::target_fingerprint::TargetFingerprint;
use crate::atomic_file::replace_file;

/// The content of the checkpoint file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCheckpoint {
    /// The log that was replayed.
    pub log: LogId,
    /// Every event up to this position was delivered, excluded by the filter, or skipped with `--after`.
    pub position: Position,
    /// The number of events delivered by all runs of the replay.
    pub events: u64,
    /// The destination.
    #[serde(rename = "to")]
    pub target: TargetFingerprint,
    /// The SHA-256 of the description of the filter.
    #[serde(rename = "meant")]
    pub filter_sha256: String,
    /// Whether the replay ended normally. If not, a destination file may be longer than `bytes`.
    #[serde(rename = "closed")]
    pub ended_normally: bool,
    /// The length of the destination file; `None` for other destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl ReplayCheckpoint {
    /// Whether nothing was delivered, and nothing may be left in a destination file after `bytes`. Such a checkpoint
    /// may be replaced by that of any replay.
    pub(super) fn is_empty(&self) -> bool {
        self.events == 0 && (self.ended_normally || self.bytes.is_none())
    }
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

    /// Reads the file; `None` if it does not exist yet. Fails if the log does not have the events that were delivered.
    pub(super) fn read(
        &mut self,
        lineage: &LogLineage,
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
        match lineage.check(checkpoint.log, checkpoint.position, head) {
            Ok(()) => {}
            Err(mismatch @ LogMismatch::Truncated { .. }) => return Err(invalid(mismatch.to_string())),
            Err(mismatch @ LogMismatch::OtherLog { .. }) => {
                return Err(invalid(format!(
                    "{mismatch}; to replay this one from its start, use a new file"
                )));
            }
            Err(mismatch @ LogMismatch::GivenUp { kept_up_to, .. }) => {
                return Err(invalid(format!(
                    "{mismatch}; the events delivered after that are no longer in the log; use a new file, with --after \
                     {kept_up_to} to continue from there"
                )));
            }
        }
        Ok(Some(checkpoint))
    }

    /// Fails if the checkpoint belongs to a replay to another destination, or with another filter. `target` is `None`
    /// if the destination is a file that does not exist, which matches no checkpoint.
    pub(super) fn ensure_matches(
        &self,
        checkpoint: &ReplayCheckpoint,
        target: Option<&TargetFingerprint>,
        filter_sha256: &str,
    ) -> Result<(), ReplayError> {
        let difference = if target != Some(&checkpoint.target) {
            checkpoint.target.describe()
        } else if checkpoint.filter_sha256 != filter_sha256 {
            "with another filter".to_owned()
        } else {
            return Ok(());
        };
        let reason = format!(
            "it belongs to a replay {difference}; for this one, use a new file, with --after {} to continue from there",
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

#[cfg(test)]
mod tests {
    use super::*;
    use chat_domain::Timestamp;
    use chat_ports::event_store::NewIncarnation;
    use uuid::Uuid;

    #[test]
    fn a_checkpoint_of_an_earlier_incarnation_is_valid_up_to_the_last_kept_event() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = CheckpointFile::open(&folder.path().join("position")).unwrap();
        let [original, restored] = [1, 2].map(|number| LogId(Uuid::from_u128(number)));
        let incarnation = NewIncarnation {
            log: restored,
            began_at: Timestamp::from_millis(0),
            reason: String::new(),
            replaces: Vec::new(),
        };
        let lineage = LogLineage::new(original, vec![incarnation.begun_after(Position::new(14))]);
        let head = Position::new(900);
        for (position, refusal) in [(14, None), (15, Some("--after 14"))] {
            let checkpoint = ReplayCheckpoint {
                log: original,
                position: Position::new(position),
                events: position,
                target: TargetFingerprint::Program { sha256: String::new() },
                filter_sha256: String::new(),
                ended_normally: true,
                bytes: None,
            };
            file.write(&checkpoint).unwrap();
            match (file.read(&lineage, head), refusal) {
                (Ok(read), None) => assert_eq!(read, Some(checkpoint)),
                (Err(error), Some(refusal)) => assert!(error.to_string().contains(refusal), "{error}"),
                (read, _) => panic!("checkpoint at position {position}: {read:?}"),
            }
        }
    }
}
