//! Load limits of API routes: concurrent requests and a deadline.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, ready};
use http::Method;
use tokio::time::timeout;
use tower::{Layer, Service};

use crate::error_code::ErrorCode;
use crate::http_limits::HttpLimits;
use crate::problem::Problem;

/// How long a handler may take, and the code of the error when it takes longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) timeout: Duration,
    pub(crate) codes: TimeoutCodes,
}

/// The codes of the error for a missed deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TimeoutCodes {
    /// For routes that only read, also those with POST: `overloaded`, because nothing was changed.
    Reads,
    /// For routes that change state: `outcome_unknown`.
    Changes,
    /// For a mix of routes: GET and HEAD as [`Self::Reads`], other methods as [`Self::Changes`].
    ByMethod,
}

impl TimeoutCodes {
    fn code(self, method: &Method) -> ErrorCode {
        let only_reads = match self {
            Self::Reads => true,
            Self::Changes => false,
            Self::ByMethod => method.is_safe(),
        };
        if only_reads { ErrorCode::Overloaded } else { ErrorCode::OutcomeUnknown }
    }
}

/// The layer that takes a slot for each request, or rejects the request at once if none is free, and cancels handlers
/// that miss their deadline. The response keeps the slot in its extensions.
#[derive(Clone)]
pub(crate) struct LoadLimits {
    pub(crate) limits: Arc<HttpLimits>,
    pub(crate) deadline: Deadline,
}

/// The service of [`LoadLimits`].
#[derive(Clone)]
pub(crate) struct LoadLimited<S> {
    inner: S,
    load: LoadLimits,
}

impl<S> Layer<S> for LoadLimits {
    type Service = LoadLimited<S>;

    fn layer(&self, inner: S) -> LoadLimited<S> {
        LoadLimited { inner, load: self.clone() }
    }
}

impl<S> Service<Request> for LoadLimited<S>
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
        let Some(slot) = self.load.limits.acquire_slot() else {
            return Box::pin(ready(Ok(Problem::from_code(ErrorCode::Overloaded).into_response())));
        };
        let deadline = self.load.deadline;
        let code = deadline.codes.code(request.method());
        let response = timeout(deadline.timeout, self.inner.call(request));
        Box::pin(async move {
            let mut response = match response.await {
                Ok(response) => response?,
                Err(elapsed) => Problem::from_code(code).caused_by(elapsed).into_response(),
            };
            response.extensions_mut().insert(Arc::new(slot));
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// A service that takes one request at a time and never completes it.
    fn pending_service(
        timeout: Duration,
    ) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
        let deadline = Deadline { timeout, codes: TimeoutCodes::ByMethod };
        let limits = LoadLimits { limits: HttpLimits::new(1, 1024), deadline };
        limits.layer(service_fn(async |_: Request| {
            std::future::pending::<Result<Response, Infallible>>().await
        }))
    }

    fn request() -> Request {
        Request::new(Body::empty())
    }

    #[tokio::test]
    async fn rejects_requests_over_the_limit_until_one_ends() {
        let service = pending_service(Duration::from_hours(1));
        let first = service.clone().call(request());
        let second = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        let third = std::pin::pin!(service.clone().call(request()));
        assert!(futures::poll!(third).is_pending());
    }

    #[tokio::test]
    async fn a_missed_deadline_is_answered_and_releases_the_slot() {
        let service = pending_service(Duration::from_millis(10));
        for (method, code) in [(Method::GET, "overloaded"), (Method::POST, "outcome_unknown")] {
            let request = Request::builder().method(method).body(Body::empty()).unwrap();
            let late = service.clone().oneshot(request).await.unwrap();
            let problem = late.extensions().get::<Problem>().unwrap();
            assert_eq!(problem.code().as_str(), code);
        }
    }
}
