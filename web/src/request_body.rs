//! Request bodies as they arrive: their memory, and clients that stop sending.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use metrics::counter;
use thiserror::Error;
use tokio::sync::Notify;

use crate::client_waits::{WaitEntry, WaitsForClient};
use crate::http_limits::HttpLimits;
use crate::memory_budget::Reservation;

/// The number of bytes at the start of a body that don't count against the budget, so that small requests run even while
/// large ones fill it. The limit of requests in flight bounds their sum.
const FREE_BYTES: usize = 8 * 1024;

/// The memory of a request's body, until the request is dropped. The request middleware adds it to the extensions.
pub(crate) struct RequestMemory {
    limits: Arc<HttpLimits>,
    received_bytes: AtomicUsize,
    reservation: Mutex<Option<Reservation>>,
    exceeded_budget: AtomicBool,
    is_aborted: AtomicBool,
    abort: Notify,
    wait: WaitEntry,
    this: Weak<Self>,
}

/// There is no memory left for the body.
#[derive(Debug, Error)]
#[error("the bodies in flight use all memory for request bodies")]
struct MemoryExceeded;

impl RequestMemory {
    pub(crate) fn new(limits: &Arc<HttpLimits>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            limits: Arc::clone(limits),
            received_bytes: AtomicUsize::new(0),
            reservation: Mutex::default(),
            exceeded_budget: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            abort: Notify::new(),
            wait: WaitEntry::default(),
            this: this.clone(),
        })
    }

    /// Whether the body could not be read because no memory was left for it.
    pub(crate) fn exceeded_budget(&self) -> bool {
        self.exceeded_budget.load(Ordering::Relaxed)
    }

    /// Waits until the body is aborted to make room for others.
    pub(crate) async fn aborted(&self) {
        self.abort.notified().await;
    }

    /// Reserves memory for bytes that arrived.
    fn receive(&self, bytes: usize) -> Result<(), MemoryExceeded> {
        let before = self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        let counted = (before + bytes).max(FREE_BYTES) - before.max(FREE_BYTES);
        if counted == 0 {
            return Ok(());
        }
        let reserved = loop {
            if let Some(reserved) = self.limits.request_bodies.try_reserve(counted) {
                break reserved;
            }
            if !self.limits.make_room() {
                self.exceeded_budget.store(true, Ordering::Relaxed);
                counter!("http_overloaded_total", "reason" => "request_memory").increment(1);
                return Err(MemoryExceeded);
            }
        };
        match &mut *self.reservation.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reservation) => reservation.merge(reserved),
            none => *none = Some(reserved),
        }
        Ok(())
    }
}

impl WaitsForClient for RequestMemory {
    fn abort(&self) {
        counter!("http_aborted_total", "waited_for" => "request_body").increment(1);
        self.is_aborted.store(true, Ordering::Relaxed);
        drop(self.reservation.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.abort.notify_one();
    }
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        self.limits.client_waits.end(&self.wait);
    }
}

/// A request body that counts its bytes against the budget.
pub(crate) struct MeteredBody {
    pub(crate) body: Body,
    pub(crate) memory: Arc<RequestMemory>,
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let memory = &self.memory;
        let waits = &memory.limits.client_waits;
        if polled.is_pending() {
            if !memory.is_aborted.load(Ordering::Relaxed) {
                waits.restart(&memory.wait, memory.this.clone());
            }
            return Poll::Pending;
        }
        waits.end(&memory.wait);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Err(error) = memory.receive(frame.data_ref().map_or(0, Bytes::len))
        {
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
