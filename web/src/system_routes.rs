//! System routes, which every process serves: health, metrics, documentation.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::docs;
use crate::error_code::ErrorCode;
use crate::metrics::Metrics;
use crate::openapi::{self, SYSTEM};
use crate::problem::{Problem, ProblemBody};

/// Reports the health of the process's parts, for `/readyz`.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// Returns every part, always in the same order. Must return in well under a second, even while engines can't be
    /// reached.
    async fn parts(&self) -> Vec<Part>;
}

/// The status of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HealthStatus)]
pub enum Status {
    /// It works.
    Ok,
    /// It works, but an operator should check it.
    Degraded,
    /// It does not work: no requests should be sent to the process.
    Down,
}

/// A part of the process.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = HealthPart)]
pub struct Part {
    /// The part's name, such as `event_store`.
    #[schema(example = "read_model")]
    pub name: String,
    /// The part's status.
    pub status: Status,
    /// The reason for a status other than `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The projection's progress, if the part is a projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<Projection>,
}

/// The progress of a projection.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ProjectionProgress)]
pub struct Projection {
    /// The projector's state, such as `live`, `catching_up` or `waiting`.
    #[schema(example = "live")]
    pub state: String,
    /// The position up to which events are applied.
    pub position: u64,
    /// Events not applied yet. Omitted if positions do not count events (KurrentDB).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_events: Option<u64>,
    /// The age of the oldest event not applied yet, in milliseconds.
    pub lag_ms: u64,
    /// Dead letters: events that could not be applied and wait for an operator.
    #[serde(rename = "parked")]
    pub pending_dead_letters: u64,
    /// Discarded events that no operator has acknowledged.
    pub discarded: u64,
    /// The last error, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The response of `/readyz`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// The worst status of the parts.
    status: Status,
    /// The parts.
    parts: Vec<Part>,
}

/// The response of `/livez`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Liveness)]
pub(crate) struct Alive {
    /// Always `ok`: a process that is down does not respond.
    status: Status,
}

/// The services of the system routes.
#[derive(Clone)]
pub struct SystemServices {
    readiness: Arc<dyn Readiness>,
    /// `None` if another listener serves them.
    metrics: Option<Metrics>,
}

impl SystemServices {
    /// Creates the services of all system routes.
    pub fn new(readiness: Arc<dyn Readiness>, metrics: Metrics) -> Self {
        Self { readiness, metrics: Some(metrics) }
    }

    /// Removes the route of the metrics.
    #[must_use]
    pub fn without_metrics(self) -> Self {
        Self { metrics: None, ..self }
    }
}

/// Returns the OpenAPI document of the system routes.
pub(crate) fn openapi_document() -> utoipa::openapi::OpenApi {
    let mut document = SystemApiDoc::openapi();
    openapi::add_request_problems(&mut document);
    document
}

#[derive(OpenApi)]
#[openapi(paths(livez, readyz, prometheus, openapi_json, reference, try_page, error_index, error_page))]
struct SystemApiDoc;

/// The text of the OpenAPI document.
#[derive(Clone)]
pub(crate) struct OpenApiJson(Arc<LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>>);

impl OpenApiJson {
    /// Serializes `document` now.
    pub(crate) fn new(document: &utoipa::openapi::OpenApi) -> Self {
        let text = serialize(document);
        Self(Arc::new(LazyLock::new(Box::new(move || text))))
    }

    /// Makes and serializes the document at the first request for it.
    pub(crate) fn on_first_request(
        make_document: impl FnOnce() -> utoipa::openapi::OpenApi + Send + 'static,
    ) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(|| serialize(&make_document())))))
    }
}

fn serialize(document: &utoipa::openapi::OpenApi) -> Bytes {
    // A document of strings, numbers and lists always serializes, so the default is never used.
    let text = document.to_json().unwrap_or_default();
    // Without the spare capacity, which may be as large as the text.
    Bytes::from(text.into_boxed_str().into_boxed_bytes())
}

/// Creates the system routes. They serve `document`, which describes all routes.
pub(crate) fn routes(services: SystemServices, document: OpenApiJson) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/openapi.json", get(openapi_json))
        .route("/docs", get(reference))
        .route("/docs/try", get(try_page))
        .route("/docs/assets/{file}", get(asset))
        .route("/docs/errors", get(error_index))
        .route("/docs/errors/{code}", get(error_page))
        .with_state(document)
        .merge(health_and_metrics(services))
}

/// Creates the routes of health and metrics.
fn health_and_metrics(services: SystemServices) -> Router {
    let metrics_route = match services.metrics {
        Some(metrics) => Router::new().route("/metrics", get(prometheus)).with_state(metrics),
        None => Router::new(),
    };
    Router::new()
        .route("/livez", get(livez))
        .route("/up", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(readyz))
        .with_state(services.readiness)
        .merge(metrics_route)
}

const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
const CACHED: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
const NOSNIFF: (HeaderName, HeaderValue) = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Pages may load from this server only. Swagger UI sets inline styles and shows icons from `data:` URLs.
const CSP: (HeaderName, HeaderValue) = (
    CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
);

