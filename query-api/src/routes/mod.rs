//! The HTTP routes of the query API.

#![expect(unused_qualifications, reason = "utoipa's macro expands types to qualified paths")]
#![expect(clippy::struct_field_names, reason = "fields have the names of the wire format")]

mod apps;
mod chats;
mod events;
mod history;
mod json;
mod messages;
mod search;

use chat_web::openapi;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::QueryApi;

/// Creates the query routes with their OpenAPI document.
pub fn router(api: QueryApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// Returns the OpenAPI document of [`router`], for processes that do not serve these routes.
pub fn openapi_document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<QueryApi> {
    let mut routes = OpenApiRouter::new()
        .routes(routes!(apps::list_apps))
        .routes(routes!(apps::show_app))
        .routes(routes!(chats::list_chats))
        .routes(routes!(chats::show_chat))
        .routes(routes!(messages::list_messages))
        .routes(routes!(messages::show_message))
        .routes(routes!(history::show_history))
        .routes(routes!(events::follow_app))
        .routes(routes!(events::follow_chat))
        .routes(routes!(search::search_chat, search::search_chat_by_url))
        .routes(routes!(search::search_app, search::search_app_by_url));
    let document = routes.get_openapi_mut();
    openapi::add_success_header::<String>(document, "Consistency-Token", "The position of the snapshot");
    openapi::add_success_header::<u64>(
        document,
        "Read-Model-Lag",
        "Milliseconds that the snapshot is behind the log",
    );
    routes
}
