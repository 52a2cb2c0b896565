//! The deleted and truncated streams that a handle on the log has met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_ports::event_store::{TruncatedStream, TruncationCause};

/// The largest number of streams that are remembered.
const MAX_STREAMS: usize = 1_000;

/// The deleted and truncated streams, as far as this handle has met them.
#[derive(Default)]
pub(super) struct TruncatedStreams(Mutex<HashMap<Arc<str>, TruncationCause>>);

impl TruncatedStreams {
    /// Records a truncated stream.
    pub(super) fn insert(&self, stream: &Arc<str>, cause: TruncationCause) -> TruncatedStream {
        let truncated = TruncatedStream { stream: Arc::clone(stream), cause };
        let mut streams = self.lock();
        // A new stream is not recorded when the map is full. Only a new stream or a new cause is logged.
        if (streams.len() < MAX_STREAMS || streams.contains_key(stream))
            && streams.insert(Arc::clone(stream), cause) != Some(cause)
        {
            tracing::error!(
                error = &truncated as &dyn std::error::Error,
                "a stream was deleted or truncated in KurrentDB; it takes no commands until an operator restores it"
            );
        }
        set_gauge(&streams);
        truncated
    }

    /// Removes a stream that is complete again.
    pub(super) fn remove(&self, stream: &str) {
        let mut streams = self.lock();
        if streams.remove(stream).is_some() {
            tracing::info!("a stream that was truncated in KurrentDB is complete again");
            set_gauge(&streams);
        }
    }

    pub(super) fn get(&self, stream: &Arc<str>) -> Option<TruncatedStream> {
        let cause = *self.lock().get(stream)?;
        Some(TruncatedStream { stream: Arc::clone(stream), cause })
    }

    pub(super) fn all(&self) -> Vec<TruncatedStream> {
        let streams = self.lock();
        let truncated = |(stream, cause): (&Arc<str>, &TruncationCause)| TruncatedStream {
            stream: Arc::clone(stream),
            cause: *cause,
        };
        streams.iter().map(truncated).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, TruncationCause>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_gauge(streams: &HashMap<Arc<str>, TruncationCause>) {
    metrics::gauge!("chat_event_log_truncated_streams")
        .set(f64::from(u32::try_from(streams.len()).unwrap_or(u32::MAX)));
}
