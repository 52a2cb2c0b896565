//! How a projector batches events for an engine.

use std::time::Duration;

/// Limits of a batch, and the pause between two batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchPacing {
    /// The largest number of events in a batch.
    pub max_events: usize,
    /// The size of the events in bytes from which on a batch is full.
    pub max_bytes: usize,
    /// After a batch, events are gathered for this many times as long as the batch took to apply, so that applying takes
    /// only a share of the time. An event that arrives later is applied at once. Finite and not negative; 0: no pause.
    pub rest_factor: f64,
    /// The longest pause.
    pub max_rest: Duration,
}
