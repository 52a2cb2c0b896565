//! The interface to a projection's dead letters.

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::LogId;

use super::retry::{RetryBatch, RetryOutcome};
use crate::projection::error::ProjectionError;

/// The dead letters of a projection that is open for writing.
#[async_trait]
pub trait DeadLetterQueue: Send {
    /// Returns the projection of the dead letters.
    fn projection(&self) -> ProjectionName;

    /// Reads the dead letter of the event at this position.
    async fn dead_letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError>;

    /// Reads the first `limit` pending dead letters of a stream, by position.
    async fn dead_letters_of_stream(
        &mut self,
        stream: &str,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ProjectionError>;

    /// Executes a part of an operator's retry or discard, which is an event of the log: folds the events of the dead
    /// letters, updates the dead letters, and moves the checkpoint past the action's event with the last part, all in
    /// one commit.
    async fn retry(&mut self, batch: RetryBatch) -> Result<RetryOutcome, ProjectionError>;

    /// Moves the checkpoint to `to`, past the event of an operator action that folds nothing, and stores the acknowledged dead letter, if
    /// any, in the same commit.
    async fn advance_checkpoint(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError>;
}
