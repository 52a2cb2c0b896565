//! Whether the events of the log can be read.

use axum::extract::State;
use chat_domain::Position;
use chat_operations::answer::Envelope;
use chat_operations::events_check::{Asked, Checked, check};
use chat_web::admin::Admin;
use chat_web::extract::Query;
use chat_web::{openapi, problem_responses};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;
use crate::api::{Answer, framed};
use crate::audit::LOOK_AT_MOST;
use crate::query::{number, position};

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new().routes(routes!(check_events))
}

/// What to check.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckParams {
    /// Events after this position; go on with the `position` of the answer until there is nothing more.
    #[param(value_type = Option<u64>)]
    after: Option<String>,
    /// Findings that are listed, 1 to 1,000; 100 unless given. All are counted.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000)]
    limit: Option<String>,
}

problem_responses!(pub(crate) CheckFails:
    MalformedQuery, AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// Check events
///
/// Reads events as today's code does, 200,000 at most, and lists those that it can't read. `status` is `finding` where
/// there are any.
#[utoipa::path(
    get, path = "/events/check", tag = openapi::AUDIT, params(CheckParams), security(("admin" = [])),
    responses((status = 200, description = "What was found", body = Envelope<Checked>), CheckFails),
)]
pub(crate) async fn check_events(
    _: Admin,
    State(api): State<AdminApi>,
    Query(params): Query<CheckParams>,
) -> Answer<Checked> {
    let asked = Asked {
        after: position("after", params.after.as_deref())?.unwrap_or(Position::START),
        limit: number("limit", params.limit.as_deref(), 100, (1, 1_000))?,
        look_at_most: LOOK_AT_MOST,
    };
    let _turn = api.turn().await?;
    Ok(framed(check(&*api.event_store, asked, |_| {}).await?))
}
