//! The port to a destination: accepts batches, and reports how far they were delivered.

use async_trait::async_trait;
use chat_domain::Position;

use super::batch::{BatchLimits, ReplayBatch};
use super::error::ReplayError;
use super::stop_signal::{StatusCallback, StopSignal};

/// How far a target has delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryProgress {
    /// Everything up to this position is delivered.
    pub(super) position: Position,
    /// The number of events delivered in this run.
    pub(super) events: u64,
    /// The length of the file; `None` for other targets.
    pub(super) bytes: Option<u64>,
}

/// A destination that takes batches one after the other, in the order of the log.
#[async_trait]
pub(super) trait ReplayTarget: Send {
    /// The size of batches that suits the target.
    fn batch_limits(&self) -> BatchLimits;

    /// Delivers a batch, which may be empty. Returns `false` if a stop was requested before the batch was taken.
    ///
    /// After an error no more batches are delivered.
    async fn deliver(
        &mut self,
        batch: &ReplayBatch,
        stop: &mut StopSignal,
        on_status: StatusCallback<'_>,
    ) -> Result<bool, ReplayError>;

    /// Makes what was delivered durable, as far as the target can, and returns how far delivery is certain.
    async fn flush(&mut self) -> Result<DeliveryProgress, ReplayError>;

    /// Ends delivery and waits until the target has taken everything.
    async fn finish(&mut self) -> Result<DeliveryProgress, ReplayError>;
}
