//! The admin API under `/admin/v1`. Reports have the same envelope as those of the command line with `-o json`.
//!
//! Each group of routes has a module ([`audit`], [`projections`], [`dead_letters`], [`events`], [`actions`], [`jobs`]).
//! The logic is in `chat-operations`. All routes require the token of an operator, unless the server's policy is
//! [`AdminAccess::Open`](chat_web::admin_auth::AdminAccess::Open).

#![expect(
    unused_qualifications,
    reason = "utoipa's macro writes the types that it is given as qualified paths"
)]

pub mod actions;
mod api;
pub mod audit;
pub mod dead_letters;
pub mod events;
pub mod jobs;
pub mod projections;
mod query_params;

pub use api::{AdminApi, AdminPorts, LiveReadModel};

use utoipa::openapi::{OpenApi, Ref, RefOr, Schema};
use utoipa_axum::router::OpenApiRouter;

/// All admin routes with their part of the OpenAPI document.
pub fn router(api: AdminApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// The OpenAPI document of [`router`], for processes that do not serve these routes.
pub fn openapi_document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<AdminApi> {
    let mut routes = OpenApiRouter::new()
        .merge(audit::routes())
        .merge(projections::routes())
        .merge(dead_letters::routes())
        .merge(events::routes())
        .merge(actions::routes())
        .merge(jobs::routes());
    refer_to_data_schemas(routes.get_openapi_mut());
    routes
}

/// Lets the schema of each envelope refer to the schema of the envelope's data. utoipa writes a copy of the data's
/// schema into each envelope.
fn refer_to_data_schemas(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let names: Vec<String> = components.schemas.keys().cloned().collect();
    for name in names {
        let Some(data) = name.strip_prefix("Envelope_") else { continue };
        if let Some(RefOr::Ref(_)) = components.schemas.get(data) {
            // The data is a transparent wrapper, whose schema only refers to the wrapped type. The envelope's copy
            // refers to the wrapped type too, so nothing needs the wrapper's schema.
            components.schemas.remove(data);
        } else if let Some(RefOr::T(Schema::Object(envelope))) = components.schemas.get_mut(&name) {
            envelope.properties.insert("data".to_owned(), Ref::from_schema_name(data).into());
        }
    }
}