/// Redirects browsers to the reference. The path is not part of the API.
async fn root(headers: HeaderMap) -> Result<Redirect, Problem> {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.flat_map(|value| value.split(',')).any(|range| range.trim().starts_with("text/html")) {
        return Ok(Redirect::temporary("/docs"));
    }
    Err(Problem::new(
        ErrorCode::RouteNotFound,
        "nothing is served at this path, the API is described at /docs",
    ))
}

/// Liveness: whether the process runs
///
/// `/up` is an alias.
#[utoipa::path(get, path = "/livez", tag = SYSTEM, operation_id = "alive", responses(
    (status = 200, description = "The process runs.", body = Alive),
))]
async fn livez() -> Response {
    ([NO_STORE, NOSNIFF], Json(Alive { status: Status::Ok })).into_response()
}

/// Readiness: whether the process should get requests, and the status of each part
///
/// `degraded` is answered with 200: everything works, but an operator should check it, for example because of dead letters.
/// `/health` is an alias.
#[utoipa::path(get, path = "/readyz", tag = SYSTEM, operation_id = "ready", responses(
    (status = 200, description = "The process should get requests.", body = Health),
    (status = 503, description = "A part is down.", body = Health, content_type = "application/json"),
))]
async fn readyz(State(readiness): State<Arc<dyn Readiness>>) -> Response {
    let parts = readiness.parts().await;
    let status = parts.iter().map(|part| part.status).max().unwrap_or(Status::Ok);
    let code = if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = (code, [NO_STORE, NOSNIFF], Json(Health { status, parts })).into_response();
    response.extensions_mut().insert(crate::request_middleware::CustomErrorBody);
    response
}

/// Metrics in the Prometheus text format
///
/// For a scraper. Every process has its own metrics.
#[utoipa::path(get, path = "/metrics", tag = SYSTEM, operation_id = "metrics", responses(
    (status = 200, description = "Every metric of the process.", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8"),
))]
async fn prometheus(State(metrics): State<Metrics>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type), NO_STORE, NOSNIFF], metrics.render()).into_response()
}

/// This document
///
/// The whole API, also the routes that other processes of the deployment serve.
#[utoipa::path(get, path = "/openapi.json", tag = SYSTEM, operation_id = "openapi", responses(
    (status = 200, description = "OpenAPI 3.1.", body = serde_json::Value),
))]
async fn openapi_json(State(OpenApiJson(document)): State<OpenApiJson>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type), CACHED, NOSNIFF], Bytes::clone(&document)).into_response()
}

/// The API reference as a page
///
/// For people. Browsers are redirected here from `/`.
#[utoipa::path(get, path = "/docs", tag = SYSTEM, operation_id = "reference", responses(
    (status = 200, description = "HTML that loads nothing from other servers.", body = String, content_type = "text/html; charset=utf-8"),
))]
async fn reference() -> Response {
    ([CACHED, NOSNIFF, CSP], Html(docs::REFERENCE_PAGE)).into_response()
}

/// A chat in the browser, to try the API
///
/// For people. It creates apps, chats and messages, and follows them live.
#[utoipa::path(get, path = "/docs/try", tag = SYSTEM, operation_id = "try_page", responses(
    (status = 200, description = "HTML that loads nothing from other servers.", body = String, content_type = "text/html; charset=utf-8"),
))]
async fn try_page() -> Response {
    ([CACHED, NOSNIFF, CSP], Html(docs::TRY_PAGE)).into_response()
}

async fn asset(Path(file): Path<String>) -> Result<Response, Problem> {
    let asset = docs::asset(&file).ok_or(ErrorCode::RouteNotFound)?;
    Ok(([(CONTENT_TYPE, asset.content_type), CACHED, NOSNIFF], asset.body).into_response())
}

/// The error codes, with links to their pages
///
/// For people.
#[utoipa::path(get, path = "/docs/errors", tag = SYSTEM, operation_id = "error_index", responses(
    (status = 200, description = "HTML that loads nothing from other servers.", body = String, content_type = "text/html; charset=utf-8"),
))]
async fn error_index() -> Response {
    ([CACHED, NOSNIFF, CSP], Html(docs::error_index())).into_response()
}

/// The page of an error code: its meaning and what to do
///
/// For people. The `type` of a problem is the address of its page.
#[utoipa::path(get, path = "/docs/errors/{code}", tag = SYSTEM, operation_id = "error_page",
    params(("code" = ErrorCode, Path, description = "The code.")),
    responses(
        (status = 200, description = "HTML that loads nothing from other servers.", body = String, content_type = "text/html; charset=utf-8"),
        (status = 404, description = "`route_not_found`: no error has this code.", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
async fn error_page(Path(code): Path<String>) -> Result<Response, Problem> {
    let unknown = || Problem::new(ErrorCode::RouteNotFound, "no error has this code");
    let code = ErrorCode::from_name(&code).ok_or_else(unknown)?;
    Ok(([CACHED, NOSNIFF, CSP], Html(docs::error_page(code))).into_response())
}
