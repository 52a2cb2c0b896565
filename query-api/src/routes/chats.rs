//! Chat queries: `GET /apps/{app_token}/chats`, `GET …/chats/{chat_number}`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{ChatNumber, Timestamp};
use chat_ports::read_model::ChatRow;
use chat_web::consistency::Freshness;
use chat_web::cursor::{Cursor, ListId, invalid_cursor};
use chat_web::extract::{AppPath, ChatPath, IfNoneMatch, Query};
use chat_web::pagination::{PageLinks, Relation};
use chat_web::{Problem, openapi, problem_responses};
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::apps::ListParams;
use super::json::{serialize_rfc3339, versioned_response};
use crate::api::QueryContext;
use crate::pagination::{PAGE_SELECTORS, PageLimits};
use crate::response_position::require_existing;

/// A chat.
#[derive(Serialize, ToSchema)]
pub(super) struct Chat {
    /// The chat's number in its app.
    #[schema(example = 1, minimum = 1)]
    chat_number: u64,
    /// The number of messages, without deleted ones.
    #[schema(example = 1)]
    message_count: u64,
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    created_at: Timestamp,
    /// The time when a message of the chat was last created, edited or deleted. If the chat has never had a
    /// message, the time of its creation.
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    updated_at: Timestamp,
}

impl From<ChatRow> for Chat {
    fn from(row: ChatRow) -> Self {
        Self {
            chat_number: row.number.get(),
            message_count: row.message_count,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A page of chats.
#[derive(Serialize, ToSchema)]
pub(super) struct ChatPage {
    #[schema(example = "success")]
    status: &'static str,
    #[schema(example = "chats fetched successfully")]
    message: &'static str,
    chats: Vec<Chat>,
}

problem_responses!(pub(super) ListChatsProblems: MalformedHeader, ConsistencyTokenUnknown, AppNotFound, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);

/// List an app's chats
///
/// In the order of their numbers.
#[utoipa::path(
    get, path = "/api/v1/apps/{app_token}/chats", tag = openapi::CHATS,
    params(AppPath, ListParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "A page of chats, possibly empty", body = ChatPage, headers(
            ("Link" = String, description = "The `next` page, if there is one"),
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        ListChatsProblems,
    ),
)]
pub(super) async fn list_chats(
    State(context): State<QueryContext>,
    path: AppPath,
    uri: Uri,
    freshness: Freshness,
    Query(params): Query<ListParams>,
) -> Result<Response, Problem> {
    let limit = PageLimits::LIST.parse(params.limit.as_deref())?;
    let list = ListId::new('c', format_args!("{}", path.app_token.expose()));
    let after = params.cursor.as_deref().map(|cursor| parse_cursor(list, cursor)).transpose()?;
    let snapshot = context
        .query_app(path.app_token, freshness, || {
            context.projections.read_model.chats(path.app_token, after, limit + 1)
        })
        .await?;
    let (position, mut rows) = require_existing(&context, snapshot).await?;
    let mut links = PageLinks::new(&uri, PAGE_SELECTORS);
    if rows.len() > limit {
        rows.truncate(limit);
        if let Some(last) = rows.last() {
            let cursor = Cursor { list, key: [last.number.get()] };
            links.add(Relation::Next, "cursor", cursor, cursor);
        }
    }
    let chats = rows.into_iter().map(Chat::from).collect();
    let body = ChatPage { status: "success", message: "chats fetched successfully", chats };
    Ok((position, links.into_headers(), Json(body)).into_response())
}

fn parse_cursor(list: ListId, cursor: &str) -> Result<ChatNumber, Problem> {
    let number = Cursor::<1>::parse(list, cursor)?.key[0];
    ChatNumber::try_from(number).map_err(|_| invalid_cursor())
}

problem_responses!(pub(super) ShowChatProblems:
    MalformedHeader, ConsistencyTokenUnknown, AppNotFound, ChatNotFound, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);

/// Show a chat
///
/// The number of its messages, and when it was created and last changed.
#[utoipa::path(
    get, path = "/api/v1/apps/{app_token}/chats/{chat_number}", tag = openapi::CHATS,
    params(ChatPath, openapi::FreshnessHeaders, openapi::IfNoneMatchHeader),
    responses(
        (status = 200, description = "The chat", body = Chat, headers(
            ("ETag" = String, description = "The version of the resource"),
        )),
        (status = 304, description = "The client has this version", headers(
            ("ETag" = String, description = "The version of the resource"),
        )),
        ShowChatProblems,
    ),
)]
pub(super) async fn show_chat(
    State(context): State<QueryContext>,
    path: ChatPath,
    freshness: Freshness,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let query = || context.projections.read_model.chat(path.app_token, path.chat_number);
    let (position, row) =
        require_existing(&context, context.query_app(path.app_token, freshness, query).await?).await?;
    Ok(versioned_response(position, &if_none_match, row.version, Chat::from(row)))
}
