//! Routes that every process serves: health, metrics, documentation.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::docs;
use crate::error_code::ErrorCode;
use crate::metrics::Metrics;
use crate::openapi::SYSTEM;
use crate::problem::{Problem, ProblemBody};

/// What `/readyz` asks: the parts of the process, as they are now.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// Every part, in an order that stays. Must answer in well under a second, also while engines are away.
    async fn parts(&self) -> Vec<Part>;
}

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It works.
    Ok,
    /// It works, and somebody should have a look.
    Degraded,
    /// It does not work: the process should get no requests.
    Down,
}

/// A part of the process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Part {
    /// Its name, such as `event_store`.
    #[schema(example = "read_model")]
    pub name: String,
    /// How it is.
    pub status: Status,
    /// Why, where it is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it stands, if it is a projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<Projection>,
}

/// Where a projection stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Projection {
    /// What its runner is doing, such as `live`, `catching_up` or `waiting`.
    #[schema(example = "live")]
    pub state: String,
    /// The position up to which the log is folded in.
    pub position: u64,
    /// Events in the log that are not folded in yet; left out where the event store does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_events: Option<u64>,
    /// How long the oldest of them has been waiting, in milliseconds.
    pub lag_ms: u64,
    /// Events that could not be applied and wait for somebody to deal with them.
    pub parked: u64,
    /// Events that were given up, and nobody has acknowledged it.
    pub discarded: u64,
    /// What went wrong last, if anything did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// The worst of the parts.
    status: Status,
    /// The parts.
    parts: Vec<Part>,
}

/// What `/livez` answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Alive {
    /// Always `ok`: a process that is not does not answer.
    status: Status,
}

/// What the system routes answer from.
#[derive(Clone)]
pub struct SystemServices {
    readiness: Arc<dyn Readiness>,
    metrics: Metrics,
}

impl SystemServices {
    /// System routes over these.
    pub fn new(readiness: Arc<dyn Readiness>, metrics: Metrics) -> Self {
        Self { readiness, metrics }
    }
}

/// The system routes' part of the OpenAPI document.
pub(crate) fn openapi_document() -> utoipa::openapi::OpenApi {
    SystemApiDoc::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(livez, readyz, prometheus, openapi_json, reference, error_page))]
struct SystemApiDoc;

struct SystemState {
    services: SystemServices,
    openapi_json: Bytes,
}

/// The system routes; `document` describes all routes of the process.
pub(crate) fn routes(services: SystemServices, document: &utoipa::openapi::OpenApi) -> Router {
    let state = SystemState {
        services,
        // A document made of strings, numbers and lists always serializes.
        openapi_json: Bytes::from(document.to_json().unwrap_or_default()),
    };
    Router::new()
        .route("/livez", get(livez))
        .route("/up", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(readyz))
        .route("/metrics", get(prometheus))
        .route("/openapi.json", get(openapi_json))
        .route("/docs", get(reference))
        .route("/docs/assets/{file}", get(asset))
        .route("/docs/errors/{code}", get(error_page))
        .with_state(Arc::new(state))
}

const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
const CACHED: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
const NOSNIFF: (HeaderName, HeaderValue) = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Pages load what they need from this server and nothing from anywhere else. The reference's program sets styles and
/// shows icons of its own.
const CSP: (HeaderName, HeaderValue) = (
    CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
);

/// Whether the process runs at all
///
/// `/up` is an alias.
#[utoipa::path(get, path = "/livez", tag = SYSTEM, operation_id = "alive", responses(
    (status = 200, description = "It runs.", body = Alive),
))]
async fn livez() -> Response {
    ([NO_STORE, NOSNIFF], Json(Alive { status: Status::Ok })).into_response()
}

/// Whether the process should get requests, and how each part is
///
/// `degraded` is answered with 200: everything works, and somebody should have a look, at parked events for instance.
/// `/health` is an alias.
#[utoipa::path(get, path = "/readyz", tag = SYSTEM, operation_id = "ready", responses(
    (status = 200, description = "It should.", body = Health),
    (status = 503, description = "A part is down.", body = Health, content_type = "application/json"),
))]
async fn readyz(State(state): State<Arc<SystemState>>) -> Response {
    let parts = state.services.readiness.parts().await;
    let status = parts.iter().map(|part| part.status).max().unwrap_or(Status::Ok);
    let code = if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = (code, [NO_STORE, NOSNIFF], Json(Health { status, parts })).into_response();
    response.extensions_mut().insert(crate::request_middleware::CustomErrorBody);
    response
}

/// Metrics in Prometheus' text form
#[utoipa::path(get, path = "/metrics", tag = SYSTEM, operation_id = "metrics", responses(
    (status = 200, description = "Every metric of the process.", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8"),
))]
async fn prometheus(State(state): State<Arc<SystemState>>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type), NO_STORE, NOSNIFF], state.services.metrics.render()).into_response()
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = SYSTEM, operation_id = "openapi", responses(
    (status = 200, description = "OpenAPI 3.1.", body = serde_json::Value),
))]
async fn openapi_json(State(state): State<Arc<SystemState>>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type), CACHED, NOSNIFF], state.openapi_json.clone()).into_response()
}

/// The reference, for people
#[utoipa::path(get, path = "/docs", tag = SYSTEM, operation_id = "reference", responses(
    (status = 200, description = "HTML that loads nothing from elsewhere.", body = String, content_type = "text/html; charset=utf-8"),
))]
async fn reference() -> Response {
    ([CACHED, NOSNIFF, CSP], Html(docs::REFERENCE_PAGE)).into_response()
}

async fn asset(Path(file): Path<String>) -> Result<Response, Problem> {
    let asset = docs::asset(&file).ok_or(ErrorCode::RouteNotFound)?;
    Ok(([(CONTENT_TYPE, asset.content_type), CACHED, NOSNIFF], asset.body).into_response())
}

/// What an error code means, and what to do
#[utoipa::path(get, path = "/docs/errors/{code}", tag = SYSTEM, operation_id = "errorPage",
    params(("code" = ErrorCode, Path, description = "The code.")),
    responses(
        (status = 200, description = "HTML that loads nothing from elsewhere.", body = String, content_type = "text/html; charset=utf-8"),
        (status = 404, description = "`route_not_found`: no error has this code.", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
async fn error_page(Path(code): Path<String>) -> Result<Response, Problem> {
    let unknown = || Problem::new(ErrorCode::RouteNotFound, "no error has this code");
    let code = ErrorCode::from_name(&code).ok_or_else(unknown)?;
    Ok(([CACHED, NOSNIFF, CSP], Html(docs::error_page(code))).into_response())
}
