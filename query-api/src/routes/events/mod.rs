//! The live feed: `GET /apps/{app_token}/events`, `GET /apps/{app_token}/chats/{chat_number}/events`.

mod form;
mod page;
mod stream;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{Position, Revision, StreamId};
use chat_ports::event_store::{LogLineage, ReadStart, StreamRead};
use chat_web::consistency::{ConsistencyToken, Freshness};
use chat_web::extract::{AppPath, ChatPath, Query, malformed_parameter};
use chat_web::message_fields::SenderSchema;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use form::{FeedForm, preferred_form};

use super::messages::parse_sender;
use crate::api::QueryContext;
use crate::live_feed::{FeedEventType, FeedFilter, Scope, last_chat};
use crate::response_position::ResponsePosition;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells nginx not to buffer the response.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The query parameters of a feed: where it begins, and which events it has.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FeedParams {
    /// Begins with the first event after this cursor: the `id` of an event, a `next`, or a `Consistency-Token`. Without
    /// it, the feed begins at the present.
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
    /// The `id` of the last received event, which browsers send when they reconnect. The feed continues after it,
    /// regardless of `after`.
    #[param(rename = "Last-Event-ID", value_type = Option<String>)]
    last_event_id: Option<String>,
    /// From an earlier response. The log must have reached it.
    #[param(rename = "Consistency-Token", value_type = Option<String>)]
    consistency_token: Option<String>,
    /// `wait=SECONDS`: how long a page in JSON may wait for its first event, 30 seconds at most. Without this
    /// preference, a page does not wait. With it, the response is a page unless `Accept` names `text/event-stream`.
    #[param(rename = "Prefer", value_type = Option<String>)]
    prefer: Option<String>,
}

/// A page of a feed.
// This type and the two below are only for the OpenAPI document: an event is encoded once for all clients.
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
    /// `message.created`, `message.edited`, `message.deleted`, `chat.created` or `app.renamed`. More types may be
    /// added.
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
    /// The application's data of a created message, if it has any. For an edited message, the new data if the edit
    /// changed it, `null` if the edit removed it, and nothing if the edit kept it.
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
    MalformedHeader, ConsistencyTokenUnknown, CursorUnknown, AppNotFound, EventStoreUnavailable, StreamTruncated);

problem_responses!(pub(super) FollowChatProblems:
    MalformedHeader, ConsistencyTokenUnknown, CursorUnknown, AppNotFound, ChatNotFound, EventStoreUnavailable,
    StreamTruncated);

/// Follow an app's events
///
/// The events of the app, its chats and all their messages, in the order of the log, as server-sent events. Each event
/// has an `id`. A request with this `id` as `Last-Event-ID` or `after` goes on with the next event, at any process,
/// without a gap or a duplicate. A comment every 15 seconds keeps the connection alive.
///
/// With `Prefer: wait=SECONDS` or `Accept: application/json`, the response is a page of events as JSON. If there are no
/// events, it waits for one, as long as `Prefer` says.
#[utoipa::path(
    get, path = "/api/v1/apps/{app_token}/events", tag = openapi::EVENTS, params(AppPath, FeedParams, FeedHeaders),
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
    get, path = "/api/v1/apps/{app_token}/chats/{chat_number}/events", tag = openapi::EVENTS,
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
    /// `None` if the feed begins at the present.
    after: Option<Position>,
    filter: FeedFilter,
    form: FeedForm,
}

impl FeedRequest {
    fn parse(
        scope: Scope,
        params: &FeedParams,
        headers: &HeaderMap,
        lineage: &LogLineage,
    ) -> Result<Self, Problem> {
        let after = params.after.as_deref().map(|text| {
            let token: Result<ConsistencyToken, _> = text.parse();
            token.map_err(|_| malformed_parameter("after", "the `id` of an event, unchanged"))
        });
        let (after, last_event_id) = (after.transpose()?, parse_last_event_id(headers)?);
        let cursor = last_event_id.or(after);
        let position = cursor.map(|cursor| cursor.position_in(lineage).ok_or(ErrorCode::CursorUnknown));
        let types = params.types.as_deref().map(|types| parse_types(scope, types));
        let sender = params.sender.clone().map(parse_sender).transpose()?;
        Ok(Self {
            scope,
            after: position.transpose()?,
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
        require_scope(context, scope).await?;
        let after = match after {
            Some(after) => shared.log_head.require(after).await.map(|()| after).map_err(to_cursor_problem)?,
            None => shared.log_head.read().await?,
        };
        let (follower, permit) = shared.live_feed.follow(scope, filter, after).await?;
        let (mut response, up_to) = match form {
            FeedForm::EventStream => (stream::respond(follower, permit), after),
            FeedForm::Json(wait) => page::respond(follower, permit, wait, &shared.log_head).await?,
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
        FeedEventType::all_in(scope).find(|known| known.name() == name.trim()).ok_or_else(|| {
            let names: Vec<_> =
                FeedEventType::all_in(scope).map(|known| format!("`{}`", known.name())).collect();
            malformed_parameter("types", &format!("one or more of {}, separated by commas", names.join(", ")))
        })
    };
    types.split(',').map(parse).collect()
}

/// Reports an unknown consistency token as an unknown cursor. Returns other problems unchanged.
fn to_cursor_problem(problem: Problem) -> Problem {
    match problem.code() {
        ErrorCode::ConsistencyTokenUnknown => ErrorCode::CursorUnknown.into(),
        _ => problem,
    }
}

/// Refuses a scope whose app or chat does not exist in the log.
async fn require_scope(context: &QueryContext, scope: Scope) -> Result<(), Problem> {
    let log = &*context.shared.event_store;
    if let Scope::Chat(app, chat) = scope
        && last_chat(log, app).await? >= chat.get()
    {
        return Ok(());
    }
    let app = StreamId::App(scope.app()).to_string();
    let first = StreamRead::all(app, ReadStart::Forwards(Revision::FIRST), 1);
    let is_app_missing = log.read_stream(first).await?.is_empty();
    match (is_app_missing, scope) {
        (true, _) => Err(ErrorCode::AppNotFound.into()),
        (false, Scope::Chat(..)) => Err(ErrorCode::ChatNotFound.into()),
        (false, Scope::App(_)) => Ok(()),
    }
}
