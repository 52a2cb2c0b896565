//! Questions about the projections.

use axum::extract::State;
use chat_operations::envelope::{Envelope, Report};
use chat_operations::projections::ProjectionsError;
use chat_operations::projections::list::{Listed, list};
use chat_web::admin_auth::AuthorizedAdmin;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;
use crate::api::{EnvelopeResult, envelope};

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new().routes(routes!(list_projections))
}

/// The generations.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
pub(crate) struct Generations(Vec<Listed>);

impl Report for Generations {}

problem_responses!(pub(crate) ListFails:
    AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable, ReadModelUnavailable);

/// List projections
///
/// Every generation that was not dropped: what it is to readers, what its projector does, and by how much it trails the log.
/// A search index is on the hosts that answer queries: each tells of its own.
#[utoipa::path(
    get, path = "/projections", tag = openapi::PROJECTIONS, security(("admin" = [])),
    responses((status = 200, description = "The generations", body = Envelope<Generations>), ListFails),
)]
pub(crate) async fn list_projections(
    _: AuthorizedAdmin,
    State(api): State<AdminApi>,
) -> EnvelopeResult<Generations> {
    Ok(envelope(Generations(list(&api.projections).await.map_err(projections_problem)?)))
}

/// What a client reads where the projections can't be looked at.
pub(crate) fn projections_problem(error: ProjectionsError) -> Problem {
    match error {
        ProjectionsError::EventStore(error) => error.into(),
        error => Problem::from_code(ErrorCode::ReadModelUnavailable).caused_by(error),
    }
}
