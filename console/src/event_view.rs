//! Events as pages show them: without tokens, with links.

use std::collections::HashMap;

use chat_domain::{AppToken, OperatorAction, Position, StreamId};
use chat_operations::audit::{AuditedEvent, EventReference};
use serde_json::{Map, Value};

use crate::app_address::{app_path, creation_position};
use crate::console::Console;
use crate::page::ConsoleError;
use crate::text::{self, Time};

/// A stream, as links to its app and chat, or by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamView {
    /// The app; `None` if the stream belongs to no app in the log.
    pub(crate) app: Option<AppLink>,
    /// The chat, if the stream is that of a chat.
    pub(crate) chat: Option<NumberLink>,
    /// The name of the stream, if there is no app to link to.
    pub(crate) unlinked_name: Option<String>,
}

/// An app with the address of its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppLink {
    /// The app's name, or the beginning of its token if the name can't be read from the read model.
    pub(crate) name: String,
    pub(crate) path: String,
}

/// A numbered chat or message with the address of its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumberLink {
    pub(crate) number: u64,
    pub(crate) path: String,
}

/// The names of the apps in a list of events, each read once.
#[derive(Debug, Default)]
struct AppNames(HashMap<AppToken, String>);

impl AppNames {
    async fn get(&mut self, console: &Console, app: AppToken) -> String {
        if let Some(name) = self.0.get(&app) {
            return name.clone();
        }
        let name = app_name(console, app).await;
        self.0.insert(app, name.clone());
        name
    }
}

impl StreamView {
    pub(crate) async fn load(console: &Console, stream: &str) -> Result<Self, ConsoleError> {
        Self::load_with_names(&mut AppNames::default(), console, stream).await
    }

    async fn load_with_names(
        names: &mut AppNames,
        console: &Console,
        stream: &str,
    ) -> Result<Self, ConsoleError> {
        let Ok(id) = StreamId::parse(stream) else {
            return Ok(Self { unlinked_name: Some(stream.to_owned()), ..Self::default() });
        };
        let position =
            creation_position(console, *id.app()).await.map_err(|error| ConsoleError::unavailable(&error))?;
        let Some(position) = position else {
            // The app's own stream has no event: the app's creation was lost, or was never recorded.
            return Ok(Self { unlinked_name: shortened_stream(stream), ..Self::default() });
        };
        let path = app_path(position);
        let chat = match id {
            StreamId::App(_) => None,
            StreamId::Chat(_, chat) => {
                Some(NumberLink { number: chat.get(), path: format!("{path}/chats/{chat}") })
            }
        };
        let app = AppLink { name: names.get(console, *id.app()).await, path };
        Ok(Self { app: Some(app), chat, unlinked_name: None })
    }
}

/// The name of a stream with the app's token shortened. `None` if the text is not the name of an app's or a chat's
/// stream.
pub(crate) fn shortened_stream(name: &str) -> Option<String> {
    let id = StreamId::parse(name).ok()?;
    Some(name.replace(id.app().expose(), &text::short_token(id.app())))
}

/// The name of an app, or the beginning of its token if the name can't be read from the read model.
pub(crate) async fn app_name(console: &Console, app: AppToken) -> String {
    match console.read_model().app(app).await.map(|answer| answer.value) {
        Ok(Ok(row)) => row.name.as_str().to_owned(),
        Ok(Err(_)) | Err(_) => text::short_token(&app),
    }
}

/// The CSS class of an event type.
pub(crate) fn type_class(name: &str) -> &'static str {
    match name {
        _ if OperatorAction::TYPES.contains(&name) => "operator",
        _ if name.ends_with("Created") => "created",
        _ if name.ends_with("Deleted") => "deleted",
        _ => "edited",
    }
}

/// An event in a list.
#[derive(Clone, Debug)]
pub(crate) struct EventRow {
    pub(crate) position: Position,
    pub(crate) recorded_at: Time,
    pub(crate) event_type: String,
    pub(crate) stream: StreamView,
    /// The message that the event concerns.
    pub(crate) message: Option<NumberLink>,
    pub(crate) actor: String,
    /// The network address of the client.
    pub(crate) address: String,
    /// The beginning of the payload's texts, such as a message's body or an app's name. The chat's number comes first,
    /// if the payload names a chat.
    pub(crate) summary: String,
    /// Why the event can't be decoded, if it can't.
    pub(crate) problem: Option<String>,
}

