//! The audit routes of events and traces: `GET /audit/events`, `/audit/events/{event}`,
//! `/audit/explain/events/{event}` and `/audit/traces/{correlation_id}`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chat_operations::audit::{
    EventEffects, EventPage, EventSelector, ListRequest, Order, ShownEvent, Trace, event_effects, find_event,
    list, show, trace,
};
use chat_operations::envelope::Envelope;
use chat_ports::event_store::RecordedEvent;
use chat_web::admin_auth::ReadingOperator;
use chat_web::cursor::{Cursor, ListId};
use chat_web::extract::Query;
use chat_web::pagination::{PageLinks, Relation, next_cursor_header};
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

use super::filter::FilterParams;
use crate::AdminApi;
use crate::api::{EnvelopeResult, MAX_SCANNED_EVENTS, envelope};
use crate::query_params::{malformed_parameter, parse_cursor, parse_number};

/// The order and size of a page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// `newest` or `oldest` first.
    #[param(default = "newest")]
    order: Option<String>,
    /// The most events on a page, 1 to 1,000.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000, default = 50)]
    limit: Option<String>,
    /// The start of the page: the `Next-Cursor` of the previous page, unchanged. It replaces `before` (newest first) or
    /// `after` (oldest first).
    cursor: Option<String>,
}

problem_responses!(pub(super) AuditProblems:
    AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);
problem_responses!(pub(super) EventProblems:
    AdminTokenMissing, AdminTokenWrong, EventNotFound, EventStoreUnavailable);

/// List events
///
/// The first page begins at an end of the log, or at a bound of the filter. To get the next page, pass `Next-Cursor` as
/// `cursor`, or `next` as `before` (newest first) or `after` (oldest first). One answer scans about 200,000 events at
/// most. So a page may have fewer events than its limit, or none, and still have a next page.
#[utoipa::path(
    get, path = "/admin/v1/audit/events", tag = openapi::AUDIT, params(FilterParams, PageParams), security(("admin" = [])),
    responses(
        (status = 200, description = "A page of events", body = Envelope<EventPage>, headers(
            ("Link" = String, description = "The `next` page, if there is one"),
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        AuditProblems,
    ),
)]
pub(super) async fn list_events(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    uri: Uri,
    Query(filter): Query<FilterParams>,
    Query(params): Query<PageParams>,
) -> Result<Response, Problem> {
    let (order, bound_parameter) = match params.order.as_deref() {
        None | Some("newest") => (Order::NewestFirst, "before"),
        Some("oldest") => (Order::OldestFirst, "after"),
        Some(_) => return Err(malformed_parameter("order", "`newest` or `oldest`")),
    };
    let limit = parse_number("limit", params.limit.as_deref(), 50, 1..=1_000)?;
    let list_id = event_list_id(order, &filter);
    let mut filter = filter.into_filter()?;
    if let Some(position) = parse_cursor(list_id, params.cursor.as_deref())? {
        match order {
            Order::NewestFirst => filter.before = Some(position),
            Order::OldestFirst => filter.after = Some(position),
        }
    }
    let request = ListRequest { filter, order, limit, max_scanned_events: MAX_SCANNED_EVENTS };
    let _permit = api.acquire_scan_permit().await?;
    let page = list(&*api.event_store, request).await?;
    let page_selectors = [bound_parameter, "cursor"];
    let mut links = PageLinks::new(&uri, &page_selectors);
    if let Some(next) = page.next {
        links.add(Relation::Next, bound_parameter, next, Cursor { list: list_id, key: [next.get()] });
    }
    Ok((links.into_headers(), envelope(page)).into_response())
}

/// Returns the list id of the events that match a filter, in an order.
fn event_list_id(order: Order, filter: &FilterParams) -> ListId {
    let order = match order {
        Order::NewestFirst => "newest",
        Order::OldestFirst => "oldest",
    };
    filter.restrict_list_id(ListId::new('e', format_args!("{order}")))
}

/// The path parameter of `/audit/events/{event}` and `/audit/explain/events/{event}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only for the OpenAPI document: `load_event` reads the path")]
pub(super) struct EventPath {
    /// The event's position in the log, or its id.
    #[param(example = "1")]
    event: String,
}

/// Show an event
///
/// The full event, its neighbours in the stream, and earlier and later events of its correlation.
#[utoipa::path(
    get, path = "/admin/v1/audit/events/{event}", tag = openapi::AUDIT, params(EventPath), security(("admin" = [])),
    responses((status = 200, description = "The event", body = Envelope<ShownEvent>), EventProblems),
)]
pub(super) async fn show_event(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    path: Result<Path<String>, PathRejection>,
) -> EnvelopeResult<ShownEvent> {
    let event = load_event(&api, path).await?;
    let _permit = api.acquire_scan_permit().await?;
    Ok(envelope(show(&*api.event_store, &event).await?))
}

