//! Handover: local projectors continue until the running system has taken over their generations.

use std::time::Duration;

use chat_domain::projection::ProjectionGeneration;
use chat_ports::clock;
use chat_ports::heartbeat::ProjectorRole;
use tokio::time::{Instant, sleep};

use super::context::Projections;
use super::local_projectors::{LocalProjectors, POLL_INTERVAL, Phase};

/// How long the running system may take to start a standby projector for a generation.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a projector of the running system works on a generation on this machine.
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

/// Continues until a projector of the running system stands by for each generation whose predecessor it worked on, and then
/// stops the local projectors. Returns whether all generations that had a projector were taken over in time.
pub(super) async fn hand_over(
    projections: &Projections,
    projectors: LocalProjectors<'_>,
    had_active_projector: &[(ProjectionGeneration, bool)],
) -> bool {
    let deadline = Instant::now() + HANDOVER_TIMEOUT;
    let mut all = true;
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
                all = false;
                break;
            }
            projectors.report_progress(Phase::HandingOver);
            sleep(POLL_INTERVAL).await;
        }
    }
    projectors.stop().await;
    all
}
