//! `GET /audit/tail`: the log as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use chat_domain::Position;
use chat_operations::audit::{AuditedEvent, Tail, TailBatch};
use chat_web::admin_auth::ReadingOperator;
use chat_web::extract::Query;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use futures::Stream;
use futures::stream;
use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::filter::FilterParams;
use crate::AdminApi;
use crate::api::{MAX_SCANNED_EVENTS, StreamAccess};
use crate::query_params::parse_number;

/// The longest silence of a tail. After it, a comment is sent, for two reasons: proxies may close idle connections; and
/// a client that closed its sending side may still read, so only sending something shows whether the client is gone.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// The start of a tail.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TailParams {
    /// The number of past events to begin with, 0 to 1,000, searched for among about the newest 200,000. Ignored with
    /// `after`.
    #[param(value_type = Option<u64>, maximum = 1_000, default = 0)]
    last: Option<String>,
}

/// The event after which a client resumes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only for the OpenAPI document: `parse_last_event_id` reads the header")]
pub(super) struct LastEventId {
    /// The `id` of the last received event. The tail continues after it, regardless of `last` and `after`. Browsers
    /// send it automatically.
    #[param(rename = "Last-Event-ID", value_type = Option<u64>)]
    last_event_id: Option<String>,
}

problem_responses!(pub(super) TailProblems:
    MalformedHeader, AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// Follow the log
///
/// Server-sent events: the `id` is a position, the `data` an event of the log as JSON. After 5 seconds of silence, a
/// comment is sent, with the position up to which the log was read as its `id`. The tail goes on after an outage of the
/// log. It ends when the server stops, when the log is damaged, or when the operator's token is withdrawn. A request
/// with `Last-Event-ID` resumes it. At most 64 tails and streams of jobs run at a time.
#[utoipa::path(
    get, path = "/admin/v1/audit/tail", tag = openapi::AUDIT, params(FilterParams, TailParams, LastEventId),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        TailProblems,
    ),
)]
pub(super) async fn tail_events(
    ReadingOperator(operator): ReadingOperator,
    State(api): State<AdminApi>,
    Query(filter): Query<FilterParams>,
    Query(params): Query<TailParams>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = parse_number("last", params.last.as_deref(), 0, 0..=1_000)?;
    let filter = filter.into_filter()?;
    let after = parse_last_event_id(&headers)?.or(filter.after);
    let permit = Arc::clone(&api.tail_permits).try_acquire_owned();
    let permit = permit.map_err(|error| Problem::from_code(ErrorCode::Overloaded).caused_by(error))?;
    let (past_events, tail) = if let Some(after) = after {
        (Vec::new(), Tail::start_after(Arc::clone(&api.event_store), filter, after))
    } else {
        let _permit = api.acquire_scan_permit().await?;
        Tail::start_at_end(Arc::clone(&api.event_store), filter, last, MAX_SCANNED_EVENTS).await?
    };
    let tail_stream = TailStream {
        tail,
        access: api.stream_access(operator),
        pending: past_events.iter().filter_map(to_sse_event).collect(),
        keep_alive_due: Instant::now() + KEEP_ALIVE_INTERVAL,
        shutdown: api.shutdown,
        _permit: permit,
    };
    Ok(Sse::new(stream::unfold(tail_stream, TailStream::next)))
}

fn parse_last_event_id(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let position = id.to_str().ok().and_then(|id| Position::parse(id).ok());
    position.map(Some).ok_or_else(|| {
        Problem::new(ErrorCode::MalformedHeader, "`Last-Event-ID` must be the `id` of an event of this tail")
    })
}

/// A tail that is being sent to a client.
struct TailStream {
    tail: Tail,
    access: StreamAccess,
    /// Events and comments that are not sent yet.
    pending: VecDeque<Event>,
    /// When a comment is sent, unless an event is sent earlier.
    keep_alive_due: Instant,
    shutdown: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl TailStream {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                if self.access.is_withdrawn() {
                    return None;
                }
                self.keep_alive_due = Instant::now() + KEEP_ALIVE_INTERVAL;
                return Some((Ok(event), self));
            }
            let batch = tokio::select! {
                biased;
                // An error means that the sender was dropped, so the process is ending.
                _ = self.shutdown.wait_for(|stopping| *stopping) => return None,
                batch = timeout_at(self.keep_alive_due, self.tail.next_batch()) => batch,
            };
            match batch {
                Ok(Ok(TailBatch { events, .. })) => {
                    self.pending.extend(events.iter().filter_map(to_sse_event));
                }
                Ok(Err(error)) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the tail ends because the log can't be read"
                    );
                    return None;
                }
                Err(_) => {
                    let up_to = self.tail.up_to().to_string();
                    self.pending.push_back(Event::default().comment("still here").id(up_to));
                }
            }
        }
    }
}

fn to_sse_event(event: &AuditedEvent) -> Option<Event> {
    // An event of the log always serializes: its payload is JSON or base64.
    let data = serde_json::to_string(event).ok()?;
    Some(Event::default().id(event.position.to_string()).data(data))
}
