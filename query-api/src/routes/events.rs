//! The live feed: `GET /apps/{app_token}/events`, `GET /apps/{app_token}/chats/{chat_number}/events`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chat_domain::{Position, Revision, StreamId};
use chat_ports::event_store::{LogLineage, ReadStart, StreamRead};
use chat_web::consistency::{ConsistencyToken, Freshness, wait_preference};
use chat_web::extract::{AppPath, ChatPath, Query, malformed_parameter};
use chat_web::message_fields::SenderSchema;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use futures::future::BoxFuture;
use futures::stream;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::error;
use utoipa::{IntoParams, ToSchema};

use super::messages::parse_sender;
use crate::api::QueryContext;
use crate::live_feed::{
    Batch, FeedEvent, FeedEventType, FeedFilter, FollowError, Follower, Scope, Seat, last_chat,
};
use crate::response_position::ResponsePosition;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells nginx not to buffer the response.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

const EVENT_STREAM: &str = "text/event-stream";
const JSON: &str = "application/json";

/// How long a client waits before it reconnects to a server that has not stopped.
const RETRY_MILLIS: usize = 1_000;

/// How far the reconnects to other processes are spread when this one stops.
const STOPPING_RETRY_SPREAD_MILLIS: usize = 4_000;

/// The batches without an event for the client after which its cursor is moved while it catches up.
const BATCHES_PER_CURSOR: u32 = 16;

/// The pause before a failed read of the log is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest wait of a long poll.
const MAX_POLL: Duration = Duration::from_secs(30);

/// The bounds of a page. The last batch may exceed them.
const PAGE_EVENTS: usize = 500;
const PAGE_BYTES: usize = 1024 * 1024;

/// The most batches that are read for a page, if the filter leaves out most events.
const MAX_READS_OF_PAGE: u32 = 64;

/// The start of a feed, and the events in it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FeedParams {
    /// Begins with the first event after this cursor: the `id` of an event, a `next`, or a `Consistency-Token`. Without it,
    /// the feed begins at the present.
    after: Option<String>,
    /// The types of events, separated by commas, as `message.created,message.edited`. All by default.
    types: Option<String>,
    /// Only events of messages of the sender with this id, also their edits and deletions.
    #[param(min_length = 1, max_length = 128)]
    sender: Option<String>,
}

/// The headers of a feed.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only for the OpenAPI document: the handlers read the headers")]
pub(super) struct FeedHeaders {
    /// The `id` of the last received event, which browsers send when they reconnect. The feed continues after it, regardless
    /// of `after`.
    #[param(rename = "Last-Event-ID", value_type = Option<String>)]
    last_event_id: Option<String>,
    /// From an earlier response. The log must have reached it.
    #[param(rename = "Consistency-Token", value_type = Option<String>)]
    consistency_token: Option<String>,
    /// `wait=SECONDS`: a page as JSON, and how long it may wait for the first event, 30 at most. Without it, a response in
    /// JSON does not wait.
    #[param(rename = "Prefer", value_type = Option<String>)]
    prefer: Option<String>,
}

/// Events of a feed. This and the types below are only for the OpenAPI document: an event is encoded once for all clients.
#[derive(Serialize, ToSchema)]
pub(super) struct FeedPage {
    /// In the order of the log.
    events: Vec<FeedEventBody>,
    /// The cursor for the next request.
    #[schema(example = "v1-2a.1f9")]
    next: String,
}

/// An event of a feed.
#[derive(Serialize, ToSchema)]
#[schema(as = FeedEvent)]
pub(super) struct FeedEventBody {
    /// The cursor after this event. Also a `Consistency-Token`.
    #[schema(example = "v1-2a.1f9")]
    id: String,
    /// `message.created`, `message.edited`, `message.deleted`, `chat.created` or `app.renamed`. More types may be added.
    #[schema(example = "message.created")]
    event: String,
    data: FeedEventData,
}

