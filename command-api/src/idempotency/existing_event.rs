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
        let is_current = |recorded_at: Timestamp| {
            recorded_at >= self.not_before || recorded_at > subtract(self.now, self.key_retention)
        };
        let mut key_use = self.first_key_use;
        loop {
            let (id, stream) = (self.key.event_id(key_use), Arc::clone(&self.stream));
            match event_store.find_event(EventLookup { id, stream, since }).await? {
                None => return Ok(ExistingEvent::Absent { key_use }),
                Some(event) if is_current(event.recorded_at) => {
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

#[cfg(test)]
mod tests {
    use chat_domain::ExpectedRevision;
    use chat_domain::event::SchemaVersion;
    use chat_ports::event_store::{NewEvent, StreamAppend};
    use chat_sqlite::SqliteEventStore;

    use super::*;

    #[tokio::test]
    async fn an_event_recorded_at_the_earliest_time_of_the_present_use_has_not_expired() {
        const KEY_RETENTION: Duration = Duration::from_secs(1);
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteEventStore::open(&folder.path().join("events.db")).unwrap();
        let key = IdempotencyKeyId([1; 16]);
        let recorded_at = Timestamp::from_millis(1_790_000_000_000);
        let event = NewEvent {
            id: key.event_id(0),
            event_type: "AppCreated",
            schema_version: SchemaVersion::FIRST,
            recorded_at,
            data: "{}".to_owned(),
            metadata: "{}".into(),
        };
        let append = StreamAppend {
            stream: "app-T".into(),
            expected_revision: ExpectedRevision::NoStream,
            events: vec![event],
        };
        log.append(vec![append]).await.remove(0).unwrap();
        for (not_before_millis, is_present) in [(0, true), (1, false)] {
            let query = ExistingEventQuery {
                key,
                first_key_use: 0,
                stream: "app-T".into(),
                not_before: Timestamp::from_millis(recorded_at.millis() + not_before_millis),
                key_retention: KEY_RETENTION,
                now: Timestamp::from_millis(recorded_at.millis() + 2_000),
            };
            let found = query.find_existing_event(&log).await.unwrap();
            assert_eq!(matches!(found, ExistingEvent::Present(_)), is_present, "{not_before_millis}");
        }
    }
}
