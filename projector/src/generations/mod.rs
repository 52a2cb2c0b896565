//! Generations: the built versions of each projection.
//!
//! A rebuild builds a new generation beside the live one, from which queries are answered; a promotion makes the new one
//! live. [`Generations`] folds these operator actions, [`ProjectionLocations`] knows where each generation is stored,
//! [`BoundedLog`] holds a build at a position for a comparison, and [`HeartbeatStore`]s show which projectors run.

mod bounded_log;
pub(crate) mod heartbeats;
mod locations;
mod registry;

pub use bounded_log::BoundedLog;
pub use heartbeats::HeartbeatStore;
pub use locations::{ProjectionLocations, ReadModelLocation};
pub use registry::{GenerationHistory, GenerationSet, GenerationState, Generations};
