//! The routes.

#![expect(unused_qualifications, reason = "utoipa's macro repeats the types it is given as paths of its own")]

mod events;
mod projections;
mod subjects;
mod tail;

use axum::Json;
use axum::response::{IntoResponse, Response};
use chat_operations::answer::{Envelope, Finding};
use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;

/// Events that a question looks at, at most, before it answers with where to go on: nobody waits for a whole log.
const LOOK_AT_MOST: u64 = 200_000;

/// All admin routes, and their part of the OpenAPI document.
pub fn router(api: AdminApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// What [`router`] serves, for processes that do not: the document describes the whole API wherever it is asked for.
pub fn document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new()
        .routes(routes!(events::list_events))
        .routes(routes!(events::show_event))
        .routes(routes!(events::show_touches))
        .routes(routes!(events::show_trace))
        .routes(routes!(events::show_stats))
        .routes(routes!(tail::follow_events))
        .routes(routes!(subjects::explain_app))
        .routes(routes!(subjects::explain_chat))
        .routes(routes!(subjects::explain_message))
        .routes(routes!(subjects::app_then))
        .routes(routes!(subjects::chat_then))
        .routes(routes!(subjects::message_then))
        .routes(routes!(subjects::app_difference))
        .routes(routes!(subjects::chat_difference))
        .routes(routes!(subjects::message_difference))
        .routes(routes!(projections::list_projections))
}

/// An answer in its envelope.
fn answer<T: Finding + Serialize>(data: T) -> Response {
    Json(Envelope::of(data)).into_response()
}
