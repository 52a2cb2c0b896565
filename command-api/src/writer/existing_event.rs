//! Looking for the event of a command that may have been carried out before.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Timestamp;
use chat_ports::event_store::{EventLookup, EventStore, EventStoreError, RecordedEvent};
use chat_ports::idempotency::IdempotencyKeyId;
use futures::{StreamExt, TryStreamExt, stream};

/// How far the clocks of the machines that stamp events and reservations may be apart.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(5);

/// Events that are looked for at a time, for the commands of one stream.
const MAX_CONCURRENT_LOOKUPS: usize = 16;

/// Which event to look for.
pub(crate) struct ExistingEventQuery {
    pub(crate) key: IdempotencyKeyId,
    /// The first use of the key that may be this one.
    pub(crate) generation: u32,
    pub(crate) stream: Arc<str>,
    pub(crate) not_before: Timestamp,
    pub(crate) key_retention: Duration,
    pub(crate) now: Timestamp,
}

/// What was found.
pub(crate) enum ExistingEvent {
    /// No event of a key that is kept. The next one is of this use of the key.
    Absent {
        generation: u32,
    },
    Present(RecordedEvent),
}

impl ExistingEventQuery {
    /// Passes by the events of earlier uses of the key, which are older than keys are kept.
    pub(crate) async fn find_existing_event(
        self,
        log: &dyn EventStore,
    ) -> Result<ExistingEvent, EventStoreError> {
        let since = subtract(self.not_before, MAX_CLOCK_SKEW);
        let forgotten = subtract(self.now, self.key_retention);
        let mut generation = self.generation;
        loop {
            let (id, stream) = (self.key.event_id(generation), Arc::clone(&self.stream));
            match log.find_event(EventLookup { id, stream, since }).await? {
                None => return Ok(ExistingEvent::Absent { generation }),
                Some(event) if event.recorded_at > forgotten => return Ok(ExistingEvent::Present(event)),
                Some(_) => generation += 1,
            }
        }
    }
}

pub(super) async fn find_existing_events(
    log: &dyn EventStore,
    queries: Vec<Option<ExistingEventQuery>>,
) -> Result<Vec<Option<ExistingEvent>>, EventStoreError> {
    let looking = queries.into_iter().map(|lookup| async {
        match lookup {
            Some(lookup) => lookup.find_existing_event(log).await.map(Some),
            None => Ok(None),
        }
    });
    stream::iter(looking).buffered(MAX_CONCURRENT_LOOKUPS).try_collect().await
}

fn subtract(time: Timestamp, by: Duration) -> Timestamp {
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(time.millis().saturating_sub(millis))
}
