//! Message queries: `GET …/messages`, `GET …/messages/{message_number}`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{MessageData, MessageNumber, Sender, SenderId, Timestamp};
use chat_ports::read_model::{MessagePage, MessageRow, MessageWindow};
use chat_web::consistency::Freshness;
use chat_web::cursor::{Cursor, ListId, invalid_cursor};
use chat_web::extract::{ChatPath, IfNoneMatch, MessagePath, Query, malformed_parameter};
use chat_web::message_fields::{MessageDataSchema, SenderSchema};
use chat_web::pagination::{PageLinks, Relation};
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::{json_response, serialize_rfc3339, versioned_response};
use crate::api::QueryContext;
use crate::pagination::{PAGE_SELECTORS, PageLimits};
use crate::response_position::require_existing;

/// A message.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    /// The message's number in its chat.
    #[schema(example = 1, minimum = 1)]
    message_number: u64,
    /// The message's text.
    #[schema(example = "The quick brown fox")]
    body: String,
    /// The sender, if the application named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SenderSchema, required = false)]
    sender: Option<Sender>,
    /// The application's data, if there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = MessageDataSchema, required = false)]
    data: Option<MessageData>,
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    created_at: Timestamp,
    /// The time of the last edit, or else of the creation.
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    updated_at: Timestamp,
}

impl From<MessageRow> for Message {
    fn from(row: MessageRow) -> Self {
        Self {
            message_number: row.number.get(),
            body: row.body,
            sender: row.sender,
            data: row.data,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A page of messages.
#[derive(Serialize, ToSchema)]
#[schema(as = MessagePage)]
pub(super) struct Messages {
    #[schema(example = "success")]
    status: &'static str,
    /// Oldest first, without deleted messages.
    messages: Vec<Message>,
}

/// The query parameters that select a page of messages. At most one of `before`, `after`, `around` and `cursor` may be
/// given. Without these four, the page shows the newest messages.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// The number of messages on the page, 1 to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// The last messages before this number.
    #[param(value_type = Option<u64>, minimum = 1)]
    before: Option<String>,
    /// The first messages after this number. 0 starts with the oldest.
    #[param(value_type = Option<u64>, minimum = 0)]
    after: Option<String>,
    /// The messages around this number, including it.
    #[param(value_type = Option<u64>, minimum = 1)]
    around: Option<String>,
    /// Only the messages of the sender with this id.
    #[param(min_length = 1, max_length = 128)]
    sender: Option<String>,
    /// The start of the page: the `Next-Cursor` or `Prev-Cursor` of another page, unchanged.
    cursor: Option<String>,
}

/// The kinds of cursors of message pages, for [`ListId`]. A cursor holds a message's number, and its kind says whether
/// the page begins after this number, ends before it, or is around it.
const AFTER: char = 'n';
const BEFORE: char = 'p';
const AROUND: char = 'm';

/// Creates the id of the list that cursors of this `kind` page through: the messages of a chat, or those of one `sender`
/// in it.
fn message_list(kind: char, path: &ChatPath, sender: Option<&SenderId>) -> ListId {
    let (app, chat) = (path.app_token.expose(), path.chat_number);
    ListId::new(kind, format_args!("{app} {chat}")).with_parameter("sender", sender.map(SenderId::as_str))
}

impl PageParams {
    /// Returns which messages the page shows. `list_id` returns the id of the list for a kind of cursor.
    fn window(&self, list_id: impl Fn(char) -> ListId) -> Result<MessageWindow, Problem> {
        let parse_number = |parameter, text| {
            MessageNumber::parse(text).map_err(|_| {
                let lowest = if parameter == "after" { "0" } else { "1" };
                malformed_parameter(parameter, &format!("the number of a message, from {lowest} up"))
            })
        };
        match (&self.before, &self.after, &self.around, &self.cursor) {
            (None, None, None, None) => Ok(MessageWindow::Newest),
            (Some(before), None, None, None) => parse_number("before", before).map(MessageWindow::Before),
            (None, Some(after), None, None) if after == "0" => Ok(MessageWindow::Oldest),
            (None, Some(after), None, None) => parse_number("after", after).map(MessageWindow::After),
            (None, None, Some(around), None) => parse_number("around", around).map(MessageWindow::Around),
            (None, None, None, Some(cursor)) => parse_cursor(list_id, cursor),
            _ => Err(Problem::new(
                ErrorCode::MalformedQuery,
                "only one of `before`, `after`, `around` and `cursor` can be given",
            )),
        }
    }
}

fn parse_cursor(list_id: impl Fn(char) -> ListId, text: &str) -> Result<MessageWindow, Problem> {
    let kind = text.chars().next().ok_or_else(invalid_cursor)?;
    let [number] = Cursor::parse(list_id(kind), text)?.key;
    let number = MessageNumber::try_from(number).map_err(|_| invalid_cursor())?;
    match kind {
        AFTER => Ok(MessageWindow::After(number)),
        BEFORE => Ok(MessageWindow::Before(number)),
        AROUND => Ok(MessageWindow::Around(number)),
        _ => Err(invalid_cursor()),
    }
}

/// Parses the parameter `sender` of a URL or a body.
pub(super) fn parse_sender(id: String) -> Result<SenderId, Problem> {
    SenderId::parse(id)
        .map_err(|_| malformed_parameter("sender", "an id of 1 to 128 characters without control characters"))
}

/// The approximate size of a message's JSON without its text and data, in bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 144;

problem_responses!(pub(super) ListMessagesProblems:
    MalformedHeader, ConsistencyTokenUnknown, AppNotFound, ChatNotFound, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);

/// List a chat's messages
///
/// Without `before`, `after`, `around` or `cursor`, the newest messages. To read all of them, begin with `after=0` and
/// go on with `Next-Cursor`; to read back from the newest, go on with `Prev-Cursor`. `Link` has the same pages. A page
/// has fewer messages than `limit` where their texts and data exceed 1 MiB.
#[utoipa::path(
    get, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages", tag = openapi::MESSAGES,
    params(ChatPath, PageParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "A page of messages, possibly empty", body = Messages, headers(
            ("Link" = String, description = "The newer messages (`next`) and the older ones (`prev`), if there are any"),
            ("Next-Cursor" = String, description = "The `cursor` of the newer messages, if there are any"),
            ("Prev-Cursor" = String, description = "The `cursor` of the older messages, if there are any"),
        )),
        ListMessagesProblems,
    ),
)]
pub(super) async fn list_messages(
    State(context): State<QueryContext>,
    path: ChatPath,
    uri: Uri,
    freshness: Freshness,
    Query(params): Query<PageParams>,
) -> Result<Response, Problem> {
    let limit = PageLimits::LIST.parse(params.limit.as_deref())?;
    let sender = params.sender.clone().map(parse_sender).transpose()?;
    let list_id = |kind| message_list(kind, &path, sender.as_ref());
    let window = params.window(list_id)?;
    let query = || {
        let (read_model, sender) = (&context.projections.read_model, sender.clone());
        let (app, chat) = (path.app_token, path.chat_number);
        async move {
            match sender {
                None => read_model.messages(app, chat, window, limit).await,
                Some(sender) => read_model.messages_of_sender(app, chat, sender, window, limit).await,
            }
        }
    };
    let (position, page) =
        require_existing(&context, context.query_app(path.app_token, freshness, query).await?).await?;
    let links = page_links(&uri, list_id, window, &page).into_headers();
    let data_bytes = |message: &MessageRow| message.data.as_ref().map_or(0, |data| data.as_str().len());
    let json_bytes = |message: &MessageRow| message.body.len() + data_bytes(message) + MESSAGE_OVERHEAD_BYTES;
    let bytes = page.messages.iter().map(json_bytes).sum();
    let messages = page.messages.into_iter().map(Message::from).collect();
    Ok((position, links, json_response(bytes, &Messages { status: "success", messages })?).into_response())
}

