//! By how much a snapshot trails the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use chat_ports::event_store::{EventStore, EventStoreError};
use tokio::sync::Mutex as Look;
use tokio::time::{Instant, timeout};

/// For how long the log's end is taken to be where it was seen.
const HEAD_IS_GOOD_FOR: Duration = Duration::from_millis(20);

/// How long an answer is held up for its lag. A log that is away must not slow down those who do not read it.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a log that did not answer is left alone.
const HOLD_OFF: Duration = Duration::from_secs(1);

/// The log, as far as lags are concerned: looked at a few times a second, however many queries there are.
pub(crate) struct Log {
    event_store: Arc<dyn EventStore>,
    seen: Mutex<Seen>,
    /// Held by the query that looks for the log's end: the others wait for what it sees.
    look: Look<()>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// The end of the log, and until when that is good; `None` where the log did not answer.
    head: Option<Position>,
    good_until: Instant,
    /// The time of the first event after a position: that never changes.
    first_after: Option<(Position, Timestamp)>,
}

impl Log {
    pub(crate) fn new(event_store: Arc<dyn EventStore>) -> Self {
        let seen = Seen { head: None, good_until: Instant::now(), first_after: None };
        Self { event_store, seen: Mutex::new(seen), look: Look::new(()) }
    }

    /// Milliseconds since the first event after `position` was recorded, 0 where there is none; `None` where the log
    /// does not answer.
    pub(crate) async fn lag_of(&self, position: Position) -> Option<u64> {
        if let Ok(Ok(lag)) = timeout(PATIENCE, self.read_lag(position)).await {
            return lag;
        }
        // Whoever reads the log for its own sake says what is wrong with it.
        let mut seen = self.seen();
        (seen.head, seen.good_until) = (None, Instant::now() + HOLD_OFF);
        None
    }

    async fn read_lag(&self, position: Position) -> Result<Option<u64>, EventStoreError> {
        let Some(head) = self.head().await? else { return Ok(None) };
        if head <= position {
            return Ok(Some(0));
        }
        let known = self.seen().first_after.filter(|(after, _)| *after == position);
        let recorded_at = if let Some((_, recorded_at)) = known {
            recorded_at
        } else {
            let events = self.event_store.read_all(position, 1).await?;
            // What is between may not be of this system.
            let Some(first) = events.first() else { return Ok(Some(0)) };
            self.seen().first_after = Some((position, first.recorded_at));
            first.recorded_at
        };
        Ok(Some(u64::try_from(clock::now().millis() - recorded_at.millis()).unwrap_or(0)))
    }

    /// The end of the log as it was seen a moment ago; `None` while the log is left alone.
    async fn head(&self) -> Result<Option<Position>, EventStoreError> {
        if let Some(seen) = self.seen_lately() {
            return Ok(seen.head);
        }
        let _look = self.look.lock().await;
        if let Some(seen) = self.seen_lately() {
            return Ok(seen.head);
        }
        let head = self.event_store.head().await?;
        let mut seen = self.seen();
        (seen.head, seen.good_until) = (Some(head), Instant::now() + HEAD_IS_GOOD_FOR);
        Ok(Some(head))
    }

    /// What was seen, while it is good.
    fn seen_lately(&self) -> Option<Seen> {
        Some(*self.seen()).filter(|seen| Instant::now() < seen.good_until)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