/// The data of an event.
#[derive(Serialize, ToSchema)]
pub(super) struct FeedEventData {
    /// The chat of the message, or the created chat.
    #[schema(example = 1, minimum = 1, nullable = false)]
    chat_number: Option<u64>,
    /// The message.
    #[schema(example = 1, minimum = 1, nullable = false)]
    message_number: Option<u64>,
    /// The text of a created or edited message.
    #[schema(example = "The quick brown fox", nullable = false)]
    body: Option<String>,
    /// The sender of the message, if it has one.
    #[schema(value_type = SenderSchema, required = false)]
    sender: Option<()>,
    /// The application's data of a created message, if it has any. Of an edited one, if the edit changed them; `null` if it
    /// removed them.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
    /// The new name of a renamed app.
    #[schema(nullable = false)]
    name: Option<String>,
    /// The time of the event.
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    at: String,
}

problem_responses!(pub(super) FollowAppProblems:
    MalformedHeader, ConsistencyTokenUnknown, CursorUnknown, AppNotFound, EventStoreUnavailable);

problem_responses!(pub(super) FollowChatProblems:
    MalformedHeader, ConsistencyTokenUnknown, CursorUnknown, AppNotFound, ChatNotFound, EventStoreUnavailable);

/// Follow an app's events
///
/// The events of the app, its chats and all their messages, in the order of the log, as server-sent events. Each has an `id`:
/// a request with it as `Last-Event-ID` or `after` goes on after it, at any process, without a gap or a duplicate. A comment
/// every 15 seconds keeps the connection alive. With `Prefer: wait=SECONDS` or `Accept: application/json`, a page of
/// events as JSON; if there are none, the response waits for one, as `Prefer` says.
#[utoipa::path(
    get, path = "/apps/{app_token}/events", tag = openapi::EVENTS, params(AppPath, FeedParams, FeedHeaders),
    responses(
        (status = 200, description = "The events", content((FeedPage = "application/json"), (String = "text/event-stream"))),
        FollowAppProblems,
    ),
)]
pub(super) async fn follow_app(
    State(context): State<QueryContext>,
    State(lineage): State<Arc<LogLineage>>,
    path: AppPath,
    freshness: Freshness,
    Query(params): Query<FeedParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let scope = Scope::App(path.app_token);
    FeedRequest::parse(scope, &params, &headers, &lineage)?.follow(&context, freshness).await
}

/// Follow a chat's events
///
/// The events of the chat's messages, as for an app.
#[utoipa::path(
    get, path = "/apps/{app_token}/chats/{chat_number}/events", tag = openapi::EVENTS,
    params(ChatPath, FeedParams, FeedHeaders),
    responses(
        (status = 200, description = "The events", content((FeedPage = "application/json"), (String = "text/event-stream"))),
        FollowChatProblems,
    ),
)]
pub(super) async fn follow_chat(
    State(context): State<QueryContext>,
    State(lineage): State<Arc<LogLineage>>,
    path: ChatPath,
    freshness: Freshness,
    Query(params): Query<FeedParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let scope = Scope::Chat(path.app_token, path.chat_number);
    FeedRequest::parse(scope, &params, &headers, &lineage)?.follow(&context, freshness).await
}

/// A request for a feed.
struct FeedRequest {
    scope: Scope,
    /// `None` for the present.
    after: Option<Position>,
    filter: FeedFilter,
    form: FeedForm,
}

enum FeedForm {
    EventStream,
    /// A page, with the time to wait for its first event.
    Json(Duration),
}

