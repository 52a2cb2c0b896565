//! Generations of the projections in this process: their projectors, and the switch-over of queries between them.
//!
//! [`projector_supervisor`] runs the projector of the live generation, and for a while that of the one before.
//! [`switch_over`] switches queries over once the new generations have reached what the old ones have answered. Neither
//! waits for the other, nor for other processes: each follows the log.

mod projector_supervisor;
mod switch_over;

use std::time::Duration;

use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_projector::generations::{GenerationHistory, ProjectionLocations};

pub(crate) use projector_supervisor::{ProjectorSupervisor, SupervisorContext};
pub(crate) use switch_over::{ActiveReaders, QuerySwitchOver};

/// The interval of polls for a state that is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Chooses the generation to start with: the live one, unless it does not exist yet or is behind the previous one, as
/// after a promotion while this machine was off.
async fn initial_generation(
    locations: &ProjectionLocations,
    projection: ProjectionName,
    history: &GenerationHistory,
) -> Generation {
    let Some(previous) = history.previous() else { return history.live };
    let position = async |generation| {
        locations.store(ProjectionGeneration { projection, generation }).position().await.ok()
    };
    match (position(history.live).await, position(previous).await) {
        (now, Some(before)) if now < Some(before) => previous,
        _ => history.live,
    }
}
