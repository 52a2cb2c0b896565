//! Generations: the built versions of each projection, their locations, their projectors, and the switch-over of
//! queries.
//!
//! Queries are answered from the live generation. A rebuild builds a new generation beside it, and a promotion makes
//! the new generation live. [`Generations`] folds these operator actions from the log, and [`ProjectionLocations`] has
//! the location of each generation. In a serving process, two parts follow the live generation, independently of each
//! other and of other processes: [`ProjectorSupervisor`] runs the projectors of the live generation, and
//! [`QuerySwitchOver`] moves queries to it. [`BoundedLog`] pauses a build at a position for a comparison, and
//! heartbeats show which projectors run.

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
