//! The lag of a snapshot behind the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use chat_ports::event_store::{EventStore, EventStoreError};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

use crate::log_head::LogHead;

/// How long a head that was read is cached.
const HEAD_CACHE_TTL: Duration = Duration::from_millis(20);

/// How long a response may wait for its lag. Short, so that an event store that does not respond delays queries of
/// projections little.
const LAG_TIMEOUT: Duration = Duration::from_millis(200);

/// The time before the next read from an event store that did not respond.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Measures lags. Reads the head of the log at most once in [`HEAD_CACHE_TTL`], however many queries there are.
pub(crate) struct LagMeter {
    event_store: Arc<dyn EventStore>,
    log_head: Arc<LogHead>,
    cache: Mutex<CachedHead>,
    /// Held by the query that reads the head. Other queries wait for the result.
    refresh_lock: AsyncMutex<()>,
}

#[derive(Clone, Copy)]
struct CachedHead {
    /// The head of the log. `None` if the event store did not respond.
    head: Option<Position>,
    valid_until: Instant,
    /// A position, and the time of the first event after it. Does not expire: later events do not change this time.
    first_after: Option<(Position, Timestamp)>,
}

impl LagMeter {
    pub(crate) fn new(event_store: Arc<dyn EventStore>, log_head: Arc<LogHead>) -> Self {
        let cache = CachedHead { head: None, valid_until: Instant::now(), first_after: None };
        Self { event_store, log_head, cache: Mutex::new(cache), refresh_lock: AsyncMutex::new(()) }
    }

    /// Returns the age of the first event after `position`, in milliseconds: 0 if there is no such event, `None` if the
    /// event store does not respond.
    pub(crate) async fn lag_millis(&self, position: Position) -> Option<u64> {
        if let Ok(Ok(lag)) = timeout(LAG_TIMEOUT, self.read_lag(position)).await {
            return lag;
        }
        // The error is not logged: requests that need the event store report it.
        let mut cache = self.lock_cache();
        (cache.head, cache.valid_until) = (None, Instant::now() + RETRY_DELAY);
        None
    }

    async fn read_lag(&self, position: Position) -> Result<Option<u64>, EventStoreError> {
        let Some(head) = self.head().await? else { return Ok(None) };
        if head <= position {
            return Ok(Some(0));
        }
        let cached = self.lock_cache().first_after.filter(|(after, _)| *after == position);
        let recorded_at = if let Some((_, recorded_at)) = cached {
            recorded_at
        } else {
            let events = self.event_store.read_all(position, 1).await?;
            // All positions after `position` may belong to other systems that share the event store.
            let Some(first) = events.first() else { return Ok(Some(0)) };
            self.lock_cache().first_after = Some((position, first.recorded_at));
            first.recorded_at
        };
        Ok(Some(u64::try_from(clock::now().millis() - recorded_at.millis()).unwrap_or(0)))
    }

    /// Returns the head of the log from the cache or the event store, or `None` if the event store failed to respond
    /// less than [`RETRY_DELAY`] ago.
    async fn head(&self) -> Result<Option<Position>, EventStoreError> {
        if let Some(cache) = self.valid_cache() {
            return Ok(cache.head);
        }
        let _refreshing = self.refresh_lock.lock().await;
        if let Some(cache) = self.valid_cache() {
            return Ok(cache.head);
        }
        let head = self.log_head.read().await?;
        let mut cache = self.lock_cache();
        (cache.head, cache.valid_until) = (Some(head), Instant::now() + HEAD_CACHE_TTL);
        Ok(Some(head))
    }

    /// Returns the cache while it is valid.
    fn valid_cache(&self) -> Option<CachedHead> {
        Some(*self.lock_cache()).filter(|cache| Instant::now() < cache.valid_until)
    }

    fn lock_cache(&self) -> MutexGuard<'_, CachedHead> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
