//! History query: `GET …/messages/{message_number}/history`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{MessageData, Revision, Sender, Timestamp};
use chat_web::consistency::Freshness;
use chat_web::cursor::{Cursor, ListId, invalid_cursor};
use chat_web::extract::{MessagePath, Query};
use chat_web::message_fields::{MessageDataSchema, SenderSchema};
use chat_web::pagination::{PageLinks, Relation};
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::serialize_rfc3339;
use crate::api::QueryContext;
use crate::message_history::{HistoryCursor, HistoryEntry, HistoryError, MessageId, read_history};
use crate::pagination::{PAGE_SELECTORS, PageLimits};
use crate::response_position::ResponsePosition;

/// The history of a message.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageHistory {
    /// The message's number in its chat.
    #[schema(example = 1, minimum = 1)]
    message_number: u64,
    /// The message's versions, oldest first.
    versions: Vec<MessageVersion>,
}

/// A version of a message: its state after one event.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageVersion {
    /// The message's text. Omitted if the event is the deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "The quick brown fox", nullable = false)]
    body: Option<String>,
    /// The sender, if the application named one. Omitted if the event is the deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SenderSchema, required = false)]
    sender: Option<Sender>,
    /// The application's data after the event, if there is any. Omitted if the event is the deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = MessageDataSchema, required = false)]
    data: Option<MessageData>,
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    at: Timestamp,
    /// `MessageCreated`, `MessageEdited` or `MessageDeleted`.
    #[schema(example = "MessageCreated")]
    event: &'static str,
}

impl From<HistoryEntry> for MessageVersion {
    fn from(version: HistoryEntry) -> Self {
        Self {
            body: version.body,
            sender: version.sender,
            data: version.data,
            at: version.recorded_at,
            event: version.event_type,
        }
    }
}

/// The query parameters that select a page of a history.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// The number of versions on the page, 1 to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100, default = 100)]
    limit: Option<String>,
    /// The start of the page: the `Next-Cursor` of the previous page, unchanged.
    cursor: Option<String>,
}

problem_responses!(pub(super) ShowHistoryProblems:
    MalformedHeader, ConsistencyTokenUnknown, AppNotFound, ChatNotFound, MessageNotFound, EventStoreUnavailable, StreamTruncated);

/// Show a message's history
///
/// Every version since the creation, read from the log itself, so it is never stale. A deleted message keeps its
/// history.
#[utoipa::path(
    get, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages/{message_number}/history", tag = openapi::MESSAGES,
    params(MessagePath, HistoryParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "The versions, oldest first", body = MessageHistory, headers(
            ("Link" = String, description = "The `next` page, if there is one"),
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
            ("Consistency-Token" = String, description = "The position of the last event that was read for the response"),
            ("Read-Model-Lag" = u64, description = "Always 0"),
        )),
        ShowHistoryProblems,
    ),
)]
pub(super) async fn show_history(
    State(context): State<QueryContext>,
    path: MessagePath,
    uri: Uri,
    freshness: Freshness,
    Query(params): Query<HistoryParams>,
) -> Result<Response, Problem> {
    let limit = PageLimits::HISTORY.parse(params.limit.as_deref())?;
    let cursor = params.cursor.map(|text| parse_cursor(&path, &text)).transpose()?;
    if let Some(position) = freshness.min_position {
        // No wait is needed: the history is read from the log itself.
        context.shared.log_head.require(position).await?;
    }
    let id = MessageId { app: path.app_token, chat: path.chat_number, number: path.message_number };
    let history =
        read_history(&*context.shared.event_store, id, cursor, limit).await.map_err(|error| match error {
            HistoryError::AppNotFound => ErrorCode::AppNotFound.into(),
            HistoryError::ChatNotFound => ErrorCode::ChatNotFound.into(),
            HistoryError::MessageNotFound => ErrorCode::MessageNotFound.into(),
            HistoryError::EventStore(error) => Problem::from(error),
        })?;
    let mut links = PageLinks::new(&uri, PAGE_SELECTORS);
    if let Some(next) = history.next {
        let next_cursor = format_cursor(&path, next);
        links.add(Relation::Next, "cursor", &next_cursor, &next_cursor);
    }
    let versions = history.entries.into_iter().map(MessageVersion::from).collect();
    let body = MessageHistory { message_number: path.message_number.get(), versions };
    Ok((ResponsePosition::for_log(&context, history.position), links.into_headers(), Json(body))
        .into_response())
}

/// The kind, for [`ListId`], of a history's cursor with two parts: the message's number, and the revision of the last
/// version on the page.
const CURSOR_KIND: char = 'h';

/// The kind of a history's cursor with a third part: the revision of the last edit, up to that version, that set or
/// removed the message's data.
const CURSOR_KIND_WITH_DATA_REVISION: char = 'd';

/// Returns the id that the histories of all messages of a chat share, for a kind of cursor. The message's number is in
/// the cursor itself.
fn history_list(kind: char, path: &MessagePath) -> ListId {
    ListId::new(kind, format_args!("{} {}", path.app_token.expose(), path.chat_number))
}

fn format_cursor(path: &MessagePath, next: HistoryCursor) -> String {
    let (number, after) = (path.message_number.get(), next.after.get());
    match next.data_revision {
        None => Cursor { list: history_list(CURSOR_KIND, path), key: [number, after] }.to_string(),
        Some(data_revision) => Cursor {
            list: history_list(CURSOR_KIND_WITH_DATA_REVISION, path),
            key: [number, after, data_revision.get()],
        }
        .to_string(),
    }
}

fn parse_cursor(path: &MessagePath, cursor: &str) -> Result<HistoryCursor, Problem> {
    let (number, after, data_revision) = if cursor.starts_with(CURSOR_KIND_WITH_DATA_REVISION) {
        let [number, after, data_revision] =
            Cursor::<3>::parse(history_list(CURSOR_KIND_WITH_DATA_REVISION, path), cursor)?.key;
        (number, after, Some(data_revision))
    } else {
        let [number, after] = Cursor::<2>::parse(history_list(CURSOR_KIND, path), cursor)?.key;
        (number, after, None)
    };
    // Event stores do not accept revisions above `i64::MAX`.
    if number != path.message_number.get() || i64::try_from(after).is_err() || data_revision > Some(after) {
        return Err(invalid_cursor());
    }
    Ok(HistoryCursor { after: Revision::new(after), data_revision: data_revision.map(Revision::new) })
}
