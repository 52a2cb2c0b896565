//! A connection of a client: its activity, its unsent responses, and whether it must be closed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Version;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::http_limits::HttpLimits;
use crate::memory_budget::MemoryBudget;

/// The most chunks of aborted responses with which an HTTP/2 connection stays open. The connection keeps the chunks that
/// it took from a response, and releases them only when it sends them or closes.
const MAX_STUCK_CHUNKS: usize = 64;

/// The state of one connection, shared by its requests.
pub(crate) struct ClientConnection {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds after `opened`.
    last_active_millis: AtomicU64,
    /// The memory of responses that are not sent yet.
    pub(crate) unsent: Arc<MemoryBudget>,
    /// The chunks of aborted responses that the connection has taken and not sent.
    stuck_chunks: AtomicUsize,
    must_close: Notify,
    /// The unread rest of the latest HTTP/1 request.
    unread: Mutex<Option<UnreadBody>>,
    unread_changed: Notify,
}

/// The unread rest of a request's body when its handler no longer needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnreadBody {
    /// A small rest, which is being read and discarded. The response waits for it.
    Arriving,
    /// Bytes that the client may still send. The connection ends with the response.
    Abandoned,
}

impl ClientConnection {
    pub(super) fn new(limits: &HttpLimits) -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            last_active_millis: AtomicU64::new(0),
            unsent: limits.share_of_connection(),
            stuck_chunks: AtomicUsize::new(0),
            must_close: Notify::new(),
            unread: Mutex::default(),
            unread_changed: Notify::new(),
        })
    }

    /// Records activity now.
    pub(crate) fn touch(&self) {
        self.last_active_millis.store(self.age_millis(), Ordering::Relaxed);
    }

    /// Returns the time since the last activity; zero while a request is in flight.
    pub(super) fn idle_time(&self) -> Duration {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(
            self.age_millis().saturating_sub(self.last_active_millis.load(Ordering::Relaxed)),
        )
    }

    /// Returns when the connection was last active, or `None` while a request is in flight.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let last_active = Duration::from_millis(self.last_active_millis.load(Ordering::Relaxed));
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| self.opened + last_active)
    }

    /// Whether the client must read responses before it may send more requests.
    pub(super) fn must_read_first(&self) -> bool {
        self.unsent.is_nearly_full()
    }

    /// Closes the connection at once.
    pub(crate) fn close(&self) {
        self.must_close.notify_one();
    }

    /// Closes the connection after a response on it was aborted. With HTTP/2, the connection stays open, and only the
    /// stream is reset, if other requests are in flight and at most [`MAX_STUCK_CHUNKS`] chunks are stuck.
    pub(crate) fn close_after_abort(&self, version: Version) {
        let others_go_on = version == Version::HTTP_2
            && self.in_flight.load(Ordering::Relaxed) > 0
            && self.stuck_chunks.load(Ordering::Relaxed) <= MAX_STUCK_CHUNKS;
        if !others_go_on {
            self.close();
        }
    }

    /// Counts chunks that the connection took from a response which was then aborted.
    pub(crate) fn add_stuck_chunks(&self, chunks: usize) {
        self.stuck_chunks.fetch_add(chunks, Ordering::Relaxed);
    }

    /// Records that a chunk of an aborted response was sent, or dropped.
    pub(crate) fn remove_stuck_chunk(&self) {
        self.stuck_chunks.fetch_sub(1, Ordering::Relaxed);
    }

    /// Records the unread rest of the latest HTTP/1 request; `None` if all of it was read.
    pub(super) fn set_unread(&self, unread: Option<UnreadBody>) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = unread;
        self.unread_changed.notify_one();
    }

    /// Returns the unread rest of the latest HTTP/1 request. While there is one, the connection must not be closed at
    /// once: the operating system would reset it, and the client could lose the response.
    pub(crate) fn unread(&self) -> Option<UnreadBody> {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the rest of the latest request's body is arriving. Returns whether all of it was read, so that the
    /// connection can be used for the next request.
    pub(super) async fn was_all_read(&self) -> bool {
        while self.unread() == Some(UnreadBody::Arriving) {
            self.unread_changed.notified().await;
        }
        self.unread().is_none()
    }

    /// Waits until the connection must be closed at once.
    pub(super) async fn must_close(&self) {
        self.must_close.notified().await;
    }

    fn age_millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A guard that counts a request as in flight until the guard is dropped. The handler holds one, and then its response
/// holds one until the last byte is sent.
pub(crate) struct InFlightRequest(Arc<ClientConnection>);

impl InFlightRequest {
    pub(crate) fn begin(connection: &Arc<ClientConnection>) -> Self {
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn healthy_streams_do_not_close_a_connection_when_another_one_is_aborted() {
        let client = ClientConnection::new(&HttpLimits::new(1, HttpLimits::DEFAULT_MEMORY_BYTES));
        let _other = InFlightRequest::begin(&client);
        let _unsent_of_other = client.unsent.reserve(2 * 1024 * 1024);
        client.add_stuck_chunks(MAX_STUCK_CHUNKS);
        client.close_after_abort(Version::HTTP_2);
        assert!(client.must_close().now_or_never().is_none());
        client.add_stuck_chunks(1);
        client.close_after_abort(Version::HTTP_2);
        assert!(client.must_close().now_or_never().is_some());
    }
}
