//! What a projector says of itself: a [`Status`] that others watch, and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use tokio::sync::watch;

/// What a projector is about, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectorStatus {
    /// The projection's name.
    pub name: &'static str,
    /// What it is doing.
    pub state: ProjectorState,
    /// Everything up to here is folded in and visible to queries. Known from when the projection is open; while
    /// standing by it does not move here, as another process moves it.
    pub position: Position,
    /// The end of the log, as far as it is known.
    pub head: Position,
    /// When the oldest event that is known not to be folded in yet was recorded; `None` where there is none.
    pub behind_since: Option<Timestamp>,
    /// How many events are parked.
    pub dead_letters: u64,
    /// Events that this projector has folded or parked since it started.
    pub events_processed: u64,
    /// How many events were discarded, and nobody has acknowledged it.
    pub discarded: u64,
    /// What keeps it from going on, in one sentence that may be shown to anyone; `None` while nothing does. What
    /// caused it is in the log.
    pub last_error: Option<String>,
}

/// What a projector is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProjectorState {
    /// It opens its storage and the log.
    Starting,
    /// Something that it needs is out of reach; [`Status::last_error`] says what. It tries again.
    Waiting,
    /// Another process projects into the same place; it takes over when that one ends.
    StandingBy,
    /// It folds the log from its start, because there was nothing, or nothing of use.
    Rebuilding,
    /// It folds a backlog.
    CatchingUp,
    /// It folds events as they come.
    Live,
    /// It ended, as asked.
    Stopped,
}

impl ProjectorState {
    /// The state's name, in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::StandingBy => "standing_by",
            Self::Rebuilding => "rebuilding",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Stopped => "stopped",
        }
    }
}

impl ProjectorStatus {
    /// Of a projector that is about to start.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            state: ProjectorState::Starting,
            position: Position::START,
            head: Position::START,
            behind_since: None,
            dead_letters: 0,
            events_processed: 0,
            discarded: 0,
            last_error: None,
        }
    }

    /// Log positions between the projection and the end of the log: events, where the store numbers them one by one;
    /// more than there are events, where positions are offsets.
    pub fn lag_events(&self) -> u64 {
        self.head.get().saturating_sub(self.position.get())
    }

    /// By how much the projection trails the log: the age of the oldest event not folded in, zero where there is
    /// none.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let age = self.behind_since.map_or(0, |since| now.millis().saturating_sub(since.millis()));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

/// Publishes a status, and keeps the metrics in step with it.
pub(crate) struct StatusReporter {
    status: watch::Sender<ProjectorStatus>,
    metrics: Metrics,
    /// Whether the gauges are this projector's: of several generations of a projection, one sets them.
    publishes_gauges: Arc<AtomicBool>,
}

struct Metrics {
    position: Gauge,
    lag_events: Gauge,
    lag_seconds: Gauge,
    dead_letters: Gauge,
    discarded: Gauge,
    events: Counter,
    batch_seconds: Histogram,
}

impl StatusReporter {
    pub(crate) fn new(name: &'static str) -> Self {
        describe_metrics();
        let metrics = Metrics {
            position: gauge!("projection_position", "projection" => name),
            lag_events: gauge!("projection_lag_events", "projection" => name),
            lag_seconds: gauge!("projection_lag_seconds", "projection" => name),
            dead_letters: gauge!("projection_parked_events", "projection" => name),
            discarded: gauge!("projection_discarded_events", "projection" => name),
            events: counter!("projection_events_total", "projection" => name),
            batch_seconds: histogram!("projection_batch_seconds", "projection" => name),
        };
        Self {
            status: watch::Sender::new(ProjectorStatus::new(name)),
            metrics,
            publishes_gauges: Arc::new(true.into()),
        }
    }

    /// Says whether the gauges are this projector's.
    pub(crate) fn publishes_gauges(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.publishes_gauges)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ProjectorStatus> {
        self.status.subscribe()
    }

    pub(crate) fn status(&self) -> ProjectorStatus {
        self.status.borrow().clone()
    }

    pub(crate) fn state(&self) -> ProjectorState {
        self.status.borrow().state
    }

    /// Changes the status; watchers wake where that made a difference.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProjectorStatus)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            status.head = status.head.max(status.position);
            *status != before
        });
        if !self.publishes_gauges.load(Ordering::Relaxed) {
            return;
        }
        let status = self.status.borrow();
        #[expect(
            clippy::cast_precision_loss,
            reason = "gauges are floating-point; 2^53 positions are enough"
        )]
        {
            self.metrics.position.set(status.position.get() as f64);
            self.metrics.lag_events.set(status.lag_events() as f64);
            self.metrics.dead_letters.set(status.dead_letters as f64);
            self.metrics.discarded.set(status.discarded as f64);
        }
        self.metrics.lag_seconds.set(status.lag(clock::now()).as_secs_f64());
    }

    /// Counts a stretch that was applied.
    pub(crate) fn record_batch(&self, events: usize, took: Duration) {
        self.status.send_modify(|status| status.events_processed += events as u64);
        self.metrics.events.increment(events as u64);
        self.metrics.batch_seconds.record(took.as_secs_f64());
    }
}

/// The texts that go with the metrics; the table in the crate's documentation says the same.
fn describe_metrics() {
    describe_gauge!("projection_position", "The log position up to which the projection has folded");
    describe_gauge!("projection_lag_events", "Log positions between the projection and the end of the log");
    describe_gauge!("projection_lag_seconds", Unit::Seconds, "The age of the oldest event not folded in");
    describe_gauge!("projection_parked_events", "Events that could not be applied and wait for a retry");
    describe_gauge!(
        "projection_discarded_events",
        "Events that were given up, and nobody has acknowledged it"
    );
    describe_counter!("projection_events_total", "Events folded or parked since the process started");
    describe_histogram!(
        "projection_batch_seconds",
        Unit::Seconds,
        "How long a batch took to fold and commit"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_trails_by_the_age_of_the_oldest_event_it_lacks() {
        let now = Timestamp::from_millis(10_000);
        let mut status = ProjectorStatus::new("test");
        assert_eq!(status.lag(now), Duration::ZERO);
        status.behind_since = Some(Timestamp::from_millis(9_250));
        assert_eq!(status.lag(now), Duration::from_millis(750));
        status.behind_since = Some(Timestamp::from_millis(10_001));
        assert_eq!(status.lag(now), Duration::ZERO, "clocks of two machines differ");
    }
}
