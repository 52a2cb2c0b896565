//! The sizes of a projector's batches and the pauses between them, for one engine.

use std::time::Duration;

/// Limits of a batch, and the pause between two batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchPacing {
    /// The number of events at which a batch is full.
    pub max_events: usize,
    /// The size in bytes at which a batch is full.
    pub max_bytes: usize,
    /// The length of the pause after a batch, as a multiple of the time that the batch took to apply. Events that
    /// arrive during the pause are applied together after it, or once they fill a batch; an event that arrives later is
    /// applied at once. Finite and not negative.
    pub rest_factor: f64,
    /// The longest pause that `rest_factor` gives.
    pub max_rest: Duration,
    /// The shortest pause once the projector has caught up with the log; may be longer than `max_rest`. An event that
    /// arrives after a longer time without events is still applied at once. 0 for an engine whose queries wait for
    /// commits.
    pub min_live_rest: Duration,
}
