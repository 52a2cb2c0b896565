//! Bounds on what API routes may take: requests in flight, and time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// Refuses at once what comes on top of the requests in flight, rather than let it wait.
pub(crate) async fn admit(State(slots): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_slot) = slots.try_acquire() else {
        return Problem::of(ErrorCode::Overloaded).into_response();
    };
    next.run(request).await
}

/// How long a handler may take, and what the client is told when it takes longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) after: Duration,
    pub(crate) code: ErrorCode,
}

pub(crate) async fn keep_deadline(
    State(deadline): State<Deadline>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(deadline.after, next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => Problem::of(deadline.code).caused_by(elapsed).into_response(),
    }
}
