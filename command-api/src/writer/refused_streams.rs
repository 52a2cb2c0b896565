//! The streams on which commands are refused, because an event of them can't be read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat_domain::{Position, StreamId};
use chat_ports::event_store::EventStore;
use chat_ports::event_store::stream_reader::UnreadableEvent;

use super::load_state::LoadError;
use super::stream_state::{FoldDepth, StreamState};

/// How often the streams are loaded again: an operator may have resolved the event, and there may be no command that
/// would load the stream.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The most streams that are remembered.
const MAX_STREAMS: usize = 1_000;

/// The streams that refused a command since they could last be read, each with the event.
pub(super) struct RefusedStreams {
    event_store: Arc<dyn EventStore>,
    events: Mutex<HashMap<StreamId, Position>>,
}

impl RefusedStreams {
    /// Starts with no streams, and with a task that repeats [`Self::recheck`] until the value is dropped.
    pub(super) fn spawn(event_store: Arc<dyn EventStore>) -> Arc<Self> {
        metrics::gauge!("chat_command_streams_refused").set(0.0);
        let refused = Arc::new(Self { event_store, events: Mutex::default() });
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

    /// Records that commands on a stream are refused.
    pub(super) fn insert(&self, stream: StreamId, event: &UnreadableEvent) {
        let mut events = self.lock();
        if events.len() >= MAX_STREAMS && !events.contains_key(&stream) {
            return;
        }
        if events.insert(stream, event.position) != Some(event.position) {
            tracing::error!(
                position = event.position.get(),
                error = event as &dyn std::error::Error,
                "commands on a stream are refused until an operator resolves the event at this position with \
                 `chat-api dead-letters`"
            );
        }
        publish(&events);
    }

    /// Records that a stream takes commands.
    pub(super) fn remove(&self, stream: &StreamId) {
        let mut events = self.lock();
        if events.remove(stream).is_some() {
            tracing::info!("commands on a stream are accepted again");
            publish(&events);
        }
    }

    /// Returns the positions of the events because of which commands are refused.
    pub(super) fn positions(&self) -> Vec<Position> {
        let mut positions: Vec<Position> = self.lock().values().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// Loads the streams again, and removes those that can be read.
    pub(super) async fn recheck(&self) {
        let streams: Vec<StreamId> = self.lock().keys().copied().collect();
        for stream in streams {
            match StreamState::load(&*self.event_store, stream, FoldDepth::Full, false).await {
                Err(LoadError::Unreadable(event)) => self.insert(stream, &event),
                Err(LoadError::Store(_) | LoadError::Panicked) => {}
                Ok(_) | Err(LoadError::Rejected(_)) => self.remove(&stream),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Position>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn publish(events: &HashMap<StreamId, Position>) {
    metrics::gauge!("chat_command_streams_refused")
        .set(f64::from(u32::try_from(events.len()).unwrap_or(u32::MAX)));
}
