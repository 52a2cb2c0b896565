//! Maps errors of SQLite to errors of the port.

use std::path::PathBuf;

use rusqlite::{Error, ErrorCode};
use thiserror::Error;

use chat_ports::read_model::ReadModelError;

/// The file is a database, but not a read model.
#[derive(Debug, Error)]
#[error("the file is a database of another kind (application id {application_id:#x}); is its path right?")]
pub(super) struct ForeignDatabase {
    pub application_id: i32,
}

/// The file was written by another version of this program.
#[derive(Debug, Error)]
#[error("the read model has version {found}, not {expected}")]
pub(super) struct VersionMismatch {
    pub found: i32,
    pub expected: i32,
}

/// The file was created by a version that had fewer columns.
#[derive(Debug, Error)]
#[error(
    "the read model lacks columns of this version; they are added when a projector of this version opens it"
)]
pub(super) struct ColumnsMissing;

/// The file has no content.
#[derive(Debug, Error)]
#[error("the file is empty")]
pub(super) struct EmptyFile;

/// The file has not been created yet.
#[derive(Debug, Error)]
#[error("no projector has created the read model yet")]
pub(super) struct NotCreated;

/// The open file was removed or replaced: its path now names another file, or none.
#[derive(Debug, Error)]
#[error("{} was removed or replaced while the projector had it open", .0.display())]
pub(super) struct ReplacedFile(pub PathBuf);

/// The thread of a connection has ended.
#[derive(Debug, Error)]
#[error("the thread of the read model has ended")]
pub(super) struct ThreadEnded;

/// Maps an error of SQLite to the port.
pub(super) fn classify_error(error: Error) -> ReadModelError {
    if is_damage(&error) {
        ReadModelError::Damaged(Box::new(error))
    } else {
        ReadModelError::Unavailable(Box::new(error))
    }
}

/// Whether another connection holds a lock that this one needs.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(error, Error::SqliteFailure(failure, _) if failure.code == ErrorCode::DatabaseBusy)
}

/// Whether an error means that the stored data is invalid: unreadable pages, missing tables or rows, values out of
/// range, duplicate keys. Errors of the environment (busy, disk full, no permission, other I/O errors) do not.
fn is_damage(error: &Error) -> bool {
    /// `SQLITE_IOERR_DATA` and `SQLITE_IOERR_CORRUPTFS`: checksum errors found by the file system or the VFS.
    const CORRUPT_READS: [i32; 2] = [8_202, 8_458];
    match error {
        Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::Unknown => true,
            ErrorCode::SystemIoFailure => CORRUPT_READS.contains(&failure.extended_code),
            _ => false,
        },
        Error::SqlInputError { .. }
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::QueryReturnedNoRows
        | Error::StatementChangedRows(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn a_missing_table_is_damage_and_a_missing_folder_is_not() -> rusqlite::Result<()> {
        let no_table = Connection::open_in_memory()?.prepare("SELECT 1 FROM apps").map(|_| ());
        assert!(no_table.is_err_and(|error| is_damage(&error)));
        let no_folder = Connection::open("/nowhere/at/all.db").map(|_| ());
        assert!(no_folder.is_err_and(|error| !is_damage(&error)));
        Ok(())
    }
}
