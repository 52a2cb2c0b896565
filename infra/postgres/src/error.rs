//! Maps errors of Postgres to errors of the port.

use std::time::Duration;

use sqlx::Error;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use thiserror::Error;

use chat_ports::read_model::ReadModelError;

/// An error that the server reported, without the detail field, which may quote stored values.
#[derive(Debug, Error)]
#[error("{message} (SQLSTATE {code})")]
pub(super) struct ServerError {
    message: String,
    pub(super) code: String,
}

impl ServerError {
    pub(super) fn new(error: &dyn DatabaseError) -> Self {
        Self { message: error.message().to_owned(), code: error.code().unwrap_or_default().into_owned() }
    }
}

/// The beginning of the server's message if the user may not create a schema, in English. The name of the database follows.
const DATABASE_DENIED: &str = "permission denied for database ";

/// The user may not create a schema in the database.
#[derive(Debug, Error)]
#[error(
    "permission denied for database {0}: the read model has a schema of its own; `GRANT CREATE ON DATABASE {0} TO` the \
     user of the process permits to create it"
)]
struct SchemaCreationDenied(String);

/// Postgres does not respond.
#[derive(Debug, Error)]
#[error("Postgres did not respond within {0:?}")]
pub(super) struct ResponseTimeout(pub Duration);

/// All connections are in use.
#[derive(Debug, Error)]
#[error("no connection to Postgres was free within {0:?}")]
pub(super) struct PoolTimeout(pub Duration);

/// The writer's connection, and with it the lock, was lost earlier.
#[derive(Debug, Error)]
#[error("the connection that held the lock is lost")]
pub(super) struct SessionLost;

/// The read model has not been created yet.
#[derive(Debug, Error)]
#[error("no projector has created the read model yet")]
pub(super) struct NotCreated;

/// The schema holds tables of another program.
#[derive(Debug, Error)]
#[error("the schema {0} holds tables of another program; is it the right one?")]
pub(super) struct ForeignTables(pub String);

/// Some of the tables are missing.
#[derive(Debug, Error)]
#[error("tables of the read model are missing")]
pub(super) struct MissingTables;

/// The tables of the read model are not of the version that this program uses, which the field holds.
#[derive(Debug, Error)]
#[error("the version of the read model is not {0}")]
pub(super) struct VersionMismatch(pub i32);

/// The read model was created by a version that had fewer columns.
#[derive(Debug, Error)]
#[error(
    "the read model lacks columns of this version; they are added when a projector of this version opens it"
)]
pub(super) struct ColumnsMissing;

/// An invariant of the read model is violated.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct InvariantViolation(pub &'static str);

/// Rows that the projection loaded are missing or duplicate, which means damage.
#[derive(Debug, Error)]
#[error("{changed} rows of {table} changed instead of {expected}")]
pub(super) struct RowCountMismatch {
    pub table: &'static str,
    pub changed: u64,
    pub expected: usize,
}

/// Maps an error of Postgres to the port.
pub(super) fn classify_error(error: Error) -> ReadModelError {
    match error {
        Error::Database(database) => {
            let server_error = ServerError::new(&*database);
            if is_damage(&server_error.code) {
                ReadModelError::Damaged(Box::new(server_error))
            } else if let Some(database) = server_error.message.strip_prefix(DATABASE_DENIED) {
                ReadModelError::Unavailable(Box::new(SchemaCreationDenied(database.to_owned())))
            } else {
                ReadModelError::Unavailable(Box::new(server_error))
            }
        }
        Error::RowNotFound
        | Error::TypeNotFound { .. }
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::ColumnNotFound(_)
        | Error::ColumnDecode { .. }
        | Error::Decode(_) => ReadModelError::Damaged(Box::new(error)),
        other => ReadModelError::Unavailable(Box::new(other)),
    }
}

/// Maps an error of a reader. To a reader, a missing table means that the read model has not been created yet, and a
/// missing column means that no projector of this version has opened the read model yet. To the writer, both mean
/// damage.
pub(super) fn classify_read_error(error: Error) -> ReadModelError {
    match sqlstate(&error) {
        // undefined_table, invalid_schema_name
        Some("42P01" | "3F000") => ReadModelError::Unavailable(Box::new(NotCreated)),
        // undefined_column
        Some("42703") => ReadModelError::Unavailable(Box::new(ColumnsMissing)),
        _ => classify_error(error),
    }
}

/// Whether the fault is in the connection and not in the statement, so that a retry on another connection may succeed.
pub(super) fn is_connection_lost(error: &Error) -> bool {
    match sqlstate(error) {
        // 08: connection exceptions. 57P: shutdown by an operator or a crash. 0A000: the session has a cached plan of a
        // table that was replaced.
        Some(code) => code.starts_with("08") || code.starts_with("57P") || code == "0A000",
        None => matches!(error, Error::Io(_) | Error::Protocol(_) | Error::Tls(_) | Error::WorkerCrashed),
    }
}

pub(super) fn sqlstate(error: &Error) -> Option<&str> {
    match error {
        Error::Database(database) => {
            database.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code)
        }
        _ => None,
    }
}

/// Whether an error means that the stored data is invalid: unreadable pages, missing or different tables, duplicate
/// keys. All other errors count as transient, such as those of the environment (out of memory or disk, no permission,
/// shutdown).
fn is_damage(code: &str) -> bool {
    /// Errors of the environment, although their codes are in `DAMAGE_CLASSES`: `insufficient_privilege`, and texts
    /// that the database's encoding can't represent. Such texts need a database with the encoding UTF-8, not a rebuild.
    const ENVIRONMENT: [&str; 3] = ["42501", "22021", "22P05"];
    /// `data_corrupted`, `index_corrupted`.
    const CORRUPTED: [&str; 2] = ["XX001", "XX002"];
    /// Data exceptions, violated constraints, and undefined or mistyped objects.
    const DAMAGE_CLASSES: [&str; 3] = ["22", "23", "42"];
    !ENVIRONMENT.contains(&code)
        && (CORRUPTED.contains(&code) || DAMAGE_CLASSES.iter().any(|class| code.starts_with(class)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corruption_is_damage_and_transient_errors_are_not() {
        // undefined_column, unique_violation, data_corrupted
        assert!(["42703", "23505", "XX001"].into_iter().all(is_damage));
        // insufficient_privilege, too_many_connections, disk_full, admin_shutdown, cannot_connect_now, read_only
        assert!(!["42501", "53300", "53100", "57P01", "57P03", "25006"].into_iter().any(is_damage));
    }
}
