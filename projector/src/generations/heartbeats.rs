//! Heartbeats: the state that a projector publishes for other processes, about once a second.

use std::time::Duration;

use chat_ports::clock;
use chat_ports::heartbeat::{Heartbeat, HeartbeatStore, ProjectorRole};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::status::{ProjectorState, ProjectorStatus};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time that publishing or removing a heartbeat may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes the heartbeats of a projector until the projector ends: at once when its state changes, otherwise every
/// second.
pub(crate) async fn publish_heartbeats(
    mut store: Box<dyn HeartbeatStore>,
    mut status: watch::Receiver<ProjectorStatus>,
) {
    let mut published: Option<(ProjectorRole, ProjectorState)> = None;
    let mut due = Instant::now();
    let (mut rate_window_start, mut rate_window_events) = (Instant::now(), 0);
    loop {
        tokio::select! {
            changed = status.changed() => if changed.is_err() { break },
            () = sleep_until(due) => {}
        }
        let current = status.borrow_and_update().clone();
        let Some(role) = role_in_state(current.state) else {
            // A projector without a role has no heartbeat. `status.changed()` ends the wait as soon as it gets a role.
            due = Instant::now() + HEARTBEAT_INTERVAL;
            continue;
        };
        let is_unchanged = published == Some((role, current.state));
        if is_unchanged && Instant::now() < due {
            continue;
        }
        let millis = rate_window_start.elapsed().as_millis().max(1);
        let rate = u128::from(current.events_processed - rate_window_events) * 1_000 / millis;
        // A change of state does not end the window, because a rate over a much shorter time would be of little use.
        if is_unchanged || published.is_none() {
            (rate_window_start, rate_window_events) = (Instant::now(), current.events_processed);
        }
        let heartbeat = Heartbeat {
            at: clock::now(),
            state: current.state.as_str().to_owned(),
            position: current.position,
            events_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            last_error: current.last_error,
        };
        let _ = timeout(PUBLISH_TIMEOUT, store.publish(role, heartbeat)).await;
        // The heartbeat of the previous role is removed last, so that a projector that changes its role always has one.
        if let Some((previous_role, _)) = published
            && previous_role != role
        {
            let _ = timeout(PUBLISH_TIMEOUT, store.remove(previous_role)).await;
        }
        published = Some((role, current.state));
        due = Instant::now() + HEARTBEAT_INTERVAL;
    }
    if let Some((role, _)) = published {
        let _ = timeout(PUBLISH_TIMEOUT, store.remove(role)).await;
    }
}

/// Returns the role of a projector in this state; `None` before the projector has a role, and after it has stopped.
fn role_in_state(state: ProjectorState) -> Option<ProjectorRole> {
    match state {
        ProjectorState::Starting | ProjectorState::Stopped => None,
        ProjectorState::StandingBy => Some(ProjectorRole::Standby),
        ProjectorState::Waiting
        | ProjectorState::Rebuilding
        | ProjectorState::CatchingUp
        | ProjectorState::Live => Some(ProjectorRole::Active),
    }
}
