//! Looking for the event of a command that may have been carried out before.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Timestamp;
use chat_ports::event_store::{EventSearch, EventStore, EventStoreError, RecordedEvent};
use chat_ports::idempotency::KeyId;
use futures::{StreamExt, TryStreamExt, stream};

/// How far the clocks of the machines that stamp events and reservations may be apart.
const SKEW: Duration = Duration::from_mins(5);

/// Events that are looked for at a time, for the commands of one stream.
const AT_A_TIME: usize = 16;

/// Which event to look for.
pub(crate) struct Lookup {
    pub(crate) key: KeyId,
    /// The first use of the key that may be this one.
    pub(crate) generation: u32,
    pub(crate) stream: Arc<str>,
    pub(crate) since: Timestamp,
    pub(crate) kept: Duration,
    pub(crate) now: Timestamp,
}

/// What was found.
pub(crate) enum Sighting {
    /// No event of a key that is kept. The next one is of this use of the key.
    Absent {
        generation: u32,
    },
    Found(RecordedEvent),
}

impl Lookup {
    /// Passes by the events of earlier uses of the key, which are older than keys are kept.
    pub(crate) async fn run(self, log: &dyn EventStore) -> Result<Sighting, EventStoreError> {
        let since = minus(self.since, SKEW);
        let forgotten = minus(self.now, self.kept);
        let mut generation = self.generation;
        loop {
            let (id, stream) = (self.key.event_id(generation), Arc::clone(&self.stream));
            match log.find(EventSearch { id, stream, since }).await? {
                None => return Ok(Sighting::Absent { generation }),
                Some(event) if event.recorded_at > forgotten => return Ok(Sighting::Found(event)),
                Some(_) => generation += 1,
            }
        }
    }
}

pub(super) async fn look(
    log: &dyn EventStore,
    lookups: Vec<Option<Lookup>>,
) -> Result<Vec<Option<Sighting>>, EventStoreError> {
    let looking = lookups.into_iter().map(|lookup| async {
        match lookup {
            Some(lookup) => lookup.run(log).await.map(Some),
            None => Ok(None),
        }
    });
    stream::iter(looking).buffered(AT_A_TIME).try_collect().await
}

fn minus(time: Timestamp, by: Duration) -> Timestamp {
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(time.millis().saturating_sub(millis))
}
