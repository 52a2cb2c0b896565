//! Errors of projections and their stores.

use std::error::Error as StdError;

use chat_ports::event_store::{EventStoreError, LogMismatch};
use chat_ports::read_model::ReadModelError;
use chat_ports::search_index::SearchError;
use thiserror::Error;
use tokio::task::JoinError;

/// Reasons why a projection can't be read or written.
#[derive(Debug, Error)]
pub enum ProjectionError {
    /// The storage can't be used now: for example, the engine is unreachable or busy. Worth a retry.
    #[error("its storage can't be reached now")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// The stored data is not readable. The projection has to be rebuilt.
    #[error("its storage is damaged")]
    Damaged(#[source] Box<dyn StdError + Send + Sync>),
    /// The stored checkpoint is not the expected one: another writer moved it, or the engine lost commits. The
    /// projection has to be opened again.
    #[error("another projector moved its checkpoint")]
    CheckpointMoved,
    /// The projection does not follow from the log: it is of another log, or of events that the log no longer has.
    #[error("the projection does not belong to the log: {0}")]
    LogMismatch(#[from] LogMismatch),
    /// The log could not be read.
    #[error("the event store can't be read")]
    EventStore(#[from] EventStoreError),
    /// Another writer has the projection open.
    #[error("another projector has it open")]
    InUse,
}

impl From<ReadModelError> for ProjectionError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::CheckpointMoved => Self::CheckpointMoved,
            ReadModelError::InUse => Self::InUse,
            ReadModelError::Unavailable(source) => Self::Unavailable(source),
            ReadModelError::Damaged(source) => Self::Damaged(source),
        }
    }
}

impl From<SearchError> for ProjectionError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::CheckpointMoved => Self::CheckpointMoved,
            SearchError::InUse(_) => Self::InUse,
            SearchError::Unavailable(source) => Self::Unavailable(source),
            SearchError::NotCreated => Self::Unavailable(Box::new(error)),
            SearchError::Damaged(source) => Self::Damaged(source),
        }
    }
}

/// A panic or abort of a task is not evidence of damage, so the projection counts as unavailable.
impl From<JoinError> for ProjectionError {
    fn from(error: JoinError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}
