//! The manifest of a backup. It describes the events and the files of the backup, so that they can be verified later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chat_domain::event::SchemaVersion;
use chat_domain::{Position, Timestamp};
use chat_ports::event_store::LogId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::BackupError;
use super::files::{LOG_FILE, MANIFEST_FILE};
use crate::atomic_file::replace_file;
use crate::proof::log_root::LogRoot;
use crate::proof::tree::Hash;

/// The manifest of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The time of the backup.
    #[serde(serialize_with = "serialize_time", deserialize_with = "deserialize_time")]
    pub created_at: Timestamp,
    /// The program that made the backup, with its version.
    pub program: String,
    /// The highest schema version that the program knows, among the versions of all event types.
    pub event_schema: SchemaVersion,
    /// The log's id.
    pub log: LogId,
    /// The position of the last event.
    pub position: Position,
    /// The number of events.
    pub events: u64,
    /// The root of the Merkle tree of the events.
    pub root: Hash,
    /// The files beside the manifest.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// The file's name in the folder.
    pub name: String,
    /// The file's length.
    pub bytes: u64,
    /// The SHA-256 of the file.
    pub sha256: Hash,
}

impl Manifest {
    /// The version of the format that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// Reads the manifest of a backup.
    pub fn read(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(MANIFEST_FILE);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BackupError::NoManifest(backup.to_owned()),
            _ => BackupError::file_error(&path)(error),
        })?;
        let invalid = |source| BackupError::InvalidManifest { path: path.clone(), source };
        // The version is read first, because a newer format may have other fields.
        let Version { version } = serde_json::from_slice(&text).map_err(invalid)?;
        if version > Self::VERSION {
            return Err(BackupError::NewerFormat { found: version, known: Self::VERSION });
        }
        serde_json::from_slice(&text).map_err(invalid)
    }

    /// Writes the manifest. This is the last step of a backup.
    pub(super) fn write(&self, backup: &Path) -> Result<(), BackupError> {
        let path = backup.join(MANIFEST_FILE);
        let write = || {
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            replace_file(&path, &text)
        };
        write().map_err(BackupError::file_error(&path))
    }

    /// Returns the number of events, the last position and the root of the log.
    pub fn log_root(&self) -> LogRoot {
        LogRoot { events: self.events, position: self.position, root: self.root }
    }

    /// Returns the entry of the log's copy.
    pub fn log_file(&self) -> Result<&BackupFile, BackupError> {
        self.files.iter().find(|file| file.name == LOG_FILE).ok_or(BackupError::NoLogFile)
    }
}

/// Returns the folder of a log's file if this folder is a backup: it has the manifest of a backup, or a manifest file
/// that can't be read from the disk.
pub fn find_backup(log_file: &Path) -> Option<PathBuf> {
    let log_file = fs::canonicalize(log_file).ok()?;
    if log_file.file_name()? != LOG_FILE {
        return None;
    }
    let folder = log_file.parent()?;
    // A `manifest.json` whose content can't be parsed as a manifest of a backup belongs to something else. A
    // `manifest.json` that can't be read from the disk may be a backup's.
    let is_backup = matches!(
        Manifest::read(folder),
        Ok(_) | Err(BackupError::NewerFormat { .. } | BackupError::File { .. })
    );
    is_backup.then(|| folder.to_owned())
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn serialize_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn deserialize_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    Timestamp::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("a time is not RFC 3339"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_whose_manifest_cant_be_read_from_the_disk_counts_as_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (log_file, manifest) = (folder.path().join(LOG_FILE), folder.path().join(MANIFEST_FILE));
        fs::write(&log_file, "").unwrap();
        assert_eq!(find_backup(&log_file), None);
        fs::write(&manifest, r#"{ "name": "something else" }"#).unwrap();
        assert_eq!(find_backup(&log_file), None);
        fs::remove_file(&manifest).unwrap();
        // A link to itself can't be opened, not even by root.
        symlink(&manifest, &manifest).unwrap();
        assert_eq!(find_backup(&log_file), Some(fs::canonicalize(folder.path()).unwrap()));
    }
}
