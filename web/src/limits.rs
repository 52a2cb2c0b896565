//! Bounds on what API routes may take: requests in flight, and time.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, ready};
use tokio::time::timeout;
use tower::{Layer, Service};

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The requests that may be in flight.
#[derive(Debug)]
pub(crate) struct Slots {
    free: AtomicUsize,
}

/// A request in flight.
struct InFlight(Arc<Slots>);

impl Slots {
    pub(crate) fn new(requests: usize) -> Self {
        Self { free: AtomicUsize::new(requests) }
    }

    fn take(self: &Arc<Self>) -> Option<InFlight> {
        let one_less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        Some(InFlight(Arc::clone(self)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long a handler may take, and what the client is told when it takes longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) after: Duration,
    pub(crate) code: ErrorCode,
}

/// Refuses at once what comes on top of the requests in flight, rather than let it wait, and gives up on what misses its
/// deadline.
#[derive(Clone)]
pub(crate) struct Limits {
    pub(crate) slots: Arc<Slots>,
    pub(crate) deadline: Deadline,
}

/// A service within limits.
#[derive(Clone)]
pub(crate) struct Limited<S> {
    inner: S,
    limits: Limits,
}

impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, limits: self.clone() }
    }
}

impl<S> Service<Request> for Limited<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(in_flight) = self.limits.slots.take() else {
            return Box::pin(ready(Ok(Problem::of(ErrorCode::Overloaded).into_response())));
        };
        let Deadline { after, code } = self.limits.deadline;
        let answer = timeout(after, self.inner.call(request));
        Box::pin(async move {
            let _in_flight = in_flight;
            match answer.await {
                Ok(answer) => answer,
                Err(elapsed) => Ok(Problem::of(code).caused_by(elapsed).into_response()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// One request at a time, which never gets an answer of its own.
    fn one_at_a_time(
        after: Duration,
    ) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
        let deadline = Deadline { after, code: ErrorCode::RequestTimeout };
        let limits = Limits { slots: Arc::new(Slots::new(1)), deadline };
        limits.layer(service_fn(async |_: Request| {
            std::future::pending::<Result<Response, Infallible>>().await
        }))
    }

    fn request() -> Request {
        Request::new(Body::empty())
    }

    #[tokio::test]
    async fn a_request_beyond_those_in_flight_is_refused_until_one_ends_or_is_given_up() {
        let service = one_at_a_time(Duration::from_hours(1));
        let first = service.clone().call(request());
        let second = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        let third = std::pin::pin!(service.clone().call(request()));
        assert!(futures::poll!(third).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_misses_its_deadline_is_answered_and_frees_its_slot() {
        let service = one_at_a_time(Duration::from_secs(1));
        for _ in 0..2 {
            let late = service.clone().oneshot(request()).await.unwrap();
            assert_eq!(late.status(), Problem::of(ErrorCode::RequestTimeout).into_response().status());
        }
    }
}
