//! The interface of projections and of their storage.

pub(crate) mod blocking;
pub(crate) mod error;
mod store;

use async_trait::async_trait;
use chat_domain::Position;
use chat_ports::event_store::{EventStore, LogId, RecordedEvent};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;

use crate::dead_letters::queue::DeadLetterQueue;

pub use error::ProjectionError;
pub use store::ProjectionStore;

/// A projection, open for writing.
///
/// The same log gives the same content, independent of the batches. After an error, the projection must be dropped and
/// opened again.
#[async_trait]
pub trait Projection: Send + 'static {
    /// Returns the log and the position up to which it is folded.
    fn checkpoint(&self) -> ProjectionCheckpoint;

    /// Returns the number of dead letters that wait for a retry.
    fn dead_letter_count(&self) -> u64;

    /// Returns the number of discarded events whose discard was not acknowledged.
    fn discarded_count(&self) -> u64;

    /// Returns the dead letters, on which operator actions are applied.
    fn dead_letter_queue(&mut self) -> &mut dyn DeadLetterQueue;

    /// Checks that what this projection has committed is still stored: a remote engine may lose its last commits, and a
    /// folder may be removed. Without new events, only this check detects the loss. Does nothing by default.
    async fn verify_checkpoint(&mut self) -> Result<(), ProjectionError> {
        Ok(())
    }

    /// Begins the upkeep that is deferred while the projection catches up. Called once after each opening, within about
    /// a second after the projector is live and [in use](crate::ProjectorHandle::set_in_use). Does nothing by default.
    async fn begin_live(&mut self) -> Result<(), ProjectionError> {
        Ok(())
    }

    /// Replaces the log id of the checkpoint by the id of a new incarnation of the log. The new incarnation has all
    /// events that are folded.
    async fn adopt_log(&mut self, log: LogId) -> Result<(), ProjectionError>;

    /// Folds the events that follow the checkpoint, and moves the checkpoint to `up_to`, in one commit. A long batch
    /// may be committed in chunks. Each commit moves the checkpoint to the end of its chunk.
    ///
    /// Ignores operator actions: callers that read the log use
    /// [`advance_projection`](crate::dead_letters::advance_projection), which applies them.
    async fn fold(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError>;
}

/// Checks that a projection was folded from this log or from an earlier incarnation of the log. In the latter case, the
/// projection adopts the current id of the log. Returns this id.
pub async fn ensure_log_matches(
    projection: &mut dyn Projection,
    event_store: &dyn EventStore,
) -> Result<LogId, ProjectionError> {
    let ProjectionCheckpoint { log: folded_log, position } = projection.checkpoint();
    let lineage = event_store.lineage().await?;
    // The head is read after the checkpoint. Otherwise it could be behind the checkpoint if the log has grown.
    let head = event_store.head().await?;
    let log = lineage.current();
    let Some(folded_log) = folded_log else { return Ok(log) };
    lineage.check(folded_log, position, head)?;
    if folded_log != log {
        projection.adopt_log(log).await?;
        tracing::info!(
            position = position.get(),
            "the projection continues with the new incarnation of the log"
        );
    }
    Ok(log)
}
