//! The search for the event of a command that may have been executed before.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Timestamp;
use chat_ports::event_store::{EventLookup, EventStore, EventStoreError, RecordedEvent};
use chat_ports::idempotency::IdempotencyKeyId;
use futures::{StreamExt, TryStreamExt, stream};

/// The maximal difference between the clocks of the machines that set the times of events and of reservations.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(5);

/// The number of concurrent searches for the commands of one stream.
const MAX_CONCURRENT_SEARCHES: usize = 16;

/// A query for the event of a repeated command.
pub(crate) struct ExistingEventQuery {
    pub(crate) key: IdempotencyKeyId,
    /// The use of the key with which the search begins, counted from 0. Earlier uses have expired.
    pub(crate) first_key_use: u32,
    pub(crate) stream: Arc<str>,
    /// The earliest time at which the command may have been executed.
    pub(crate) not_before: Timestamp,
    pub(crate) key_retention: Duration,
    /// The current time, by an [`AgeClock`](super::AgeClock).
    pub(crate) now: Timestamp,
}

/// The result of an [`ExistingEventQuery`].
pub(crate) enum ExistingEvent {
    /// The log has no event of an unexpired use of the key. `key_use` is the first use without an event: a new event
    /// gets the id of this use.
    Absent {
        key_use: u32,
    },
    Present(RecordedEvent),
}

impl ExistingEventQuery {
    /// Searches for the event. Skips events of expired uses of the key.
    pub(crate) async fn find_existing_event(
        self,
        event_store: &dyn EventStore,
    ) -> Result<ExistingEvent, EventStoreError> {
        let since = subtract(self.not_before, MAX_CLOCK_SKEW);
        // An event from `not_before` or later may belong to the present use of the key. It does not count as expired,
        // even if its retention ends while the command is retried.
        let expired_before = subtract(self.now, self.key_retention).min(self.not_before);
        let mut key_use = self.first_key_use;
        loop {
            let (id, stream) = (self.key.event_id(key_use), Arc::clone(&self.stream));
            match event_store.find_event(EventLookup { id, stream, since }).await? {
                None => return Ok(ExistingEvent::Absent { key_use }),
                Some(event) if event.recorded_at > expired_before => {
                    return Ok(ExistingEvent::Present(event));
                }
                Some(_) => key_use += 1,
            }
        }
    }
}

/// Runs the queries concurrently. Returns a result for each query and `None` for each `None`, in order.
pub(crate) async fn find_existing_events(
    event_store: &dyn EventStore,
    queries: Vec<Option<ExistingEventQuery>>,
) -> Result<Vec<Option<ExistingEvent>>, EventStoreError> {
    let searches = queries.into_iter().map(|query| async {
        match query {
            Some(query) => query.find_existing_event(event_store).await.map(Some),
            None => Ok(None),
        }
    });
    stream::iter(searches).buffered(MAX_CONCURRENT_SEARCHES).try_collect().await
}

fn subtract(time: Timestamp, by: Duration) -> Timestamp {
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(time.millis().saturating_sub(millis))
}
