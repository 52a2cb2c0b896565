//! Errors of backups and restores.

use std::io;
use std::path::{Path, PathBuf};

use chat_ports::event_store::EventStoreError;
use thiserror::Error;

use super::files::{LOG_FILE, MANIFEST_FILE};
use super::leftovers::LeftoverError;
use crate::incarnation::IncarnationError;
use crate::proof::ProofError;

/// The error for a backup that can't be made, checked or restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A log could not be read or copied.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// A log could not be hashed.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A file could not be read or written.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
    /// The folder of a new backup is not empty.
    #[error("{} is not empty; a backup needs a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// The folder has no manifest.
    #[error("{} has no {MANIFEST_FILE}: it is no backup, or one that was not completed", .0.display())]
    NoManifest(PathBuf),
    /// The manifest can't be read.
    #[error("{} is no manifest of a backup", .path.display())]
    InvalidManifest {
        /// The manifest.
        path: PathBuf,
        /// The underlying error.
        source: serde_json::Error,
    },
    /// A newer program wrote the manifest.
    #[error("the backup has format {found}; this program reads up to format {known}")]
    NewerFormat {
        /// The format of the manifest.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// The manifest does not name the copy of the log.
    #[error("the manifest does not name {LOG_FILE}")]
    NoLogFile,
    /// A file differs from the manifest.
    #[error("{file} was altered after the backup: its {property} is not the one in the manifest")]
    Altered {
        /// The name of the file.
        file: &'static str,
        /// The property that differs.
        property: &'static str,
    },
    /// The file differs from the manifest, but holds the events that were backed up.
    #[error(
        "the {property} of {LOG_FILE} is not the one in the manifest, but the file is sound and has every event of the \
         backup, unaltered: it was probably opened by a program that is not meant for backups"
    )]
    OnlyEventsMatch {
        /// The property that differs.
        property: &'static str,
    },
    /// The file changed between its check and the end of the restore.
    #[error("{LOG_FILE} changed while it was being restored; nothing was restored")]
    ChangedMeanwhile,
    /// A new copy differs from the log, in its log id or in the events up to the copy's last position.
    #[error("the copy does not hold the events of the log: {copy} in the copy, {log} in the log")]
    CopyDiffers {
        /// The content of the copy.
        copy: String,
        /// The content of the log.
        log: String,
    },
    /// There is a log already, or a part of one, where the backup would be restored.
    #[error("{} exists, and a restore replaces no log; move the log, with every file whose name begins with its name, to \
             another folder first", .0.display())]
    LogExists(PathBuf),
    /// A leftover of the log can't be renamed.
    #[error("{leftover} can't be renamed")]
    Leftover {
        /// The leftover.
        leftover: String,
        /// The underlying error.
        source: LeftoverError,
    },
    /// The restored log could not go on as a new incarnation.
    #[error(transparent)]
    Incarnation(#[from] IncarnationError),
    /// A blocking task ended without a result.
    #[error("the work on a file ended early")]
    Ended(#[source] tokio::task::JoinError),
}

impl BackupError {
    /// Returns a function that adds the file at `path` to an I/O error.
    pub(super) fn file_error(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }

    /// The error for a copy of the log in which `property` differs from the manifest.
    pub(super) fn altered(property: &'static str) -> Self {
        Self::Altered { file: LOG_FILE, property }
    }
}
