//! Handover: local projectors continue until the running system has taken over their generations.

use std::time::Duration;

use chat_domain::projection::ProjectionGeneration;
use chat_ports::clock;
use chat_ports::heartbeat::ProjectorRole;
use tokio::time::{Instant, sleep};

use super::context::Projections;
use super::local_projectors::{LocalProjectors, POLL_INTERVAL, Phase};

/// The time within which the running system must start a standby projector for a generation.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns whether a projector of the running system works on a generation on this machine.
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
    let heartbeat = projections.location(generation_id).heartbeat(role).await;
    heartbeat.is_some_and(|heartbeat| heartbeat.is_recent(clock::now()))
}

/// Stops the local projectors after the running system has taken over their generations.
///
/// `had_active_projector` states for each generation whether the running system worked on its predecessor. For each
/// such generation, waits up to [`HANDOVER_TIMEOUT`] until a projector of the running system stands by. Returns whether
/// all of these generations were taken over in time.
pub(super) async fn hand_over(
    projections: &Projections,
    projectors: LocalProjectors<'_>,
    had_active_projector: &[(ProjectionGeneration, bool)],
) -> bool {
    let deadline = Instant::now() + HANDOVER_TIMEOUT;
    let mut are_all_taken_over = true;
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
            if Instant::now() > deadline {
                are_all_taken_over = false;
                break;
            }
            projectors.report_progress(Phase::HandingOver);
            sleep(POLL_INTERVAL).await;
        }
    }
    projectors.stop().await;
    are_all_taken_over
}
