//! Telling other processes what a projector does, about once a second.

use std::time::Duration;

use async_trait::async_trait;
use chat_files::notice::FileNotices;
use chat_ports::clock;
use chat_ports::notice::{Capacity, Notice};
use chat_postgres::{PostgresNotices, PostgresUrl};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::status::{State, Status};

/// How often a notice is renewed.
const EVERY: Duration = Duration::from_secs(1);
/// How long putting one up may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where notices are put up. Failing to is no failure of the projector: it is tried again.
#[async_trait]
pub trait Board: Send + 'static {
    /// Puts a notice up in place of the one before.
    async fn post(&mut self, capacity: Capacity, notice: Notice);

    /// Takes a notice down.
    async fn take_down(&mut self, capacity: Capacity);
}

#[async_trait]
impl Board for FileNotices {
    async fn post(&mut self, capacity: Capacity, notice: Notice) {
        let notices = self.clone();
        let _ = tokio::task::spawn_blocking(move || notices.post(capacity, &notice)).await;
    }

    async fn take_down(&mut self, capacity: Capacity) {
        let notices = self.clone();
        let _ = tokio::task::spawn_blocking(move || FileNotices::take_down(&notices, capacity)).await;
    }
}

/// A board in a namespace of Postgres.
pub(crate) fn in_postgres(url: &PostgresUrl) -> Box<dyn Board> {
    Box::new(PostgresNotices::new(url.clone()))
}

#[async_trait]
impl Board for PostgresNotices {
    async fn post(&mut self, capacity: Capacity, notice: Notice) {
        let _ = Self::post(self, capacity, &notice).await;
    }

    async fn take_down(&mut self, capacity: Capacity) {
        let _ = Self::take_down(self, capacity).await;
    }
}

/// Keeps the notice of a projector up until it ends: at once when its state changes, and else every second.
pub(crate) async fn keep_up(mut board: Box<dyn Board>, mut status: watch::Receiver<Status>) {
    let mut posted: Option<(Capacity, State)> = None;
    let mut due = Instant::now();
    let (mut since, mut folded) = (Instant::now(), 0);
    loop {
        tokio::select! {
            changed = status.changed() => if changed.is_err() { break },
            () = sleep_until(due) => {}
        }
        let now = status.borrow_and_update().clone();
        let Some(capacity) = capacity(now.state) else { continue };
        let unchanged = posted == Some((capacity, now.state));
        if unchanged && Instant::now() < due {
            continue;
        }
        if let Some((before, _)) = posted
            && before != capacity
        {
            let _ = timeout(PATIENCE, board.take_down(before)).await;
        }
        let millis = since.elapsed().as_millis().max(1);
        let rate = u128::from(now.folded - folded) * 1_000 / millis;
        if unchanged || posted.is_none() {
            (since, folded) = (Instant::now(), now.folded);
        }
        let notice = Notice {
            at: clock::now(),
            state: now.state.as_str().to_owned(),
            position: now.position,
            events_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            last_error: now.last_error,
        };
        let _ = timeout(PATIENCE, board.post(capacity, notice)).await;
        posted = Some((capacity, now.state));
        due = Instant::now() + EVERY;
    }
    if let Some((capacity, _)) = posted {
        let _ = timeout(PATIENCE, board.take_down(capacity)).await;
    }
}

/// In which capacity a projector is at work; `None` while that is not known.
fn capacity(state: State) -> Option<Capacity> {
    match state {
        State::Starting | State::Stopped => None,
        State::StandingBy => Some(Capacity::StandBy),
        State::Waiting | State::Rebuilding | State::CatchingUp | State::Live => Some(Capacity::Keeper),
    }
}
