//! The route that lists the generations of projections: `GET /projections`.

use axum::Json;
use axum::extract::State;
use chat_operations::envelope::Envelope;
use chat_operations::projections::ProjectionsError;
use chat_operations::projections::list::{GenerationList, list};
use chat_web::admin_auth::ReadingOperator;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;
use crate::api::{EnvelopeResult, envelope};

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new().routes(routes!(list_projections))
}

problem_responses!(pub(crate) ListProblems:
    AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// List projections
///
/// Every generation that was not dropped, with its state, the state of its projector, and its lag behind the log.
/// Search indexes are on the hosts that answer queries, and each host lists its own.
#[utoipa::path(
    get, path = "/admin/v1/projections", tag = openapi::PROJECTIONS, security(("admin" = [])),
    responses((status = 200, description = "The generations", body = Envelope<GenerationList>), ListProblems),
)]
pub(crate) async fn list_projections(
    _: ReadingOperator,
    State(api): State<AdminApi>,
) -> EnvelopeResult<GenerationList> {
    let generations =
        list(&api.projections).await.map_err(|error| match api.event_store.closed_because() {
            // The reason why a missing log takes no appends is also the reason why it can't be read.
            Some(reason) if matches!(error, ProjectionsError::EventStore(_)) => {
                Problem::new(ErrorCode::EventStoreUnavailable, reason).caused_by(error)
            }
            _ => projections_problem(error),
        })?;
    let Json(mut answer) = envelope(GenerationList { generations });
    answer.diagnostics.extend(api.projections.closed_log_warning());
    Ok(Json(answer))
}

/// Returns the problem that a client gets when projections can't be read.
pub(crate) fn projections_problem(error: ProjectionsError) -> Problem {
    match error {
        ProjectionsError::EventStore(error) => error.into(),
        error => Problem::from_code(ErrorCode::ReadModelUnavailable).caused_by(error),
    }
}
