//! The route that lists the generations of projections: `GET /projections`.

use axum::extract::State;
use chat_operations::envelope::{Envelope, Report};
use chat_operations::projections::ProjectionsError;
use chat_operations::projections::list::{ListedGeneration, list};
use chat_web::admin_auth::ReadingOperator;
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
#[schema(as = ProjectionGenerations)]
pub(crate) struct Generations {
    /// Every generation that was not dropped.
    generations: Vec<ListedGeneration>,
}

impl Report for Generations {}

problem_responses!(pub(crate) ListFails:
    AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable, ReadModelUnavailable);

/// List projections
///
/// Every generation that was not dropped, with its state, the state of its projector, and its lag behind the log.
/// Search indexes are on the hosts that answer queries, and each host lists its own.
#[utoipa::path(
    get, path = "/projections", tag = openapi::PROJECTIONS, security(("admin" = [])),
    responses((status = 200, description = "The generations", body = Envelope<Generations>), ListFails),
)]
pub(crate) async fn list_projections(
    _: ReadingOperator,
    State(api): State<AdminApi>,
) -> EnvelopeResult<Generations> {
    let generations = list(&api.projections).await.map_err(projections_problem)?;
    Ok(envelope(Generations { generations }))
}

/// The problem that clients get when projections can't be read.
pub(crate) fn projections_problem(error: ProjectionsError) -> Problem {
    match error {
        ProjectionsError::EventStore(error) => error.into(),
        error => Problem::from_code(ErrorCode::ReadModelUnavailable).caused_by(error),
    }
}
