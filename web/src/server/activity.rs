//! Activity of a connection: requests in flight and body frames, for the idle timeout.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// The activity of one connection, shared by its requests.
pub(super) struct ConnectionActivity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds after `opened`.
    last_active_millis: AtomicU64,
}

impl ConnectionActivity {
    pub(super) fn new() -> Self {
        Self { opened: Instant::now(), in_flight: AtomicUsize::new(0), last_active_millis: AtomicU64::new(0) }
    }

    /// Records activity now.
    pub(super) fn touch(&self) {
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

    fn age_millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A guard that counts a request as in flight until it is dropped.
pub(super) struct InFlightRequest<'a>(&'a ConnectionActivity);

impl<'a> InFlightRequest<'a> {
    pub(super) fn begin(activity: &'a ConnectionActivity) -> Self {
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for InFlightRequest<'_> {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A streamed body that records activity with every frame.
pub(super) struct ActivityTrackingBody {
    pub(super) body: Body,
    pub(super) activity: Arc<ConnectionActivity>,
}

impl HttpBody for ActivityTrackingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.activity.touch();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