fn page_links<'a>(
    uri: &'a Uri,
    list_id: impl Fn(char) -> ListId,
    window: MessageWindow,
    page: &MessagePage,
) -> PageLinks<'a> {
    let mut links = PageLinks::new(uri, PAGE_SELECTORS);
    let mut add = |relation, parameter, kind, number: MessageNumber| {
        links.add(relation, parameter, number, Cursor { list: list_id(kind), key: [number.get()] });
    };
    if let (Some(first), Some(last)) = (page.messages.first(), page.messages.last()) {
        if page.has_newer {
            add(Relation::Next, "after", AFTER, last.number);
        }
        if page.has_older {
            add(Relation::Prev, "before", BEFORE, first.number);
        }
        return links;
    }
    // The page is empty, so the window has no messages, and a link leads to those outside it. The link uses `around`,
    // because neither `before` nor `after` includes the message with the window's own number, which may exist.
    if let MessageWindow::Before(number) | MessageWindow::After(number) | MessageWindow::Around(number) =
        window
    {
        if page.has_newer {
            add(Relation::Next, "around", AROUND, number);
        }
        if page.has_older {
            add(Relation::Prev, "around", AROUND, number);
        }
    }
    links
}

problem_responses!(pub(super) ShowMessageProblems:
    MalformedHeader, ConsistencyTokenUnknown, AppNotFound, ChatNotFound, MessageNotFound, MessageDeleted, EventStoreUnavailable, ReadModelUnavailable,
    ReadModelBehind);

/// Show a message
///
/// Its text as it is now, and when it was created and last edited.
#[utoipa::path(
    get, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::MESSAGES,
    params(MessagePath, openapi::FreshnessHeaders, openapi::IfNoneMatchHeader),
    responses(
        (status = 200, description = "The message", body = Message, headers(
            ("ETag" = String, description = "The version of the resource"),
        )),
        (status = 304, description = "The client has this version", headers(
            ("ETag" = String, description = "The version of the resource"),
        )),
        ShowMessageProblems,
    ),
)]
pub(super) async fn show_message(
    State(context): State<QueryContext>,
    path: MessagePath,
    freshness: Freshness,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let query =
        || context.projections.read_model.message(path.app_token, path.chat_number, path.message_number);
    let (position, row) =
        require_existing(&context, context.query_app(path.app_token, freshness, query).await?).await?;
    Ok(versioned_response(position, &if_none_match, row.version, Message::from(row)))
}
