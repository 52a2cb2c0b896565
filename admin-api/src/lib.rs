//! What operators ask over HTTP, under `/admin/v1`: the same answers as the command line's `-o json`.
//!
//! Each noun has a module ([`audit`], [`projections`], [`dead_letters`], [`events`]); what its routes do is in `chat-operations`. All of them need the admin token.

#![expect(unused_qualifications, reason = "utoipa's macro repeats the types it is given as paths of its own")]

mod api;
pub mod audit;
pub mod dead_letters;
pub mod events;
pub mod projections;
mod query_params;

pub use api::{AdminApi, AdminPorts, LiveReadModel};

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// All admin routes, and their part of the OpenAPI document. Mount them under the admin prefix.
pub fn router(api: AdminApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// What [`router`] serves, for processes that do not.
pub fn openapi_document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new()
        .merge(audit::routes())
        .merge(projections::routes())
        .merge(dead_letters::routes())
        .merge(events::routes())
}
