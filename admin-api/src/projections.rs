//! The route that lists the generations of projections: `GET /projections`.

use axum::Json;
use axum::extract::State;
use chat_operations::envelope::Envelope;
use chat_operations::operator_actions::closed_log_warning;
use chat_operations::projections::ProjectionsError;
use chat_operations::projections::list::{GenerationList, list};
use chat_ports::event_store::EventStore;
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
    let log = &*api.projections.log;
    let generations = list(&api.projections).await.map_err(|error| read_problem(log, error))?;
    let Json(mut answer) = envelope(GenerationList { generations });
    answer.diagnostics.extend(closed_log_warning(log));
    Ok(Json(answer))
}

/// Returns the problem that a client gets when the projections of a log can't be read.
pub(crate) fn read_problem(log: &dyn EventStore, error: ProjectionsError) -> Problem {
    match log.closed_because() {
        // The reason why a missing log takes no appends is also the reason why it can't be read.
        Some(reason) if matches!(error, ProjectionsError::EventStore(_)) => {
            Problem::new(ErrorCode::EventStoreUnavailable, reason).caused_by(error)
        }
        _ => projections_problem(error),
    }
}

/// Returns the problem for an error of a projection command.
pub(crate) fn projections_problem(error: ProjectionsError) -> Problem {
    match error {
        ProjectionsError::EventStore(error) => error.into(),
        error => Problem::from_code(ErrorCode::ReadModelUnavailable).caused_by(error),
    }
}