impl FeedRequest {
    fn parse(
        scope: Scope,
        params: &FeedParams,
        headers: &HeaderMap,
        lineage: &LogLineage,
    ) -> Result<Self, Problem> {
        let after = params.after.as_deref().map(|after| {
            let token: Result<ConsistencyToken, _> = after.parse();
            token.map_err(|_| malformed_parameter("after", "the `id` of an event, unchanged"))
        });
        let (after, last_event_id) = (after.transpose()?, parse_last_event_id(headers)?);
        let cursor = last_event_id.or(after);
        let after = cursor.map(|cursor| cursor.position_in(lineage).ok_or(ErrorCode::CursorUnknown));
        let types = params.types.as_deref().map(|types| parse_types(scope, types));
        let sender = params.sender.clone().map(parse_sender).transpose()?;
        Ok(Self {
            scope,
            after: after.transpose()?,
            filter: FeedFilter { types: types.transpose()?.unwrap_or_default(), sender },
            form: preferred_form(headers),
        })
    }

    async fn follow(self, context: &QueryContext, freshness: Freshness) -> Result<Response, Problem> {
        let Self { scope, after, filter, form } = self;
        let shared = &context.shared;
        if let Some(position) = freshness.min_position {
            shared.log_head.require(position).await?;
        }
        require_existing(context, scope).await?;
        let after = match after {
            Some(after) => shared.log_head.require(after).await.map(|()| after).map_err(unknown_cursor)?,
            None => shared.log_head.read().await?,
        };
        let (follower, seat) = shared.live_feed.follow(scope, filter, after).await?;
        let feed = Feed { follower, seat };
        let (mut response, up_to) = match form {
            FeedForm::EventStream => (feed.into_event_stream(), after),
            FeedForm::Json(wait) => feed.into_page(wait).await?,
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(NO_BUFFERING.0, NO_BUFFERING.1);
        Ok((ResponsePosition::for_log(context, up_to), response).into_response())
    }
}

fn parse_last_event_id(headers: &HeaderMap) -> Result<Option<ConsistencyToken>, Problem> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(None) };
    let token = id.to_str().ok().and_then(|id| id.parse().ok());
    token.map(Some).ok_or_else(|| {
        Problem::new(ErrorCode::MalformedHeader, "`Last-Event-ID` must be the `id` of an event, unchanged")
    })
}

fn parse_types(scope: Scope, types: &str) -> Result<Vec<FeedEventType>, Problem> {
    let parse = |name: &str| {
        FeedEventType::of(scope).find(|known| known.name() == name.trim()).ok_or_else(|| {
            let names: Vec<_> = FeedEventType::of(scope).map(|known| format!("`{}`", known.name())).collect();
            malformed_parameter("types", &format!("one or more of {}, separated by commas", names.join(", ")))
        })
    };
    types.split(',').map(parse).collect()
}

/// The form that a client wants. With `Prefer: wait`, a client that does not name server-sent events gets JSON: generated
/// clients send no `Accept` of their own. A client that accepts neither form gets JSON too, as from other routes.
fn preferred_form(headers: &HeaderMap) -> FeedForm {
    let wait = wait_preference(headers);
    let accepted = AcceptedForms::parse(headers);
    if accepted.json > accepted.event_stream || (wait.is_some() && !accepted.names_event_stream) {
        FeedForm::Json(wait.unwrap_or_default().min(MAX_POLL))
    } else {
        FeedForm::EventStream
    }
}

/// The qualities that `Accept` gives to each form.
struct AcceptedForms {
    json: f32,
    event_stream: f32,
    names_event_stream: bool,
}

impl AcceptedForms {
    fn parse(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> =
            values.flat_map(|value| value.split(',')).filter_map(parse_media_range).collect();
        let quality_of =
            |range: &str| ranges.iter().find(|(name, _)| name == range).map(|(_, quality)| *quality);
        // The most specific range counts (RFC 9110, 12.5.1).
        let quality = |form: &str, group: &str| {
            quality_of(form).or_else(|| quality_of(group)).or_else(|| quality_of("*/*"))
        };
        let unnamed = if ranges.is_empty() { 1.0 } else { 0.0 };
        Self {
            // Above a form that is not accepted, unless JSON itself is refused.
            json: quality(JSON, "application/*").unwrap_or(f32::MIN_POSITIVE.max(unnamed)),
            event_stream: quality(EVENT_STREAM, "text/*").unwrap_or(unnamed),
            names_event_stream: quality_of(EVENT_STREAM).is_some_and(|quality| quality > 0.0),
        }
    }
}