/// The maximum length of a summary, in characters. The ellipsis of a summary that was cut is not counted.
const SUMMARY_CHARS: usize = 120;

impl EventRow {
    pub(crate) async fn load(console: &Console, event: &AuditedEvent) -> Result<Self, ConsoleError> {
        Self::load_with_names(&mut AppNames::default(), console, event).await
    }

    pub(crate) async fn load_all(
        console: &Console,
        events: &[AuditedEvent],
    ) -> Result<Vec<Self>, ConsoleError> {
        let (mut names, mut rows) = (AppNames::default(), Vec::with_capacity(events.len()));
        for event in events {
            rows.push(Self::load_with_names(&mut names, console, event).await?);
        }
        Ok(rows)
    }

    async fn load_with_names(
        names: &mut AppNames,
        console: &Console,
        event: &AuditedEvent,
    ) -> Result<Self, ConsoleError> {
        let actor = event.parsed_metadata().map(|metadata| metadata.actor);
        let fields = payload_fields(event);
        let stream = StreamView::load_with_names(names, console, &event.stream).await?;
        let number = fields.get("message_number").and_then(Value::as_u64);
        let message = stream
            .chat
            .as_ref()
            .zip(number)
            .map(|(chat, number)| NumberLink { number, path: format!("{}/messages/{number}", chat.path) });
        Ok(Self {
            position: event.position,
            recorded_at: Time(event.recorded_at),
            event_type: event.event_type.clone(),
            stream,
            message,
            address: actor.as_ref().and_then(|actor| actor.address.clone()).unwrap_or_default(),
            actor: actor.as_ref().map_or_else(String::new, text::actor),
            summary: summary(&fields),
            problem: event.problem.clone(),
        })
    }
}

/// An event that is related to another event, or that set a field.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceRow {
    pub(crate) position: Position,
    pub(crate) recorded_at: Time,
    pub(crate) event_type: String,
    pub(crate) stream: StreamView,
    pub(crate) actor: String,
}

impl ReferenceRow {
    pub(crate) async fn load(console: &Console, event: &EventReference) -> Result<Self, ConsoleError> {
        Ok(Self {
            position: event.position,
            recorded_at: Time(event.recorded_at),
            event_type: event.event_type.clone(),
            stream: StreamView::load(console, &event.stream).await?,
            actor: event.actor.as_ref().map_or_else(String::new, text::actor),
        })
    }

    pub(crate) async fn load_all(
        console: &Console,
        events: &[EventReference],
    ) -> Result<Vec<Self>, ConsoleError> {
        let mut rows = Vec::with_capacity(events.len());
        for event in events {
            rows.push(Self::load(console, event).await?);
        }
        Ok(rows)
    }
}

/// The fields of an event's payload; empty if the payload is not a JSON object.
pub(crate) fn payload_fields(event: &AuditedEvent) -> Map<String, Value> {
    event.data.as_ref().and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default()
}

/// The most informative fields of a payload, shortened: a chat's number, a body, a name, a reason.
fn summary(fields: &Map<String, Value>) -> String {
    let texts = ["body", "name", "reason"].into_iter().filter_map(|name| fields.get(name)?.as_str());
    let chat = fields.get("chat_number").and_then(Value::as_u64).map(|number| format!("chat {number}"));
    let parts: Vec<String> = chat.into_iter().chain(texts.map(str::to_owned)).collect();
    shorten(&parts.join(" · "), SUMMARY_CHARS)
}

/// Cuts a text to a number of characters, and puts it on one line. An ellipsis shows that it was cut.
pub(crate) fn shorten(text: &str, characters: usize) -> String {
    let mut short: String =
        text.chars().take(characters).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(characters).is_some() {
        short.push('…');
    }
    short
}

/// Cuts a text to a number of characters, and keeps its lines. Also returns whether it was cut.
pub(crate) fn shorten_lines(mut text: String, characters: usize) -> (String, bool) {
    let Some((end, _)) = text.char_indices().nth(characters) else { return (text, false) };
    text.truncate(end);
    text.push('…');
    (text, true)
}
