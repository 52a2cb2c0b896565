//! Going on with a generation until the running system does.

use std::time::Duration;

use chat_domain::operator_action::ProjectionGeneration;
use chat_ports::clock;
use chat_ports::heartbeat::ProjectorRole;
use tokio::time::{Instant, sleep};

use super::Projections;
use super::local_projectors::{LocalProjectors, POLL_INTERVAL, Phase};

/// How long a running system may take to stand by for a generation that it was told to keep.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a projector of the running system keeps a generation here.
pub(super) async fn has_active_projector(projections: &Projections, copy: ProjectionGeneration) -> bool {
    has_heartbeat(projections, copy, ProjectorRole::Active).await
}

async fn has_heartbeat(
    projections: &Projections,
    copy: ProjectionGeneration,
    capacity: ProjectorRole,
) -> bool {
    let notice = projections.location(copy).heartbeat(capacity).await;
    notice.is_some_and(|notice| notice.is_fresh(clock::now()))
}

/// Goes on folding until a projector of the running system stands by for each generation of which one `was_kept`
/// before, and then lets go. Answers whether all were taken over, or nobody was there to do it.
pub(super) async fn hand_over(
    projections: &Projections,
    projectors: LocalProjectors<'_>,
    had_active_projector: &[(ProjectionGeneration, bool)],
) -> bool {
    let deadline = Instant::now() + HANDOVER_TIMEOUT;
    let mut all = true;
    for (copy, kept) in had_active_projector {
        if !kept
            || projectors.projectors.iter().any(|fold| fold.generation_id == *copy && fold.is_standing_by())
        {
            continue;
        }
        while !has_heartbeat(projections, *copy, ProjectorRole::Standby).await {
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