/// Parses a media range of `Accept`: its name in lower case, and its quality.
fn parse_media_range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((name, quality.and_then(|quality| quality.parse().ok()).unwrap_or(1.0)))
}

fn unknown_cursor(problem: Problem) -> Problem {
    match problem.code() {
        ErrorCode::ConsistencyTokenUnknown => ErrorCode::CursorUnknown.into(),
        _ => problem,
    }
}

/// Refuses a scope that the log does not have.
async fn require_existing(context: &QueryContext, scope: Scope) -> Result<(), Problem> {
    let log = &*context.shared.event_store;
    if let Scope::Chat(app, chat) = scope
        && last_chat(log, app).await? >= chat.get()
    {
        return Ok(());
    }
    let app = StreamId::App(scope.app()).to_string();
    let first = StreamRead::all(app, ReadStart::Forwards(Revision::FIRST), 1);
    match (log.read_stream(first).await?.is_empty(), scope) {
        (true, _) => Err(ErrorCode::AppNotFound.into()),
        (false, Scope::Chat(..)) => Err(ErrorCode::ChatNotFound.into()),
        (false, Scope::App(_)) => Ok(()),
    }
}

/// A feed that is being sent to a client.
struct Feed {
    follower: Follower,
    seat: Seat,
}

impl Feed {
    /// The cursor after what was read so far.
    fn cursor(&self) -> ConsistencyToken {
        ConsistencyToken::new(self.seat.log_tag, self.follower.up_to())
    }

    /// Reads events in JSON until there is a page, or none within the time. Returns the response, and the position up to which
    /// events were read for its head.
    async fn into_page(mut self, wait: Duration) -> Result<(Response, Position), Problem> {
        let deadline = Instant::now() + wait;
        let mut page = Page::default();
        let is_complete = self.fill_page(&mut page).await?;
        let up_to = self.follower.up_to();
        if is_complete || page.count > 0 || wait.is_zero() {
            return Ok((json_response(Body::from(page.finish(self.cursor()))), up_to));
        }
        // The head of the response is sent at once: so it needs no slot while it waits, and the deadline of requests does not
        // apply.
        let rest = stream::once(async move { Ok::<_, Infallible>(self.wait_for_page(page, deadline).await) });
        Ok((json_response(Body::from_stream(rest)), up_to))
    }

    /// Fills the page with events that are there. Returns whether it is complete: also if the process stops while the log is
    /// read. Cancel safe.
    async fn fill_page(&mut self, page: &mut Page) -> Result<bool, Problem> {
        let mut reads = 0;
        while page.count < PAGE_EVENTS && page.json.len() < PAGE_BYTES && reads < MAX_READS_OF_PAGE {
            let batch = tokio::select! {
                biased;
                batch = self.follower.next_batch() => batch,
                () = self.seat.stopping.stopped() => return Ok(true),
            };
            match batch {
                Ok(Batch::Events(events)) => page.add(&events),
                Ok(Batch::CaughtUp) => return Ok(false),
                // The next request reads from the log.
                Err(FollowError::FallenBehind) => return Ok(true),
                Err(FollowError::Log(_)) if page.count > 0 => return Ok(true),
                Err(FollowError::Log(error)) => return Err(error.into()),
            }
            reads += 1;
        }
        Ok(true)
    }

    async fn wait_for_page(mut self, mut page: Page, deadline: Instant) -> String {
        loop {
            let is_over = tokio::select! {
                biased;
                () = self.seat.stopping.stopped() => true,
                () = self.follower.wait() => false,
                () = sleep_until(deadline) => true,
            };
            // The response can't become an error any more. The client finds out with its next request.
            let filled = timeout_at(deadline, self.fill_page(&mut page)).await;
            let is_complete = !matches!(filled, Ok(Ok(false)));
            if is_over || is_complete || page.count > 0 {
                return page.finish(self.cursor());
            }
        }
    }

