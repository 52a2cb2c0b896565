//! `/audit/events…`, `/audit/traces/{correlation_id}`, `/audit/stats`

use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse, Response};
use chat_infra::event_store::RecordedEvent;
use chat_operations::answer::Envelope;
use chat_operations::audit::{
    EventPage, ListRequest, Order, ShownEvent, Stats, Touched, Trace, WhichEvent, find, list, show, stats,
    touched, trace,
};
use chat_web::admin::Admin;
use chat_web::extract::Query;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use http::header::LINK;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{LOOK_AT_MOST, answer};
use crate::AdminApi;
use crate::query::{FilterParams, number, order};

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Events on a page, 1 to 1,000; 50 unless given.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000)]
    limit: Option<String>,
    /// `newest` (first, the default) or `oldest`.
    order: Option<String>,
}

problem_responses!(pub(super) ListFails:
    MalformedQuery, AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// List events
///
/// A page may hold fewer events than asked for, or none, and still be followed by another: at most 200,000 events of the
/// log are looked at for one page.
#[utoipa::path(
    get, path = "/audit/events", tag = openapi::AUDIT, params(FilterParams, PageParams),
    security(("admin" = [])),
    responses(
        (status = 200, description = "A page of events", body = Envelope<EventPage>, headers(
            ("Link" = String, description = "The `next` page, if there is one"),
        )),
        ListFails,
    ),
)]
pub(super) async fn list_events(
    _: Admin,
    State(api): State<AdminApi>,
    OriginalUri(uri): OriginalUri,
    Query(filter): Query<FilterParams>,
    Query(page): Query<PageParams>,
) -> Result<Response, Problem> {
    let order = order(page.order.as_deref())?;
    let limit = number("limit", page.limit.as_deref(), 50, 1_000)?;
    let request = ListRequest { filter: filter.parse()?, order, limit, look_at_most: LOOK_AT_MOST };
    let events = list(&*api.ports.event_store, request).await?;
    let place = match order {
        Order::NewestFirst => "before",
        Order::OldestFirst => "after",
    };
    let link = events.next.map(|next| {
        let pairs = uri.query().unwrap_or_default().split('&');
        let kept = pairs.filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(place));
        let query: String = kept.flat_map(|pair| [pair, "&"]).collect();
        format!("<{}?{query}{place}={next}>; rel=\"next\"", uri.path())
    });
    let link = link.map(|link| [(LINK, link)]);
    Ok(match link {
        Some(link) => (link, answer(events)).into_response(),
        None => answer(events),
    })
}

problem_responses!(pub(super) ShowFails: AdminTokenMissing, AdminTokenWrong, EventNotFound, EventStoreUnavailable);

/// Show an event
///
/// Whole, with its metadata, its neighbours in the stream, what led to it and what it led to.
#[utoipa::path(
    get, path = "/audit/events/{event}", tag = openapi::AUDIT,
    params(("event" = String, Path, description = "The event's position or its id", example = "1")),
    security(("admin" = [])),
    responses((status = 200, description = "The event", body = Envelope<ShownEvent>), ShowFails),
)]
pub(super) async fn show_event(
    _: Admin,
    State(api): State<AdminApi>,
    Path(event): Path<String>,
) -> Result<Response, Problem> {
    let event = the_event(&api, &event).await?;
    Ok(answer(show(&*api.ports.event_store, &event).await?))
}

/// Show what an event touches
///
/// The rows and documents that it creates, changes or takes away, and which of their fields no later event has set.
#[utoipa::path(
    get, path = "/audit/events/{event}/touches", tag = openapi::AUDIT,
    params(("event" = String, Path, description = "The event's position or its id", example = "1")),
    security(("admin" = [])),
    responses((status = 200, description = "What it touches", body = Envelope<Touched>), ShowFails),
)]
pub(super) async fn show_touches(
    _: Admin,
    State(api): State<AdminApi>,
    Path(event): Path<String>,
) -> Result<Response, Problem> {
    let event = the_event(&api, &event).await?;
    Ok(answer(touched(&*api.ports.event_store, &event).await?))
}

async fn the_event(api: &AdminApi, which: &str) -> Result<RecordedEvent, Problem> {
    let which = WhichEvent::parse(which).ok_or(ErrorCode::EventNotFound)?;
    let found = find(&*api.ports.event_store, which, LOOK_AT_MOST).await?;
    found.ok_or_else(|| ErrorCode::EventNotFound.into())
}

problem_responses!(pub(super) TraceFails:
    MalformedQuery, AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// Trace a request
///
/// All requests of one correlation, which is the trace id of `traceparent` or else the request's id, and the events that
/// each of them caused, across streams.
#[utoipa::path(
    get, path = "/audit/traces/{correlation_id}", tag = openapi::AUDIT,
    params(
        ("correlation_id" = String, Path, description = "As in an event's metadata, or in `X-Request-Id`"),
        FilterParams,
    ),
    security(("admin" = [])),
    responses((status = 200, description = "The trace", body = Envelope<Trace>), TraceFails),
)]
pub(super) async fn show_trace(
    _: Admin,
    State(api): State<AdminApi>,
    Path(correlation_id): Path<String>,
    Query(filter): Query<FilterParams>,
) -> Result<Response, Problem> {
    let filter = filter.parse()?;
    Ok(answer(trace(&*api.ports.event_store, &correlation_id, filter, LOOK_AT_MOST).await?))
}

/// How much of the statistics.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsParams {
    /// How many of each kind are named, 1 to 100; 10 unless given.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100)]
    most: Option<String>,
}

/// Count events
///
/// By type, app, actor and hour, and the streams that are biggest and grow fastest; of the newest 200,000 events.
#[utoipa::path(
    get, path = "/audit/stats", tag = openapi::AUDIT, params(FilterParams, StatsParams),
    security(("admin" = [])),
    responses((status = 200, description = "The counts", body = Envelope<Stats>), TraceFails),
)]
pub(super) async fn show_stats(
    _: Admin,
    State(api): State<AdminApi>,
    Query(filter): Query<FilterParams>,
    Query(params): Query<StatsParams>,
) -> Result<Response, Problem> {
    let most = number("most", params.most.as_deref(), 10, 100)?;
    let counted = stats(&*api.ports.event_store, filter.parse()?, most, LOOK_AT_MOST, |_| {});
    Ok(answer(counted.await?))
}
