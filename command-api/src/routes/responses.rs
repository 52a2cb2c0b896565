//! The responses to commands.

use axum::response::{IntoResponse, Response};
use chat_web::consistency::CONSISTENCY_TOKEN;
use chat_web::extract::IDEMPOTENCY_REPLAYED;
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use crate::command::{CommandOutcome, ExecutionKind};
use crate::service::CommandService;

/// The response to a command that has no result but its success.
#[derive(Serialize, ToSchema)]
pub(super) struct Success {
    #[schema(example = "success")]
    status: &'static str,
    message: &'static str,
}

impl Success {
    pub(super) fn new(message: &'static str) -> Self {
        Self { status: "success", message }
    }
}

/// Names and values of `N` response headers.
pub(super) type HeaderPairs<const N: usize> = [(HeaderName, HeaderValue); N];

pub(super) fn consistency_token_header(service: &CommandService, outcome: &CommandOutcome) -> HeaderPairs<1> {
    [(CONSISTENCY_TOKEN, service.consistency_token(outcome.position).into())]
}

/// Returns a 201 response. Its `Location` is the path of the request, which names the collection, followed by `member`.
pub(super) fn created_response(
    service: &CommandService,
    collection: &Uri,
    member: impl std::fmt::Display,
    outcome: &CommandOutcome,
    body: impl IntoResponse,
) -> Response {
    let location = format!("{}/{member}", collection.path().trim_end_matches('/'));
    let mut response =
        (StatusCode::CREATED, consistency_token_header(service, outcome), body).into_response();
    if outcome.execution == ExecutionKind::Replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    // The path was parsed from a URI, so it is a valid header value.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
