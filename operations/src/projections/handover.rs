//! Handover: local projectors continue until the running system has taken over their generations.

use std::time::Duration;

use chat_domain::projection::ProjectionGeneration;
use chat_ports::clock;
use chat_ports::heartbeat::ProjectorRole;
use chat_projector::status::PERMISSION_DENIED;
use tokio::time::{Instant, sleep};

use super::context::Projections;
use super::local_projectors::{LocalProjectors, POLL_INTERVAL, Phase};

/// The time within which the running system must start standby projectors for all generations of a handover.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns whether a projector of the running system works on a generation, by its heartbeat.
pub(super) async fn has_active_projector(
    projections: &Projections,
    generation_id: ProjectionGeneration,
) -> bool {
    has_heartbeat(projections, generation_id, ProjectorRole::Active).await
}

async fn has_heartbeat(
    projections: &Projections,
    generation_id: ProjectionGeneration,
    role: ProjectorRole,
) -> bool {
    let heartbeat = projections.store(generation_id).heartbeat(role).await;
    heartbeat.is_some_and(|heartbeat| heartbeat.is_recent(clock::now()))
}

/// Stops the local projectors after the running system has taken over their generations.
///
/// `had_active_projector` states for each generation whether the running system worked on its predecessor. Waits until
/// a projector of the running system stands by for each such generation, or reports that it has no permission to open
/// the generation. All these waits together take at most [`HANDOVER_TIMEOUT`].
pub(super) async fn hand_over(
    projections: &Projections,
    projectors: LocalProjectors<'_>,
    had_active_projector: &[(ProjectionGeneration, bool)],
) -> Handover {
    let deadline = Instant::now() + HANDOVER_TIMEOUT;
    let mut is_complete = true;
    let mut obstacles: Vec<String> = Vec::new();
    for (generation_id, had_projector) in had_active_projector {
        if !had_projector
            || projectors
                .projectors
                .iter()
                .any(|projector| projector.generation_id == *generation_id && projector.is_standing_by())
        {
            continue;
        }
        while !has_heartbeat(projections, *generation_id, ProjectorRole::Standby).await {
            if let Some(obstacle) = find_obstacle(projections, *generation_id).await {
                is_complete = false;
                // Both projections may report the same.
                if !obstacles.contains(&obstacle) {
                    obstacles.push(obstacle);
                }
                break;
            }
            if Instant::now() > deadline {
                is_complete = false;
                break;
            }
            projectors.report_progress(Phase::HandingOver);
            sleep(POLL_INTERVAL).await;
        }
    }
    projectors.stop().await;
    if is_complete {
        Handover::Complete
    } else {
        Handover::Failed { obstacle: (!obstacles.is_empty()).then(|| obstacles.join("; ")) }
    }
}

/// The outcome of a handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    /// The running system has taken over all generations, or no system is running.
    Complete,
    /// The running system has not taken over all generations.
    Failed {
        /// The errors of the running system's projectors that lack a permission; `None` if there are none.
        obstacle: Option<String>,
    },
}

/// Returns the error of a projector of the running system that has no permission to open a generation. Such a projector
/// publishes its heartbeats as [`ProjectorRole::Active`], as the local projector does.
async fn find_obstacle(projections: &Projections, generation_id: ProjectionGeneration) -> Option<String> {
    let heartbeat = projections.store(generation_id).heartbeat(ProjectorRole::Active).await?;
    heartbeat.last_error.filter(|error| error.contains(PERMISSION_DENIED))
}
