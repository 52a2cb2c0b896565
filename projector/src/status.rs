//! The status of a projector, which other tasks watch, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chat_domain::projection::ProjectionName;
use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use tokio::sync::watch;

/// The text that [`ProjectorStatus::last_error`] contains if a permission is missing, for example to open the
/// projection's files.
pub const PERMISSION_DENIED: &str = "permission denied";

/// The state and progress of a projector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectorStatus {
    /// The projection's name.
    pub name: &'static str,
    /// The current state.
    pub state: ProjectorState,
    /// The position up to which all events are folded and visible to queries; at first the start of the log. While
    /// another process holds the projection, this process reads the position about once a second.
    pub position: Position,
    /// The last known head of the log.
    pub head: Position,
    /// The time at which the oldest event that is not folded yet was written; `None` if no such event is known. Between
    /// two batches of a backlog, this time is too early: it is still that of the first event of the last batch.
    pub behind_since: Option<Timestamp>,
    /// The number of dead letters that wait for a retry.
    pub dead_letters: u64,
    /// The number of events of the log that this projector has processed since it started, including dead letters and
    /// events that the projection ignores.
    pub events_processed: u64,
    /// The number of discarded events whose discard was not acknowledged.
    pub discarded: u64,
    /// The failure from which the projector recovers or after which it has stopped, as a sentence without confidential
    /// data; `None` without a failure. The causes of the failure are logged.
    pub last_error: Option<String>,
}

/// The states of a projector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProjectorState {
    /// It opens its storage and the log.
    Starting,
    /// It waits to retry after the failure in [`ProjectorStatus::last_error`].
    Waiting,
    /// Another process holds the projection; this projector takes over when the other process ends.
    StandingBy,
    /// It folds the log from the start, because it has no usable stored content.
    Rebuilding,
    /// It folds a backlog.
    CatchingUp,
    /// It folds events as they arrive.
    Live,
    /// It has stopped.
    Stopped,
}

impl ProjectorState {
    /// Returns the state's name in snake case.
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
    /// Creates the status of a projector that is about to start.
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

    /// Returns the number of log positions between the projection and the head of the log. It is the number of events
    /// only in event stores with contiguous positions; in other event stores it is larger.
    pub fn lag_events(&self) -> u64 {
        self.head.get().saturating_sub(self.position.get())
    }

    /// Returns the age of the oldest event that is not folded; zero if all events are folded.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let age = self.behind_since.map_or(0, |since| now.millis().saturating_sub(since.millis()));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

/// Publishes a projector's status and its metrics.
pub(crate) struct StatusReporter {
    status: watch::Sender<ProjectorStatus>,
    metrics: Metrics,
    is_in_use: Arc<AtomicBool>,
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

impl Metrics {
    fn register(projection: ProjectionName) -> Self {
        let name = projection.as_str();
        Self {
            position: gauge!("chat_projection_position", "projection" => name),
            lag_events: gauge!("chat_projection_lag_events", "projection" => name),
            lag_seconds: gauge!("chat_projection_lag_seconds", "projection" => name),
            dead_letters: gauge!("chat_projection_parked_events", "projection" => name),
            discarded: gauge!("chat_projection_discarded_events", "projection" => name),
            events: counter!("chat_projection_events_total", "projection" => name),
            batch_seconds: histogram!("chat_projection_batch_seconds", "projection" => name),
        }
    }
}

impl StatusReporter {
    pub(crate) fn new(projection: ProjectionName) -> Self {
        Self {
            status: watch::Sender::new(ProjectorStatus::new(projection.as_str())),
            metrics: Metrics::register(projection),
            is_in_use: Arc::new(true.into()),
        }
    }

    /// Returns the switch behind [`Self::is_in_use`].
    pub(crate) fn in_use_switch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_in_use)
    }

    /// Whether queries are answered from what the projector writes. Only one of several generations of a projection may
    /// set the gauges.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Relaxed)
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

    /// Changes the status. Watchers are notified only if the new status differs from the old one.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProjectorStatus)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            status.head = status.head.max(status.position);
            *status != before
        });
        if !self.is_in_use() {
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

    /// Counts an applied batch.
    pub(crate) fn record_batch(&self, events: usize, duration: Duration) {
        self.status.send_modify(|status| status.events_processed += events as u64);
        self.metrics.events.increment(events as u64);
        self.metrics.batch_seconds.record(duration.as_secs_f64());
    }
}

/// Registers the metrics of a process that runs a projector of this projection.
pub fn register_metrics(projection: ProjectionName) {
    describe_gauge!("chat_projection_position", "The log position up to which the projection has folded.");
    describe_gauge!(
        "chat_projection_lag_events",
        "Log positions between the projection and the head of the log: events, or bytes with KurrentDB."
    );
    describe_gauge!(
        "chat_projection_lag_seconds",
        Unit::Seconds,
        "The age of the oldest event that is not folded; 0 if all are folded."
    );
    describe_gauge!(
        "chat_projection_parked_events",
        "Dead letters: events that could not be applied and wait for a retry."
    );
    describe_gauge!(
        "chat_projection_discarded_events",
        "Discarded events whose discard was not acknowledged."
    );
    describe_counter!(
        "chat_projection_events_total",
        "Events processed since the process started, including dead letters and ignored events."
    );
    describe_histogram!(
        "chat_projection_batch_seconds",
        Unit::Seconds,
        "The time to fold and commit a batch."
    );
    Metrics::register(projection);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_the_oldest_event_that_is_not_folded() {
        let now = Timestamp::from_millis(10_000);
        let mut status = ProjectorStatus::new("test");
        assert_eq!(status.lag(now), Duration::ZERO);
        status.behind_since = Some(Timestamp::from_millis(9_250));
        assert_eq!(status.lag(now), Duration::from_millis(750));
        status.behind_since = Some(Timestamp::from_millis(10_001));
        assert_eq!(status.lag(now), Duration::ZERO, "clocks of two machines may differ");
    }
}
