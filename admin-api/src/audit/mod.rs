//! The audit routes: events, traces, counts, tails, and the histories of apps, chats and messages.

mod events;
mod filter;
mod stats;
mod subjects;
mod tail;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new()
        .routes(routes!(events::list_events))
        .routes(routes!(events::show_event))
        .routes(routes!(events::trace_correlation))
        .routes(routes!(tail::tail_events))
        .routes(routes!(stats::count_events))
        .routes(routes!(events::explain_event))
        .routes(routes!(subjects::explain_app))
        .routes(routes!(subjects::explain_chat))
        .routes(routes!(subjects::explain_message))
        .routes(routes!(subjects::app_at))
        .routes(routes!(subjects::chat_at))
        .routes(routes!(subjects::message_at))
        .routes(routes!(subjects::app_diff))
        .routes(routes!(subjects::chat_diff))
        .routes(routes!(subjects::message_diff))
}
