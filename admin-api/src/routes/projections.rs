//! `/projections`

use axum::extract::State;
use axum::response::Response;
use chat_operations::answer::{Envelope, Finding};
use chat_operations::projections::ProjectionsError;
use chat_operations::projections::list::{Listed, list};
use chat_web::admin::Admin;
use chat_web::{Problem, openapi, problem_responses};

use serde::Serialize;

use super::answer;
use crate::AdminApi;

/// The generations, in their envelope.
#[derive(Serialize)]
#[serde(transparent)]
struct Listing(Vec<Listed>);

impl Finding for Listing {}

problem_responses!(pub(super) ListFails: AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// List projections
///
/// Every generation that this machine may have: what it is to readers, what its projector does, and by how much it trails
/// the log.
#[utoipa::path(
    get, path = "/projections", tag = openapi::PROJECTIONS, security(("admin" = [])),
    responses((status = 200, description = "The generations", body = Envelope<Vec<Listed>>), ListFails),
)]
pub(super) async fn list_projections(_: Admin, State(api): State<AdminApi>) -> Result<Response, Problem> {
    match list(&api.ports.projections).await {
        Ok(listed) => Ok(answer(Listing(listed))),
        Err(ProjectionsError::Log(error)) => Err(error.into()),
        Err(error) => Err(Problem::internal(error)),
    }
}