    fn into_event_stream(self) -> Response {
        let retry = format!("retry: {RETRY_MILLIS}\nid: {}\n\n", self.cursor());
        let first = Bytes::from(retry);
        let Self { follower, seat } = self;
        let up_to = follower.up_to();
        let reader = Some(Reader::Idle(Box::new(follower)));
        let state = EventStream { seat, reader, up_to, first: Some(first), empty_batches: 0 };
        let chunks = stream::unfold(state, async |mut state| {
            let chunk = state.next().await?;
            Some((Ok::<_, Infallible>(chunk), state))
        });
        let content_type = [(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM))];
        (content_type, Body::from_stream(chunks)).into_response()
    }
}

fn json_response(body: Body) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(JSON))], body).into_response()
}

/// Counts events that are sent to a client.
fn count_sent(events: u64) {
    counter!("chat_feed_events_sent_total").increment(events);
}

/// A page in JSON.
#[derive(Default)]
struct Page {
    count: usize,
    /// The events, separated by commas.
    json: String,
}

impl Page {
    fn add(&mut self, events: &[Arc<FeedEvent>]) {
        for encoded in events.iter().filter_map(|event| event.encoded()) {
            if self.count > 0 {
                self.json.push(',');
            }
            encoded.write_json(&mut self.json);
            self.count += 1;
        }
    }