/// Show the effects of an event
///
/// The rows and documents that it changed, the fields that it set, and those that no later event has set. If
/// projections can't apply it, the reason.
#[utoipa::path(
    get, path = "/admin/v1/audit/explain/events/{event}", tag = openapi::AUDIT, params(EventPath), security(("admin" = [])),
    responses((status = 200, description = "The effects", body = Envelope<EventEffects>), EventProblems),
)]
pub(super) async fn explain_event(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    path: Result<Path<String>, PathRejection>,
) -> EnvelopeResult<EventEffects> {
    let event = load_event(&api, path).await?;
    let _permit = api.acquire_scan_permit().await?;
    Ok(envelope(event_effects(&*api.event_store, &event).await?))
}

/// Loads the event of a path. A malformed path is answered like an event that does not exist.
async fn load_event(
    api: &AdminApi,
    path: Result<Path<String>, PathRejection>,
) -> Result<RecordedEvent, Problem> {
    let not_found = || Problem::from_code(ErrorCode::EventNotFound);
    let Path(text) = path.map_err(|_| not_found())?;
    let selector = EventSelector::parse(&text).ok_or_else(not_found)?;
    let _permit = api.acquire_scan_permit().await?;
    let event = find_event(&*api.event_store, selector, MAX_SCANNED_EVENTS).await?;
    event.ok_or_else(|| match selector {
        // An engine without contiguous positions has no index of ids either, so only the newest events were searched.
        EventSelector::Id(_) if !api.event_store.has_contiguous_positions() => Problem::new(
            ErrorCode::EventNotFound,
            "no event with this id is among the newest 200,000, the only ones that are searched here; use its position",
        ),
        EventSelector::Id(_) | EventSelector::Position(_) => not_found(),
    })
}

/// The path parameter of `/audit/traces/{correlation_id}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only for the OpenAPI document: the handler reads the path")]
pub(super) struct TracePath {
    /// The trace id of `traceparent`, or the `X-Request-Id` of a request.
    #[param(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    correlation_id: String,
}

/// The part of the log to scan.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TraceParams {
    /// The start of the part: the `Next-Cursor` of the previous part, unchanged. It replaces `after`.
    cursor: Option<String>,
}

/// Trace a correlation
///
/// The requests of a correlation across streams, and the events that each caused. If the scan did not reach the end of
/// the log, pass `Next-Cursor` as `cursor`, or `next` as `after`, to continue.
#[utoipa::path(
    get, path = "/admin/v1/audit/traces/{correlation_id}", tag = openapi::AUDIT, params(TracePath, FilterParams, TraceParams),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The trace; empty if no event belongs to it", body = Envelope<Trace>, headers(
            ("Next-Cursor" = String, description = "The `cursor` of the rest of the log, if the scan did not reach its end"),
        )),
        AuditProblems,
    ),
)]
pub(super) async fn trace_correlation(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    path: Result<Path<String>, PathRejection>,
    Query(filter): Query<FilterParams>,
    Query(params): Query<TraceParams>,
) -> Result<Response, Problem> {
    let Path(id) = path.map_err(|_| malformed_parameter("correlation_id", "text"))?;
    let list = trace_list_id(&id, &filter);
    let mut filter = filter.into_filter()?;
    filter.after = parse_cursor(list, params.cursor.as_deref())?.or(filter.after);
    let _permit = api.acquire_scan_permit().await?;
    let trace = trace(&*api.event_store, &id, filter, MAX_SCANNED_EVENTS).await?;
    let next_cursor = trace.next.and_then(|next| next_cursor_header(Cursor { list, key: [next.get()] }));
    Ok((next_cursor, envelope(trace)).into_response())
}

/// Returns the list id of the parts of a trace.
fn trace_list_id(correlation_id: &str, filter: &FilterParams) -> ListId {
    filter.restrict_list_id(ListId::new('t', format_args!("{correlation_id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> FilterParams {
        let uri = format!("/?{query}").parse().unwrap();
        axum::extract::Query::try_from_uri(&uri).unwrap().0
    }

    #[test]
    fn cursors_of_events_and_traces_stay_the_same_across_versions() {
        let all = "stream=a&app=b&chat=1&type=c&actor=d&address=e&correlation=f&since=1h&from=g&to=h&after=1&before=2&sender=i&text=j";
        for (list, cursor) in [
            (event_list_id(Order::NewestFirst, &filter("")), "e1-ec37f2eb"),
            (event_list_id(Order::OldestFirst, &filter("")), "e1-d8517ace"),
            (event_list_id(Order::NewestFirst, &filter("sender=u-17&text=fox")), "e1-d0898391"),
            (event_list_id(Order::NewestFirst, &filter(all)), "e1-4838cb76"),
            (trace_list_id("request", &filter("app=a")), "t1-83bc6e54"),
        ] {
            assert_eq!(Cursor { list, key: [1] }.to_string(), cursor);
        }
    }
}
