//! The limits that all requests to a server share: slots for API requests, and memory for bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{counter, gauge};

use crate::client_waits::ClientWaits;
use crate::memory_budget::MemoryBudget;

/// How long a request must have waited for its client before it may be aborted to make room for another request.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// The number of connections that fill the memory for unsent responses if each of them uses its whole share.
const CONNECTIONS_THAT_FILL_THE_MEMORY: usize = 8;

/// The limits that all requests to a server share.
///
/// When slots or memory run short, the request that has waited longest for its client is aborted, if it has waited at
/// least a second. A request waits for its client until the rest of its body has arrived, or until its response is
/// read. So clients that stop reading or sending don't block others.
pub struct HttpLimits {
    free_slots: AtomicUsize,
    pub(crate) request_bodies: Arc<MemoryBudget>,
    pub(crate) unsent_responses: Arc<MemoryBudget>,
    pub(crate) client_waits: ClientWaits,
    max_unsent_bytes_per_connection: usize,
}

/// The current use of the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpUsage {
    /// Slots for API requests that are free.
    pub free_slots: usize,
    /// Bytes of request bodies that count against the limit.
    pub request_body_bytes: usize,
    /// Bytes of responses that are not sent yet.
    pub unsent_response_bytes: usize,
}

/// The permission of a request of the APIs or the console to run. Held at most until the last byte of its response is
/// sent. A streamed response holds none.
pub(crate) struct Slot(Arc<HttpLimits>);

impl HttpLimits {
    /// The default number of slots.
    pub const DEFAULT_IN_FLIGHT: usize = 4_096;

    /// The default size of the memory for bodies, in bytes.
    pub const DEFAULT_MEMORY_BYTES: usize = 256 * 1024 * 1024;

    /// Creates limits for this many concurrent API requests, and this many bytes of memory for bodies. One half of the
    /// memory is for request bodies, the other half for responses that are not sent yet.
    pub fn new(max_in_flight: usize, memory_bytes: usize) -> Arc<Self> {
        let budget = memory_bytes / 2;
        Arc::new(Self {
            free_slots: AtomicUsize::new(max_in_flight),
            request_bodies: MemoryBudget::new(budget, gauge!("chat_http_request_body_bytes")),
            unsent_responses: MemoryBudget::new(budget, gauge!("chat_http_unsent_response_bytes")),
            client_waits: ClientWaits::default(),
            max_unsent_bytes_per_connection: budget / CONNECTIONS_THAT_FILL_THE_MEMORY,
        })
    }

    /// Returns the current use.
    pub fn usage(&self) -> HttpUsage {
        HttpUsage {
            free_slots: self.free_slots.load(Ordering::Relaxed),
            request_body_bytes: self.request_bodies.used_bytes(),
            unsent_response_bytes: self.unsent_responses.used_bytes(),
        }
    }

    /// [Makes room](Self::make_room) if no slot is free. Returns whether a slot is free then.
    pub(crate) fn ensure_free_slot(&self) -> bool {
        let is_free = || self.free_slots.load(Ordering::Relaxed) > 0;
        is_free() || (self.make_room() && is_free())
    }

    /// Takes a slot for an API request. If none is free, [makes room](Self::make_room) first.
    pub(crate) fn acquire_slot(self: &Arc<Self>) -> Option<Slot> {
        let slot =
            self.try_acquire_slot().or_else(|| self.make_room().then(|| self.try_acquire_slot()).flatten());
        if slot.is_none() {
            counter!("chat_http_overloaded_total", "reason" => "in_flight").increment(1);
        }
        slot
    }

    fn try_acquire_slot(self: &Arc<Self>) -> Option<Slot> {
        let decrement = |available: usize| available.checked_sub(1);
        self.free_slots.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement).ok()?;
        Some(Slot(Arc::clone(self)))
    }

    /// Aborts the request that has waited longest for its client, if it has waited at least [`MIN_WAIT`]. Returns
    /// whether a request was aborted.
    pub(crate) fn make_room(&self) -> bool {
        self.client_waits.abort_longest(MIN_WAIT)
    }

    /// Aborts all requests that have waited for their clients for at least `max_wait`.
    pub(crate) fn abort_overdue(&self, max_wait: Duration) {
        while self.client_waits.abort_longest(max_wait) {}
    }

    /// Aborts all resumable responses whose clients have read nothing for at least `max_wait`.
    pub(crate) fn abort_resumable(&self, max_wait: Duration) {
        self.client_waits.abort_resumable(max_wait);
    }

    /// Creates the budget that one connection has for its unsent responses.
    pub(crate) fn share_of_connection(&self) -> Arc<MemoryBudget> {
        self.unsent_responses.share(self.max_unsent_bytes_per_connection)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free_slots.fetch_add(1, Ordering::Relaxed);
    }
}
