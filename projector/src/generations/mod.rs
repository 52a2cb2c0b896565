//! Generations: the built versions of each projection, their locations, their projectors, and the switch-over of
//! queries.
//!
//! A rebuild builds a new generation beside the live one, from which queries are answered; a promotion makes the new
//! one live. [`Generations`] folds these operator actions from the log, and [`ProjectionLocations`] knows where each
//! generation is stored. In a serving process, two parts follow the live generation, independently of each other and of
//! other processes: [`ProjectorSupervisor`] runs its projectors, and [`QuerySwitchOver`] moves queries to it.
//! [`BoundedLog`] holds a build at a position for a comparison, and heartbeats show which projectors run.

mod bounded_log;
pub(crate) mod heartbeats;
mod locations;
mod projector_supervisor;
mod registry;
mod switch_over;

pub use bounded_log::BoundedLog;
pub use locations::ProjectionLocations;
pub use projector_supervisor::{ProjectorStatuses, ProjectorSupervisor, SupervisorContext};
pub use registry::{GenerationHistory, GenerationSet, GenerationState, Generations};
pub use switch_over::{ActiveReaders, PositionSet, QuerySide, QuerySwitchOver};
