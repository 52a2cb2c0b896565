//! Errors of the index: damage to its files, and tantivy's errors as errors of the port.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use chat_ports::search_index::SearchError;
use tantivy::TantivyError;
use tantivy::directory::error::{LockError, OpenDirectoryError, OpenReadError};
use thiserror::Error;

/// Damage to an index that only a rebuild repairs.
#[derive(Debug, Error)]
pub(crate) enum Damage {
    #[error("the list of segments is missing though there are files of an index")]
    MissingMetaFile,
    #[error("the list of files is missing")]
    MissingManagedFile,
    #[error("these files differ from their checksums: {0:?}")]
    ChecksumMismatch(Vec<PathBuf>),
    #[error("the fields are not those of this version")]
    FieldMismatch,
    #[error("the index has schema version {found}, and this program reads {expected}")]
    VersionMismatch { found: u64, expected: u32 },
    #[error("the checkpoint can't be read")]
    UnreadableCheckpoint(#[source] serde_json::Error),
}

/// Converts an error of tantivy: damage is permanent, everything else is worth a retry.
pub(crate) fn classify_error(error: TantivyError) -> SearchError {
    if let TantivyError::LockFailure(LockError::LockBusy, _) = &error {
        return SearchError::InUse(error.into());
    }
    let is_permanent = match &error {
        TantivyError::IoError(error) => is_damage(error),
        TantivyError::OpenReadError(error) => match error {
            OpenReadError::FileDoesNotExist(_) | OpenReadError::IncompatibleIndex(_) => true,
            OpenReadError::IoError { io_error, .. } => is_damage(io_error),
        },
        TantivyError::OpenDirectoryError(error) => matches!(error, OpenDirectoryError::NotADirectory(_)),
        TantivyError::LockFailure(..)
        | TantivyError::OpenWriteError(_)
        | TantivyError::Poisoned
        | TantivyError::ErrorInThread(_)
        | TantivyError::SystemError(_) => false,
        _ => true,
    };
    if is_permanent { damaged(error) } else { unavailable(error) }
}

/// Whether a file was read but is truncated or has the wrong content.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other
    )
}

pub(crate) fn unavailable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> SearchError {
    SearchError::Unavailable(error.into())
}

pub(crate) fn damaged(error: impl Into<Box<dyn StdError + Send + Sync>>) -> SearchError {
    SearchError::Damaged(error.into())
}
