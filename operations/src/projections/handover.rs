//! Going on with a generation until the running system does.

use std::time::Duration;

use chat_domain::operation::Copy;
use chat_ports::clock;
use chat_ports::notice::Capacity;
use tokio::time::{Instant, sleep};

use super::Projections;
use super::fold::{Folds, LOOK_EVERY, Phase};

/// How long a running system may take to stand by for a generation that it was told to keep.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a projector of the running system keeps a generation here.
pub(super) async fn is_kept(projections: &Projections, copy: Copy) -> bool {
    has_notice(projections, copy, Capacity::Keeper).await
}

async fn has_notice(projections: &Projections, copy: Copy, capacity: Capacity) -> bool {
    let notice = projections.place(copy).notice(capacity).await;
    notice.is_some_and(|notice| notice.is_good(clock::now()))
}

/// Goes on folding until a projector of the running system stands by for each generation of which one `was_kept`
/// before, and then lets go. Answers whether all were taken over, or nobody was there to do it.
pub(super) async fn hand_over(
    projections: &Projections,
    folds: Folds<'_>,
    was_kept: &[(Copy, bool)],
) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut all = true;
    for (copy, kept) in was_kept {
        if !kept || folds.all.iter().any(|fold| fold.copy == *copy && fold.stands_by()) {
            continue;
        }
        while !has_notice(projections, *copy, Capacity::StandBy).await {
            if Instant::now() > deadline {
                all = false;
                break;
            }
            folds.tell(Phase::HandingOver);
            sleep(LOOK_EVERY).await;
        }
    }
    folds.end().await;
    all
}
