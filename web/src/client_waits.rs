//! Requests that wait for their client: for the rest of a body, or until a response is read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// The requests that wait for their client, the one that has waited longest first. They occupy memory or a slot and
/// make no progress. When memory or slots run short, the first one is aborted. A request that waits too long is
/// aborted in any case.
#[derive(Default)]
pub(crate) struct ClientWaits(Mutex<Waits>);

#[derive(Default)]
struct Waits {
    last_id: u64,
    /// By id. A request that makes progress gets a new id, and ids increase, so the request whose last progress is the
    /// longest ago comes first.
    by_id: BTreeMap<u64, Wait>,
}

struct Wait {
    since: Instant,
    request: Weak<dyn WaitsForClient>,
}

/// A request that can be aborted while it waits for its client.
pub(crate) trait WaitsForClient: Send + Sync {
    /// Ends the wait, and releases the memory and the slot: a request that waits for its body is refused, a response
    /// breaks off.
    fn abort(&self);

    /// Whether the client can request the rest of the response anew, also from another process.
    fn is_resumable(&self) -> bool {
        false
    }
}

/// The id of a request's present wait in [`ClientWaits`]. Zero while the request does not wait.
#[derive(Default)]
pub(crate) struct WaitId(AtomicU64);

impl ClientWaits {
    /// Records that a request waits for its client from now on. Replaces the request's earlier wait, if it has one.
    pub(crate) fn restart(&self, wait_id: &WaitId, request: Weak<dyn WaitsForClient>) {
        let mut waits = self.lock();
        waits.last_id += 1;
        let id = waits.last_id;
        let previous = wait_id.0.swap(id, Ordering::Relaxed);
        waits.by_id.remove(&previous);
        waits.by_id.insert(id, Wait { since: Instant::now(), request });
    }

    /// Records that a request no longer waits for its client.
    pub(crate) fn end(&self, wait_id: &WaitId) {
        let id = wait_id.0.swap(0, Ordering::Relaxed);
        if id != 0 {
            self.lock().by_id.remove(&id);
        }
    }

    /// Aborts the request that has waited longest, if it has waited at least `min_wait`. Returns whether it aborted a
    /// request.
    pub(crate) fn abort_longest(&self, min_wait: Duration) -> bool {
        while let Some(request) = self.take_longest(min_wait) {
            if let Some(request) = request.upgrade() {
                request.abort();
                return true;
            }
        }
        false
    }

    /// Aborts the resumable responses that have waited at least `min_wait`.
    pub(crate) fn abort_resumable(&self, min_wait: Duration) {
        let waits = self.lock();
        let overdue_waits = waits.by_id.values().take_while(|wait| wait.since.elapsed() >= min_wait);
        let requests: Vec<_> = overdue_waits.filter_map(|wait| wait.request.upgrade()).collect();
        drop(waits);
        for request in requests.iter().filter(|request| request.is_resumable()) {
            request.abort();
        }
    }

    fn take_longest(&self, min_wait: Duration) -> Option<Weak<dyn WaitsForClient>> {
        let mut waits = self.lock();
        let longest = waits.by_id.first_entry()?;
        (longest.get().since.elapsed() >= min_wait).then(|| longest.remove().request)
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Counts how often it is aborted.
    #[derive(Default)]
    struct StubRequest(AtomicU64);

    impl WaitsForClient for StubRequest {
        fn abort(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn aborts_the_request_without_progress_for_the_longest_time() {
        let waits = ClientWaits::default();
        let requests: [Arc<StubRequest>; 3] = Default::default();
        let wait_ids: [WaitId; 3] = Default::default();
        let restart = |index: usize| {
            let request: Weak<StubRequest> = Arc::downgrade(&requests[index]);
            waits.restart(&wait_ids[index], request);
        };
        (0..3).for_each(restart);
        tokio::time::advance(Duration::from_secs(2)).await;
        restart(0);
        waits.end(&wait_ids[1]);
        assert!(!waits.abort_longest(Duration::from_secs(3)));
        assert!(waits.abort_longest(Duration::from_secs(2)));
        assert!(
            !waits.abort_longest(Duration::from_secs(2)),
            "aborted a request that made progress, or that no longer waits"
        );
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(waits.abort_longest(Duration::from_secs(2)));
        let aborted = requests.map(|request| request.0.load(Ordering::Relaxed));
        assert_eq!(aborted, [1, 0, 1]);
    }
}
