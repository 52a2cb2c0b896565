//! The route that counts events: `GET /audit/stats`.

use axum::extract::State;
use chat_operations::audit::{Stats, stats};
use chat_operations::envelope::Envelope;
use chat_web::admin_auth::ReadingOperator;
use chat_web::extract::Query;
use chat_web::openapi;
use serde::Deserialize;
use utoipa::IntoParams;

use super::events::AuditProblems;
use super::filter::FilterParams;
use crate::AdminApi;
use crate::api::{EnvelopeResult, MAX_SCANNED_EVENTS, envelope};
use crate::query_params::parse_number;

/// The length of the lists.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsParams {
    /// The number of types, apps, actors and streams to list, 1 to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100, default = 10)]
    top: Option<String>,
}

/// Count events
///
/// By type, app, actor and hour, and the largest and fastest growing streams, among about the newest 200,000 events.
/// To continue, pass `next` as `before`.
#[utoipa::path(
    get, path = "/admin/v1/audit/stats", tag = openapi::AUDIT, params(FilterParams, StatsParams), security(("admin" = [])),
    responses((status = 200, description = "The counts", body = Envelope<Stats>), AuditProblems),
)]
pub(super) async fn count_events(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    Query(filter): Query<FilterParams>,
    Query(params): Query<StatsParams>,
) -> EnvelopeResult<Stats> {
    let top = parse_number("top", params.top.as_deref(), 10, 1..=100)?;
    let filter = filter.into_filter()?;
    let _permit = api.acquire_scan_permit().await?;
    Ok(envelope(stats(&*api.event_store, filter, top, MAX_SCANNED_EVENTS, |_scanned| {}).await?))
}
