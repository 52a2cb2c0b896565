//! Generations of the projections in this process: their projectors, and the switch-over of queries between them.
//!
//! [`projector_supervisor`] runs the projector of the live generation, and for a while that of the one before.
//! [`switch_over`] switches queries over once the new generations have reached what the old ones have answered. Neither waits for the
//! other, nor for other processes: each follows the log.

mod projector_supervisor;
mod switch_over;

use std::time::Duration;

pub(crate) use projector_supervisor::{ProjectorSupervisor, SupervisorContext};
pub(crate) use switch_over::{ActiveReaders, QuerySwitchOver};

/// How often it is looked whether what was waited for has come.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
