//! Audit endpoints.

mod entities;
mod events;
mod filter;
mod stats;
mod tail;

use chat_operations::audit::ExplainError;
use chat_web::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;

/// About the most events scanned for one answer. Clients continue from there with another request.
pub(crate) const MAX_SCANNED_EVENTS: u64 = 200_000;

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new()
        .routes(routes!(events::list_events))
        .routes(routes!(events::show_event))
        .routes(routes!(events::trace_correlation))
        .routes(routes!(tail::tail_events))
        .routes(routes!(stats::count_events))
        .routes(routes!(events::explain_event))
        .routes(routes!(entities::explain_app))
        .routes(routes!(entities::explain_chat))
        .routes(routes!(entities::explain_message))
        .routes(routes!(entities::app_at))
        .routes(routes!(entities::chat_at))
        .routes(routes!(entities::message_at))
        .routes(routes!(entities::app_diff))
        .routes(routes!(entities::chat_diff))
        .routes(routes!(entities::message_diff))
}

fn explain_problem(error: ExplainError) -> Problem {
    match error {
        ExplainError::EventStore(error) => error.into(),
        ExplainError::ReadModel(error) => error.into(),
    }
}
