//! The route that checks whether all events can be decoded and none is missing: `GET /events/check`.

use axum::extract::State;
use chat_domain::Position;
use chat_operations::envelope::Envelope;
use chat_operations::events_check::{CheckOptions, EventsCheck, check};
use chat_web::admin_auth::ReadingOperator;
use chat_web::extract::Query;
use chat_web::{openapi, problem_responses};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;
use crate::api::{EnvelopeResult, MAX_SCANNED_EVENTS, envelope};
use crate::query_params::{parse_number, parse_position};

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new().routes(routes!(check_events))
}

/// The events to check.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckParams {
    /// Events after this position. Continue with the `position` of the answer until no events are left.
    #[param(value_type = Option<u64>)]
    after: Option<String>,
    /// The most findings to list, 1 to 1,000, besides the first loss of events. All findings are counted.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000, default = 100)]
    limit: Option<String>,
}

problem_responses!(pub(crate) CheckProblems:
    AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// Check events
///
/// Decodes about 200,000 events at most, and lists those that can't be read or decoded, and gaps where events are
/// missing.
/// `status` is `finding` if there are any.
#[utoipa::path(
    get, path = "/admin/v1/events/check", tag = openapi::AUDIT, params(CheckParams), security(("admin" = [])),
    responses((status = 200, description = "The findings", body = Envelope<EventsCheck>), CheckProblems),
)]
pub(crate) async fn check_events(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    Query(params): Query<CheckParams>,
) -> EnvelopeResult<EventsCheck> {
    let options = CheckOptions {
        after: parse_position("after", params.after.as_deref())?.unwrap_or(Position::START),
        max_findings: parse_number("limit", params.limit.as_deref(), 100, 1..=1_000)?,
        max_events: MAX_SCANNED_EVENTS,
    };
    let _permit = api.acquire_scan_permit().await?;
    Ok(envelope(check(&*api.event_store, options, |_scanned| {}).await?))
}
