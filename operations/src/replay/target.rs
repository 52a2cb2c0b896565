//! The port to a destination: accepts batches, and reports the progress of their delivery.

use async_trait::async_trait;
use chat_domain::Position;

use super::batch::{BatchLimits, ReplayBatch};
use super::error::ReplayError;
use super::stop_signal::{StatusCallback, StopSignal};

/// The progress of delivery to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryProgress {
    /// The position up to which all events are delivered.
    pub(super) position: Position,
    /// The number of events delivered in this run.
    pub(super) events: u64,
    /// The length of the file; `None` for other targets.
    pub(super) bytes: Option<u64>,
}

/// A destination that takes batches one after the other, in the order of the log.
#[async_trait]
pub(super) trait ReplayTarget: Send {
    /// Returns the size of batches that suits the target.
    fn batch_limits(&self) -> BatchLimits;

    /// Delivers a batch, which may be empty. Returns `false` if a stop was requested before the batch was accepted.
    ///
    /// The caller delivers no more batches after an error.
    async fn deliver(
        &mut self,
        batch: &ReplayBatch,
        stop: &mut StopSignal,
        on_status: StatusCallback<'_>,
    ) -> Result<bool, ReplayError>;

    /// Makes delivered events durable, if the target can do so. Returns the progress for which delivery is certain.
    async fn flush(&mut self) -> Result<DeliveryProgress, ReplayError>;

    /// Ends delivery, and waits until the target has accepted all events.
    async fn finish(&mut self) -> Result<DeliveryProgress, ReplayError>;
}
