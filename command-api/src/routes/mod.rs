//! The HTTP routes of commands.

mod apps;
mod chats;
mod messages;
mod problem;

use axum::extract::{OriginalUri, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use chat_domain::Position;
use chat_web::consistency::{CONSISTENCY_TOKEN, ConsistencyToken};
use chat_web::extract::IDEMPOTENCY_REPLAYED;
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::command::{CommandOutcome, ExecutionKind};
use crate::service::CommandService;
use crate::writer::WriterHandle;

/// All command routes and their part of the OpenAPI document. Mount them under the API's prefix.
pub fn router(service: CommandService) -> OpenApiRouter {
    routes().with_state(service)
}

/// The OpenAPI document of [`router`], for processes that do not serve it: every process documents the whole API.
pub fn openapi_document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<CommandService> {
    OpenApiRouter::new()
        .routes(routes!(apps::create_app))
        .routes(routes!(apps::rename_app))
        .routes(routes!(chats::create_chat))
        .routes(routes!(messages::create_message))
        .routes(routes!(messages::edit_message, messages::delete_message))
}

/// Adds a `Consistency-Token` to every response of these routes, including errors: at its position, a reader sees the state
/// that the decision was based on. Apply it outside of every layer that may reject a request.
pub fn with_consistency_tokens(routes: OpenApiRouter, writer: WriterHandle) -> OpenApiRouter {
    routes.layer(from_fn_with_state(writer, add_consistency_token))
}

async fn add_consistency_token(State(writer): State<WriterHandle>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let token = || ConsistencyToken(writer.observed_position()).into();
    response.headers_mut().entry(CONSISTENCY_TOKEN).or_insert_with(token);
    response
}

/// The response to a command that has no result but its success.
#[derive(Serialize, ToSchema)]
struct Done {
    #[schema(example = "success")]
    status: &'static str,
    message: &'static str,
}

impl Done {
    fn new(message: &'static str) -> Self {
        Self { status: "success", message }
    }
}

type HeaderPairs<const N: usize> = [(HeaderName, HeaderValue); N];

fn consistency_token_header(position: Position) -> HeaderPairs<1> {
    [(CONSISTENCY_TOKEN, ConsistencyToken(position).into())]
}

/// A 201 response, with the location of the new resource below the collection that the request named.
fn created_response(
    collection: &OriginalUri,
    member: impl std::fmt::Display,
    outcome: &CommandOutcome,
    body: impl IntoResponse,
) -> Response {
    let location = format!("{}/{member}", collection.path().trim_end_matches('/'));
    let mut response =
        (StatusCode::CREATED, consistency_token_header(outcome.position), body).into_response();
    if outcome.execution == ExecutionKind::Replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    // The path was parsed from a URI, so it is a valid header value.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
