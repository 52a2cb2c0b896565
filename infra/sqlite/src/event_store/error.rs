//! Errors of SQLite as errors of the event store.

use chat_ports::event_store::EventStoreError;
use rusqlite::ErrorCode;

/// The log was set back and went on as another incarnation while the handle was open.
#[derive(Debug, thiserror::Error)]
#[error("another incarnation of the log has begun; restart the process")]
pub(super) struct OtherIncarnation;

/// Maps an error of SQLite to the port: retryable or damage.
pub(super) fn classify(error: rusqlite::Error) -> EventStoreError {
    use rusqlite::Error as E;
    match &error {
        E::SqliteFailure(failure, _)
            if !matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
        {
            EventStoreError::Unavailable(error.into())
        }
        _ => EventStoreError::Damaged(error.into()),
    }
}
