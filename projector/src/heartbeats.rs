//! Telling other processes what a projector does, about once a second.

use std::time::Duration;

use async_trait::async_trait;
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::clock;
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use chat_postgres::{PostgresHeartbeats, PostgresUrl};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::status::{ProjectorState, ProjectorStatus};

/// How often a notice is renewed.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long putting one up may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where notices are put up. Failing to is no failure of the projector: it is tried again.
#[async_trait]
pub trait HeartbeatPublisher: Send + 'static {
    /// Puts a notice up in place of the one before.
    async fn post(&mut self, capacity: ProjectorRole, notice: Heartbeat);

    /// Takes a notice down.
    async fn remove(&mut self, capacity: ProjectorRole);
}

#[async_trait]
impl HeartbeatPublisher for FileHeartbeats {
    async fn post(&mut self, capacity: ProjectorRole, notice: Heartbeat) {
        let notices = self.clone();
        let _ = tokio::task::spawn_blocking(move || notices.post(capacity, &notice)).await;
    }

    async fn remove(&mut self, capacity: ProjectorRole) {
        let notices = self.clone();
        let _ = tokio::task::spawn_blocking(move || FileHeartbeats::remove(&notices, capacity)).await;
    }
}

/// A board in a namespace of Postgres.
pub(crate) fn in_postgres(url: &PostgresUrl) -> Box<dyn HeartbeatPublisher> {
    Box::new(PostgresHeartbeats::new(url.clone()))
}

#[async_trait]
impl HeartbeatPublisher for PostgresHeartbeats {
    async fn post(&mut self, capacity: ProjectorRole, notice: Heartbeat) {
        let _ = Self::post(self, capacity, &notice).await;
    }

    async fn remove(&mut self, capacity: ProjectorRole) {
        let _ = Self::remove(self, capacity).await;
    }
}

/// Keeps the notice of a projector up until it ends: at once when its state changes, and else every second.
pub(crate) async fn publish_heartbeats(
    mut board: Box<dyn HeartbeatPublisher>,
    mut status: watch::Receiver<ProjectorStatus>,
) {
    let mut posted: Option<(ProjectorRole, ProjectorState)> = None;
    let mut due = Instant::now();
    let (mut since, mut folded) = (Instant::now(), 0);
    loop {
        tokio::select! {
            changed = status.changed() => if changed.is_err() { break },
            () = sleep_until(due) => {}
        }
        let now = status.borrow_and_update().clone();
        let Some(capacity) = role(now.state) else { continue };
        let unchanged = posted == Some((capacity, now.state));
        if unchanged && Instant::now() < due {
            continue;
        }
        if let Some((before, _)) = posted
            && before != capacity
        {
            let _ = timeout(PUBLISH_TIMEOUT, board.remove(before)).await;
        }
        let millis = since.elapsed().as_millis().max(1);
        let rate = u128::from(now.events_processed - folded) * 1_000 / millis;
        if unchanged || posted.is_none() {
            (since, folded) = (Instant::now(), now.events_processed);
        }
        let notice = Heartbeat {
            at: clock::now(),
            state: now.state.as_str().to_owned(),
            position: now.position,
            events_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            last_error: now.last_error,
        };
        let _ = timeout(PUBLISH_TIMEOUT, board.post(capacity, notice)).await;
        posted = Some((capacity, now.state));
        due = Instant::now() + HEARTBEAT_INTERVAL;
    }
    if let Some((capacity, _)) = posted {
        let _ = timeout(PUBLISH_TIMEOUT, board.remove(capacity)).await;
    }
}

/// In which capacity a projector is at work; `None` while that is not known.
fn role(state: ProjectorState) -> Option<ProjectorRole> {
    match state {
        ProjectorState::Starting | ProjectorState::Stopped => None,
        ProjectorState::StandingBy => Some(ProjectorRole::Standby),
        ProjectorState::Waiting
        | ProjectorState::Rebuilding
        | ProjectorState::CatchingUp
        | ProjectorState::Live => Some(ProjectorRole::Active),
    }
}
