//! By how much a snapshot trails the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use chat_ports::event_store::{EventStore, EventStoreError};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

/// For how long the log's end is taken to be where it was seen.
const HEAD_CACHE_TTL: Duration = Duration::from_millis(20);

/// How long an answer is held up for its lag. A log that is away must not slow down those who do not read it.
const LAG_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a log that did not answer is left alone.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The log, as far as lags are concerned: looked at a few times a second, however many queries there are.
pub(crate) struct LagMeter {
    event_store: Arc<dyn EventStore>,
    cache: Mutex<CachedHead>,
    /// Held by the query that looks for the log's end: the others wait for what it sees.
    refresh_lock: AsyncMutex<()>,
}

#[derive(Clone, Copy)]
struct CachedHead {
    /// The end of the log, and until when that is good; `None` where the log did not answer.
    head: Option<Position>,
    valid_until: Instant,
    /// The time of the first event after a position: that never changes.
    first_after: Option<(Position, Timestamp)>,
}

impl LagMeter {
    pub(crate) fn new(event_store: Arc<dyn EventStore>) -> Self {
        let seen = CachedHead { head: None, valid_until: Instant::now(), first_after: None };
        Self { event_store, cache: Mutex::new(seen), refresh_lock: AsyncMutex::new(()) }
    }

    /// Milliseconds since the first event after `position` was recorded, 0 where there is none; `None` where the log
    /// does not answer.
    pub(crate) async fn lag_millis(&self, position: Position) -> Option<u64> {
        if let Ok(Ok(lag)) = timeout(LAG_TIMEOUT, self.read_lag(position)).await {
            return lag;
        }
        // Whoever reads the log for its own sake says what is wrong with it.
        let mut seen = self.lock_cache();
        (seen.head, seen.valid_until) = (None, Instant::now() + RETRY_DELAY);
        None
    }

    async fn read_lag(&self, position: Position) -> Result<Option<u64>, EventStoreError> {
        let Some(head) = self.head().await? else { return Ok(None) };
        if head <= position {
            return Ok(Some(0));
        }
        let known = self.lock_cache().first_after.filter(|(after, _)| *after == position);
        let recorded_at = if let Some((_, recorded_at)) = known {
            recorded_at
        } else {
            let events = self.event_store.read_all(position, 1).await?;
            // What is between may not be of this system.
            let Some(first) = events.first() else { return Ok(Some(0)) };
            self.lock_cache().first_after = Some((position, first.recorded_at));
            first.recorded_at
        };
        Ok(Some(u64::try_from(clock::now().millis() - recorded_at.millis()).unwrap_or(0)))
    }

    /// The end of the log as it was seen a moment ago; `None` while the log is left alone.
    async fn head(&self) -> Result<Option<Position>, EventStoreError> {
        if let Some(seen) = self.valid_cache() {
            return Ok(seen.head);
        }
        let _refreshing = self.refresh_lock.lock().await;
        if let Some(seen) = self.valid_cache() {
            return Ok(seen.head);
        }
        let head = self.event_store.head().await?;
        let mut seen = self.lock_cache();
        (seen.head, seen.valid_until) = (Some(head), Instant::now() + HEAD_CACHE_TTL);
        Ok(Some(head))
    }

    /// What was seen, while it is good.
    fn valid_cache(&self) -> Option<CachedHead> {
        Some(*self.lock_cache()).filter(|seen| Instant::now() < seen.valid_until)
    }

    fn lock_cache(&self) -> MutexGuard<'_, CachedHead> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
