//! `GET …/messages/{message_number}/history`

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use chat_domain::{Revision, Timestamp};
use chat_web::consistency::Freshness;
use chat_web::extract::{MessagePath, Query};
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::time;
use crate::api::QueryContext;
use crate::history::{self, HistoryEntry, HistoryError, MessageId};
use crate::pagination::{Cursor, Links, PageLimits, malformed_parameter};
use crate::response_position::ResponsePosition;

/// What became of a message.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageHistory {
    /// The message's number in its chat.
    #[schema(example = 1, minimum = 1)]
    message_number: u64,
    /// Oldest first.
    versions: Vec<MessageVersion>,
}

/// A message as one event left it.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageVersion {
    /// Its text; missing where the event is the deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Hi")]
    body: Option<String>,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    at: Timestamp,
    /// `MessageCreated`, `MessageEdited` or `MessageDeleted`.
    #[schema(example = "MessageCreated")]
    event: &'static str,
}

impl From<HistoryEntry> for MessageVersion {
    fn from(version: HistoryEntry) -> Self {
        Self { body: version.body, at: version.recorded_at, event: version.event_type }
    }
}

/// Which part of a history.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// Versions on a page, 1 to 100; 100 unless given.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// Where the page starts: taken from `Link`, as it is.
    cursor: Option<String>,
}

problem_responses!(pub(super) ShowHistoryFails:
    MalformedQuery, AppNotFound, ChatNotFound, MessageNotFound, EventStoreUnavailable);

/// Show what a message has said
///
/// Every version from the first on, read from the log itself: it is never behind. A deleted message keeps its history.
#[utoipa::path(
    get, path = "/apps/{app_token}/chats/{chat_number}/messages/{message_number}/history", tag = openapi::MESSAGES,
    params(MessagePath, HistoryParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "The versions, oldest first", body = MessageHistory, headers(
            ("Link" = String, description = "The `next` page, if there is one"),
            ("Consistency-Token" = String, description = "The last event that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Always 0"),
        )),
        ShowHistoryFails,
    ),
)]
pub(super) async fn show_history(
    State(api): State<QueryContext>,
    path: MessagePath,
    OriginalUri(uri): OriginalUri,
    // The log holds whatever a token can name.
    _: Freshness,
    Query(params): Query<HistoryParams>,
) -> Result<Response, Problem> {
    let limit = PageLimits::HISTORY.parse(params.limit.as_deref())?;
    let after = match params.cursor.as_deref() {
        Some(cursor) => Some(parse_cursor(&path, cursor)?),
        None => None,
    };
    let id = MessageId { app: path.app_token, chat: path.chat_number, number: path.message_number };
    let history = history::read_history(&*api.shared.event_store, id, after, limit).await.map_err(
        |error| match error {
            HistoryError::AppNotFound => ErrorCode::AppNotFound.into(),
            HistoryError::ChatNotFound => ErrorCode::ChatNotFound.into(),
            HistoryError::MessageNotFound => ErrorCode::MessageNotFound.into(),
            HistoryError::EventStore(error) => Problem::from(error),
        },
    )?;
    let mut links = Links::default();
    if let Some(next) = history.next_after {
        let cursor = Cursor { kind: 'h', key: [path.message_number.get(), next.get()] };
        links.add(&uri, "next", "cursor", cursor);
    }
    let versions = history.entries.into_iter().map(MessageVersion::from).collect();
    let body = MessageHistory { message_number: path.message_number.get(), versions };
    Ok((ResponsePosition::for_log(history.position), links.into_header(), Json(body)).into_response())
}

fn parse_cursor(path: &MessagePath, cursor: &str) -> Result<Revision, Problem> {
    let [number, revision] = Cursor::<2>::parse('h', cursor)?.key;
    // Revisions beyond this are beyond every log, and beyond what stores take.
    if number != path.message_number.get() || i64::try_from(revision).is_err() {
        return Err(malformed_parameter("cursor", "one that this server gave out for this list"));
    }
    Ok(Revision::new(revision))
}
