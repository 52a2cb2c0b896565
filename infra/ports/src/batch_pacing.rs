//! The sizes of a projector's batches and the pauses between them, for one engine.

use std::time::Duration;

/// Limits of a batch, and the pause between two batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchPacing {
    /// The number of events at which a batch is full.
    pub max_events: usize,
    /// The size in bytes at which a batch is full.
    pub max_bytes: usize,
    /// The length of the pause after a batch, as a multiple of the time that the batch took to apply. Finite and not
    /// negative.
    ///
    /// Events that arrive during the pause are applied together when the pause ends or when they fill a batch. An event
    /// that arrives after the pause is applied at once.
    pub rest_factor: f64,
    /// The longest pause that `rest_factor` gives.
    pub max_rest: Duration,
    /// The shortest pause after a batch while the projector has caught up with the log. May be longer than `max_rest`.
    /// 0 for an engine whose queries see an event only after the projector has committed it.
    pub min_live_rest: Duration,
}
