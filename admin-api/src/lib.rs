//! The admin API under `/admin/v1`. Its responses have the same JSON as the command line with `-o json`.
//!
//! Each group of routes has a module ([`audit`], [`projections`], [`dead_letters`], [`events`]). The logic is in
//! `chat-operations`. All routes require the admin token, if one is set.

#![expect(
    unused_qualifications,
    reason = "utoipa's macro writes the types that it is given as qualified paths"
)]

mod api;
pub mod audit;
pub mod dead_letters;
pub mod events;
pub mod projections;
mod query_params;

pub use api::{AdminApi, AdminPorts, LiveReadModel};

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// All admin routes with their part of the OpenAPI document, to be mounted under the admin prefix.
pub fn router(api: AdminApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// The OpenAPI document of [`router`], for processes that do not serve these routes.
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
