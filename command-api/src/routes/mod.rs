//! The HTTP routes of commands.

mod apps;
mod chats;
mod message_fields;
mod messages;
mod problem;
mod responses;

use axum::extract::{FromRef, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse as _;
use chat_web::admin_auth::AdminAccess;
use chat_web::consistency::CONSISTENCY_TOKEN;
use chat_web::openapi;
use chat_web::problem::Problem;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::service::CommandService;

/// The state of the command routes.
#[derive(Clone)]
struct CommandApi {
    service: CommandService,
    app_creation: AdminAccess,
}

impl FromRef<CommandApi> for CommandService {
    fn from_ref(api: &CommandApi) -> Self {
        api.service.clone()
    }
}

impl FromRef<CommandApi> for AdminAccess {
    fn from_ref(api: &CommandApi) -> Self {
        api.app_creation.clone()
    }
}

/// All command routes and their part of the OpenAPI document. `app_creation` says who may create apps.
pub fn router(service: CommandService, app_creation: AdminAccess) -> OpenApiRouter {
    routes().with_state(CommandApi { service, app_creation })
}

/// The OpenAPI document of [`router`], for processes that do not serve its routes: every process documents the whole
/// API.
pub fn openapi_document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<CommandApi> {
    let mut routes = OpenApiRouter::new()
        .routes(routes!(apps::create_app))
        .routes(routes!(apps::rename_app))
        .routes(routes!(chats::create_chat))
        .routes(routes!(messages::create_message))
        .routes(routes!(messages::edit_message, messages::delete_message));
    openapi::add_success_header::<String>(
        routes.get_openapi_mut(),
        "Consistency-Token",
        "Send it with a query to see this change",
    );
    routes
}

/// Adds a layer that calls `refusal` before each command. If `refusal` returns a problem, that is the response: the
/// command is not executed, and no stored answer is returned.
///
/// Every other response gets a `Consistency-Token`, including errors: a reader at the token's position sees the state
/// that the decision was based on. Add all layers that may reject a request before this one.
pub fn with_refusal_and_tokens(
    routes: OpenApiRouter,
    service: CommandService,
    refusal: impl Fn() -> Option<Problem> + Clone + Send + Sync + 'static,
) -> OpenApiRouter {
    let layer = move |State(service): State<CommandService>, request: Request, next: Next| {
        let refusal = refusal();
        async move {
            if let Some(problem) = refusal {
                return problem.into_response();
            }
            let mut response = next.run(request).await;
            let token = || service.consistency_token(service.writer().observed_position()).into();
            response.headers_mut().entry(CONSISTENCY_TOKEN).or_insert_with(token);
            response
        }
    };
    routes.layer(from_fn_with_state(service, layer))
}
