//! The streams on which commands are refused: an event of them can't be read, or they were truncated in the event
//! store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat_domain::{Position, StreamId};
use chat_ports::event_store::stream_reader::UnreadableEvent;
use chat_ports::event_store::{EventStore, EventStoreError, TruncatedStream, TruncationCause};

use super::load_state::LoadError;
use super::stream_state::{FoldDepth, StreamState};

/// How often the streams are loaded again: an operator may have resolved the event, and there may be no command that
/// would load the stream.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The maximal number of streams. Refusals of further streams are neither recorded nor logged. One log line says that
/// the maximum is reached.
const MAX_STREAMS: usize = 1_000;

/// The reason why a stream refuses commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The event at this position can't be read.
    Unreadable(Position),
    /// The event store has lost events of the stream.
    Truncated(TruncationCause),
}

/// The streams that have refused a command and have not been loaded in full since.
pub(super) struct RefusedStreams {
    event_store: Arc<dyn EventStore>,
    refusals: Mutex<HashMap<StreamId, Refusal>>,
}

impl RefusedStreams {
    /// Starts with no streams, and with a task that repeats [`Self::recheck`] until the value is dropped.
    pub(super) fn spawn(event_store: Arc<dyn EventStore>) -> Arc<Self> {
        metrics::gauge!("chat_command_streams_refused").set(0.0);
        let refused = Arc::new(Self { event_store, refusals: Mutex::default() });
        let weak = Arc::downgrade(&refused);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RECHECK_INTERVAL).await;
                let Some(refused) = weak.upgrade() else { return };
                refused.recheck().await;
            }
        });
        refused
    }

    /// Records that commands on a stream are refused, if the error says so.
    pub(super) fn record(&self, stream: StreamId, error: &LoadError) {
        match error {
            LoadError::Unreadable(event) => self.insert_unreadable(stream, event),
            LoadError::Store(EventStoreError::StreamTruncated(truncated)) => {
                self.insert_truncated(stream, truncated);
            }
            LoadError::Rejected(_) | LoadError::Store(_) | LoadError::Panicked => {}
        }
    }

    fn insert_unreadable(&self, stream: StreamId, event: &UnreadableEvent) {
        if self.insert(stream, Refusal::Unreadable(event.position)) {
            tracing::error!(
                position = event.position.get(),
                error = event as &dyn std::error::Error,
                "commands on a stream are refused until an operator resolves the event at this position with \
                 `chat-api dead-letters`"
            );
        }
    }

    /// Records that a stream was truncated. The event store has logged it.
    pub(super) fn insert_truncated(&self, stream: StreamId, truncated: &TruncatedStream) {
        self.insert(stream, Refusal::Truncated(truncated.cause));
    }

    /// Records a refusal. Returns whether it is new and was recorded.
    fn insert(&self, stream: StreamId, refusal: Refusal) -> bool {
        let mut refusals = self.lock();
        if refusals.len() >= MAX_STREAMS && !refusals.contains_key(&stream) {
            return false;
        }
        let previous = refusals.insert(stream, refusal);
        if previous.is_none() && refusals.len() == MAX_STREAMS {
            tracing::error!(
                streams = MAX_STREAMS,
                "further streams that refuse commands are neither counted nor logged; `chat-api events check` finds \
                 all unreadable events"
            );
        }
        publish(&refusals);
        previous != Some(refusal)
    }

    /// Records that a stream takes commands.
    pub(super) fn remove(&self, stream: &StreamId) {
        let mut refusals = self.lock();
        if refusals.remove(stream).is_some() {
            tracing::info!("commands on a stream are accepted again");
            publish(&refusals);
        }
    }

    /// Returns the positions of the unreadable events because of which commands are refused.
    pub(super) fn positions(&self) -> Vec<Position> {
        let position = |refusal: &Refusal| match refusal {
            Refusal::Unreadable(position) => Some(*position),
            Refusal::Truncated(_) => None,
        };
        let mut positions: Vec<Position> = self.lock().values().filter_map(position).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// Loads the streams again, and removes those that can be read.
    pub(super) async fn recheck(&self) {
        let streams: Vec<StreamId> = self.lock().keys().copied().collect();
        for stream in streams {
            match StreamState::load(&*self.event_store, stream, FoldDepth::Full, false).await {
                Ok(_) | Err(LoadError::Rejected(_)) => self.remove(&stream),
                Err(error) => self.record(stream, &error),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Refusal>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn publish(refusals: &HashMap<StreamId, Refusal>) {
    metrics::gauge!("chat_command_streams_refused")
        .set(f64::from(u32::try_from(refusals.len()).unwrap_or(u32::MAX)));
}
