//! `GET …/messages`, `GET …/messages/{message_number}`

use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use chat_domain::{MessageNumber, Timestamp};
use chat_ports::read_model::{MessagePage, MessageRow, MessageWindow};
use chat_web::consistency::Freshness;
use chat_web::extract::{ChatPath, IfNoneMatch, MessagePath, Query};
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{json_response, time, versioned_response};
use crate::api::QueryContext;
use crate::pagination::{Links, PageLimits, malformed_parameter};
use crate::response_position::require_existing;

/// A message.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    /// Its number in its chat.
    #[schema(example = 1, minimum = 1)]
    message_number: u64,
    /// Its text.
    #[schema(example = "Hi")]
    body: String,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    created_at: Timestamp,
    /// When it was last edited, or else created.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    updated_at: Timestamp,
}

impl From<MessageRow> for Message {
    fn from(row: MessageRow) -> Self {
        Self {
            message_number: row.number.get(),
            body: row.body,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A page of messages.
#[derive(Serialize, ToSchema)]
pub(super) struct Messages {
    #[schema(example = "success")]
    status: &'static str,
    /// Oldest first; deleted ones are left out.
    messages: Vec<Message>,
}

/// Which messages; at most one of `before`, `after` and `around`, and without any the newest.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Messages on the page, 1 to 100; 50 unless given.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// The last ones before this number.
    #[param(value_type = Option<u64>, minimum = 1)]
    before: Option<String>,
    /// The first ones after this number; 0 starts with the oldest.
    #[param(value_type = Option<u64>, minimum = 0)]
    after: Option<String>,
    /// Those around this number, itself included.
    #[param(value_type = Option<u64>, minimum = 1)]
    around: Option<String>,
}

impl PageParams {
    fn window(&self) -> Result<MessageWindow, Problem> {
        let number = |parameter, text| {
            MessageNumber::parse(text)
                .map_err(|_| malformed_parameter(parameter, "the number of a message, from 1 up"))
        };
        match (&self.before, &self.after, &self.around) {
            (None, None, None) => Ok(MessageWindow::Newest),
            (Some(before), None, None) => number("before", before).map(MessageWindow::Before),
            (None, Some(after), None) if after == "0" => Ok(MessageWindow::Oldest),
            (None, Some(after), None) => number("after", after).map(MessageWindow::After),
            (None, None, Some(around)) => number("around", around).map(MessageWindow::Around),
            _ => Err(Problem::new(
                ErrorCode::MalformedQuery,
                "only one of `before`, `after` and `around` can be given",
            )),
        }
    }
}

/// What a message's JSON takes beside its text, in bytes, more or less.
const MESSAGE_OVERHEAD_BYTES: usize = 144;

problem_responses!(pub(super) ListMessagesFails:
    MalformedQuery, AppNotFound, ChatNotFound, ReadModelUnavailable, ReadModelBehind);

/// List a chat's messages
///
/// Without `before`, `after` or `around` the newest ones. `Link` leads to the newer (`next`) and the older (`prev`)
/// messages.
#[utoipa::path(
    get, path = "/apps/{app_token}/chats/{chat_number}/messages", tag = openapi::MESSAGES,
    params(ChatPath, PageParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "A page of messages; none yet: an empty array", body = Messages, headers(
            ("Link" = String, description = "The newer messages (`next`) and the older ones (`prev`), if there are any"),
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        ListMessagesFails,
    ),
)]
pub(super) async fn list_messages(
    State(api): State<QueryContext>,
    path: ChatPath,
    OriginalUri(uri): OriginalUri,
    freshness: Freshness,
    Query(params): Query<PageParams>,
) -> Result<Response, Problem> {
    let limit = PageLimits::LIST.parse(params.limit.as_deref())?;
    let window = params.window()?;
    let query = || api.projections.read_model.messages(path.app_token, path.chat_number, window, limit);
    let (standing, page) = require_existing(&api, api.query_read_model(freshness, query).await?).await?;
    let links = page_links(&uri, window, &page).into_header();
    let bytes = page.messages.iter().map(|message| message.body.len() + MESSAGE_OVERHEAD_BYTES).sum();
    let messages = page.messages.into_iter().map(Message::from).collect();
    Ok((standing, links, json_response(bytes, &Messages { status: "success", messages })?).into_response())
}

fn page_links(uri: &Uri, window: MessageWindow, page: &MessagePage) -> Links {
    let mut links = Links::default();
    if let (Some(first), Some(last)) = (page.messages.first(), page.messages.last()) {
        if page.has_newer {
            links.add(uri, "next", "after", last.number);
        }
        if page.has_older {
            links.add(uri, "prev", "before", first.number);
        }
        return links;
    }
    // Nothing on this side of a number: what there is lies next to it on the other side.
    if let MessageWindow::Before(number) | MessageWindow::After(number) | MessageWindow::Around(number) =
        window
    {
        if page.has_newer {
            links.add(uri, "next", "around", number);
        }
        if page.has_older {
            links.add(uri, "prev", "around", number);
        }
    }
    links
}

problem_responses!(pub(super) ShowMessageFails:
    MalformedQuery, AppNotFound, ChatNotFound, MessageNotFound, MessageDeleted, ReadModelUnavailable,
    ReadModelBehind);

/// Show a message
#[utoipa::path(
    get, path = "/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::MESSAGES,
    params(MessagePath, openapi::FreshnessHeaders, openapi::IfNoneMatchHeader),
    responses(
        (status = 200, description = "The message", body = Message, headers(
            ("ETag" = String, description = "Its version"),
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        (status = 304, description = "The client has it already", headers(
            ("ETag" = String, description = "Its version"),
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        ShowMessageFails,
    ),
)]
pub(super) async fn show_message(
    State(api): State<QueryContext>,
    path: MessagePath,
    freshness: Freshness,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let query = || api.projections.read_model.message(path.app_token, path.chat_number, path.message_number);
    let (standing, row) = require_existing(&api, api.query_read_model(freshness, query).await?).await?;
    Ok(versioned_response(standing, &if_none_match, row.version, Message::from(row)))
}
