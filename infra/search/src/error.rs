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

/// The index was created by a version that had fewer fields.
#[derive(Debug, Error)]
#[error(
    "the search index lacks fields of this version; they are added when a projector of this version opens it"
)]
pub(crate) struct FieldsMissing;

/// Converts an error of tantivy to one of the port.
pub(crate) fn classify_error(error: TantivyError) -> SearchError {
    if let TantivyError::LockFailure(LockError::LockBusy, _) = &error {
        return SearchError::InUse(error.into());
    }
    let is_permanent = match &error {
        TantivyError::IoError(io_error) => is_damage(io_error),
        TantivyError::OpenReadError(open_error) => match open_error {
            OpenReadError::FileDoesNotExist(_) | OpenReadError::IncompatibleIndex(_) => true,
            OpenReadError::IoError { io_error, .. } => is_damage(io_error),
        },
        TantivyError::OpenDirectoryError(open_error) => {
            matches!(open_error, OpenDirectoryError::NotADirectory(_))
        }
        TantivyError::LockFailure(..)
        | TantivyError::OpenWriteError(_)
        | TantivyError::Poisoned
        | TantivyError::ErrorInThread(_)
        | TantivyError::SystemError(_)
        // tantivy turns a failed write during a merge or a commit into an internal error, which has only the text of
        // the I/O error. If the files are damaged, the checksums show it when a writer opens the index again.
        | TantivyError::InternalError(_) => false,
        _ => true,
    };
    if is_permanent { damaged(error) } else { unavailable(error) }
}

/// Whether an I/O error has one of the kinds that damaged content causes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_is_worth_a_retry_and_not_damage() {
        const EIO: i32 = 5;
        const ENOSPC: i32 = 28;
        let failed_writes = [
            // tantivy's store, fast fields and postings turn an I/O error into an internal error.
            TantivyError::InternalError(io::Error::from_raw_os_error(EIO).to_string()),
            TantivyError::from(io::Error::from_raw_os_error(EIO)),
            TantivyError::from(io::Error::from_raw_os_error(ENOSPC)),
        ];
        for error in failed_writes {
            let text = error.to_string();
            assert!(matches!(classify_error(error), SearchError::Unavailable(_)), "{text}");
        }
        let truncated = TantivyError::from(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(matches!(classify_error(truncated), SearchError::Damaged(_)));
    }
}
