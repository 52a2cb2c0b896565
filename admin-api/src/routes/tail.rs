//! `/audit/tail`: the log as it grows, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chat_domain::Position;
use chat_operations::audit::{AuditedEvent, Tail};
use chat_web::admin::Admin;
use chat_web::extract::Query;
use chat_web::{Problem, openapi, problem_responses};
use futures::stream::unfold;
use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

use crate::AdminApi;
use crate::query::{FilterParams, malformed};

/// What a client that lost its connection sends when it comes back: the id of the last event that it saw.
const LAST_EVENT_ID: &str = "last-event-id";

/// After so much silence a comment is sent, so that proxies and clients know that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events from before that a tail may begin with.
const MOST_BEFORE: usize = 1_000;

/// Where a tail begins.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TailParams {
    /// Begin with so many events from before, 0 to 1,000; none unless given. `after` and `Last-Event-ID` say where to go
    /// on instead.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 1_000)]
    last: Option<String>,
}

problem_responses!(pub(super) TailFails:
    MalformedQuery, AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// Follow the log
///
/// Server-sent events: each has the event's position as its `id`, `event` as its type, and as its `data` the same JSON as
/// in a list. A client that comes back with `Last-Event-ID` goes on after that position, without a gap or a double.
#[utoipa::path(
    get, path = "/audit/tail", tag = openapi::AUDIT,
    params(
        FilterParams,
        TailParams,
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on after the event at this position"),
    ),
    security(("admin" = [])),
    responses((status = 200, description = "Events as they come", body = String, content_type = "text/event-stream"), TailFails),
)]
pub(super) async fn follow_events(
    _: Admin,
    State(api): State<AdminApi>,
    headers: HeaderMap,
    Query(filter): Query<FilterParams>,
    Query(params): Query<TailParams>,
) -> Result<Response, Problem> {
    let mut filter = filter.parse()?;
    let seen = headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok().and_then(|id| id.parse().ok()));
    let seen = match seen {
        Some(None) => return Err(malformed("Last-Event-ID", "the id of an event that this route sent")),
        Some(Some(position)) => Some(Position::new(position)),
        None => filter.after,
    };
    let last = match params.last.as_deref() {
        None => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|last| *last <= MOST_BEFORE)
            .ok_or_else(|| malformed("last", &format!("a number from 0 to {MOST_BEFORE}")))?,
    };
    let place = api.follow()?;
    let log = Arc::clone(&api.ports.event_store);
    let (before, tail) = match seen {
        Some(position) => {
            filter.after = None;
            (Vec::new(), Tail::from(log, filter, position))
        }
        None => Tail::after_the_last(log, filter, last).await?,
    };
    let following =
        Following { due: before.into(), tail, stopping: api.ports.stopping.clone(), _place: place };
    let events = unfold(following, Following::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

struct Following {
    due: VecDeque<AuditedEvent>,
    tail: Tail,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// The next event; `None` where the process stops or the log can't be read any more: the client comes back.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while self.due.is_empty() {
            let news = tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                news = self.tail.next() => news,
            };
            self.due = news.ok()?.events.into();
        }
        let event = self.due.pop_front()?;
        let sent = Event::default().event("event").id(event.position.to_string()).json_data(&event).ok()?;
        Some((Ok(sent), self))
    }
}