    fn finish(self, next: ConsistencyToken) -> String {
        count_sent(u64::try_from(self.count).unwrap_or(u64::MAX));
        format!(r#"{{"events":[{}],"next":"{next}"}}"#, self.json)
    }
}

/// Server-sent events of a feed.
struct EventStream {
    seat: Seat,
    /// `None` at the end of the stream.
    reader: Option<Reader>,
    /// All events of the scope up to this position were sent or left out.
    up_to: Position,
    first: Option<Bytes>,
    /// The batches since the last one with an event for the client, while it catches up.
    empty_batches: u32,
}

enum Reader {
    Idle(Box<Follower>),
    /// The follower reads its next batch. A heartbeat does not end that.
    Reading(BoxFuture<'static, (Box<Follower>, Result<Batch, FollowError>)>),
}

impl EventStream {
    /// Returns what is sent next; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let reader = self.reader.take()?;
            if self.seat.stopping.is_stopping() {
                return Some(self.end_at_stop());
            }
            let mut reading = match reader {
                Reader::Idle(follower) => Box::pin(follower.into_next_batch()),
                Reader::Reading(reading) => reading,
            };
            let (mut follower, batch) = tokio::select! {
                biased;
                () = self.seat.stopping.stopped() => return Some(self.end_at_stop()),
                read = &mut reading => read,
                () = self.seat.heartbeats.next() => {
                    self.reader = Some(Reader::Reading(reading));
                    return Some(self.heartbeat());
                }
            };
            self.up_to = follower.up_to();
            let pause = match batch {
                Ok(Batch::Events(events)) => {
                    self.reader = Some(Reader::Idle(follower));
                    let frames = Self::frames(&events);
                    if !frames.is_empty() {
                        self.empty_batches = 0;
                        return Some(frames);
                    }
                    self.empty_batches += 1;
                    if self.empty_batches.is_multiple_of(BATCHES_PER_CURSOR) {
                        return Some(self.cursor_frame());
                    }
                    continue;
                }
                Ok(Batch::CaughtUp) => None,
                Err(FollowError::Log(error)) if error.is_retryable() => Some(RETRY_PAUSE),
                Err(FollowError::FallenBehind) => {
                    counter!("chat_feed_closed_total", "reason" => "fallen_behind").increment(1);
                    return None;
                }
                Err(FollowError::Log(error)) => {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "a feed ends because the log can't be read"
                    );
                    counter!("chat_feed_closed_total", "reason" => "log_unreadable").increment(1);
                    return None;
                }
            };
            let changed = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => follower.wait().await,
                }
            };
            let is_heartbeat_due = tokio::select! {
                biased;
                () = self.seat.stopping.stopped() => false,
                () = changed => false,
                () = self.seat.heartbeats.next() => true,
            };
            self.reader = Some(Reader::Idle(follower));
            if is_heartbeat_due {
                return Some(self.heartbeat());
            }
        }
    }

    /// The cursor after what was sent or left out so far.
    fn cursor(&self) -> ConsistencyToken {
        ConsistencyToken::new(self.seat.log_tag, self.up_to)
    }

    fn frames(events: &[Arc<FeedEvent>]) -> Bytes {
        let encoded = events.iter().filter_map(|event| event.encoded());
        let frames: Vec<_> = encoded.map(|encoded| encoded.frame().clone()).collect();
        count_sent(u64::try_from(frames.len()).unwrap_or(u64::MAX));
        match &*frames {
            // Shared with other followers.
            [frame] => frame.clone(),
            frames => frames.concat().into(),
        }
    }

    /// Moves the client's cursor over events that the filter left out.
    fn cursor_frame(&self) -> Bytes {
        format!("id: {}\n\n", self.cursor()).into()
    }

    /// Keeps the connection alive, and moves the client's cursor.
    fn heartbeat(&self) -> Bytes {
        format!(":\nid: {}\n\n", self.cursor()).into()
    }

    /// The end of the stream because the process stops. The clients reconnect one after another.
    fn end_at_stop(&self) -> Bytes {
        counter!("chat_feed_closed_total", "reason" => "stopping").increment(1);
        // Multiples of a number without a common factor with the spread are spread evenly.
        let delay = RETRY_MILLIS + self.seat.number.wrapping_mul(1_237) % STOPPING_RETRY_SPREAD_MILLIS;
        format!("retry: {delay}\nid: {}\n\n", self.cursor()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gets_json(accept: Option<&'static str>, prefer: Option<&'static str>) -> bool {
        let accept = accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept)));
        let prefer =
            prefer.map(|prefer| (HeaderName::from_static("prefer"), HeaderValue::from_static(prefer)));
        matches!(preferred_form(&accept.into_iter().chain(prefer).collect()), FeedForm::Json(_))
    }

    #[test]
    fn a_client_gets_the_form_that_it_prefers() {
        let json = [
            "application/json",
            "application/json, */*;q=0.1",
            "text/event-stream;q=0.5, Application/JSON",
            "text/event-stream;q=0",
            "text/event-stream;q=0, */*",
            "text/html",
            "image/*, application/xml",
            "text/*;q=0.1, application/*",
        ];
        for accept in json {
            assert!(gets_json(Some(accept), None), "{accept}");
        }
        let event_streams = [
            "text/event-stream",
            "*/*",
            "",
            "text/*",
            "text/html, */*;q=0.8",
            "application/json, text/event-stream",
            "application/json;q=0",
        ];
        for accept in event_streams {
            assert!(!gets_json(Some(accept), None), "{accept}");
        }
        assert!(!gets_json(None, None));
    }

    #[test]
    fn a_client_that_wants_to_wait_gets_json_unless_it_names_server_sent_events() {
        for accept in
            [None, Some("*/*"), Some("text/*"), Some("application/json"), Some("text/event-stream;q=0")]
        {
            assert!(gets_json(accept, Some("wait=5")), "{accept:?}");
        }
        assert!(!gets_json(Some("text/event-stream"), Some("wait=5")));
        // Preferences that can't be parsed are ignored (RFC 7240), as by the other routes.
        for prefer in ["respond-async", "wait=1.5", "wait=-1", "wait=abc", "wait"] {
            assert!(!gets_json(None, Some(prefer)), "{prefer}");
        }
    }
}
