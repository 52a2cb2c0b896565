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

/// All routes that change something, and their part of the OpenAPI document. Mount them under the API's prefix.
pub fn router(idempotency: CommandService) -> OpenApiRouter {
    routes().with_state(idempotency)
}

/// What [`router`] serves, for processes that do not: the document describes the whole API wherever it is asked for.
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

/// Gives every answer of these routes, refusals too, a `Consistency-Token`: what was decided on is visible from there
/// on. To be put around everything that may refuse a command.
pub fn with_consistency_tokens(routes: OpenApiRouter, handler: WriterHandle) -> OpenApiRouter {
    routes.layer(from_fn_with_state(handler, add_consistency_token))
}

async fn add_consistency_token(
    State(handler): State<WriterHandle>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let token = || ConsistencyToken(handler.observed_position()).into();
    response.headers_mut().entry(CONSISTENCY_TOKEN).or_insert_with(token);
    response
}

/// The answer to a command that leaves nothing to tell but that it was done.
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

/// 201, and where the new resource is: below the collection that the request went to.
fn created_response(
    collection: &OriginalUri,
    member: impl std::fmt::Display,
    outcome: &CommandOutcome,
    body: impl IntoResponse,
) -> Response {
    let location = format!("{}/{member}", collection.path().trim_end_matches('/'));
    let mut response =
        (StatusCode::CREATED, consistency_token_header(outcome.appended.position), body).into_response();
    if outcome.execution == ExecutionKind::Replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    // The path came as a URI, so it is a header value too.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
