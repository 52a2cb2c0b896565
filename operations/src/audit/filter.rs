//! Event filters of audit queries.

use std::fmt;
use std::sync::Arc;

use chat_domain::metadata::ActorKind;
use chat_domain::{
    AppToken, ChatNumber, Event, Metadata, OperatorAction, Position, SenderId, StreamId, Timestamp,
};
use chat_ports::event_store::RecordedEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::time::{parse_duration, parse_time};

/// A filter that selects the events matching all of its parameters. The default selects all events.
///
/// The writer of an event sets its time. Clocks of writers may differ, so an event may have an earlier time than its
/// predecessor in the log. [`EventFilter::from`] and [`EventFilter::to`] apply to each event's own time. Clocks are
/// assumed to differ by at most [`super::time::MAX_CLOCK_SKEW_MS`]. A backward read stops at an event recorded before
/// `from` by more than this difference, a forward read at an event recorded after `to` by more than this difference.
/// Before a read stops, it probes events further on. If one of them is not before `from`, or not after `to`, a clock
/// jumped, and the read goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Events of this stream.
    pub stream: Option<Arc<str>>,
    /// Events of this app: of the app's stream and of the streams of its chats.
    pub app: Option<AppToken>,
    /// Events of this chat of the app: of its stream, and its creation.
    pub chat: Option<ChatNumber>,
    /// Events of one of these types; of any type if empty.
    pub types: Vec<String>,
    /// Events caused by this kind of actor, or by the actor of this name.
    pub actor: Option<String>,
    /// Events caused from this network address.
    pub address: Option<String>,
    /// Events of this request or trace.
    pub correlation_id: Option<String>,
    /// Events recorded at this time or later.
    pub from: Option<Timestamp>,
    /// Events recorded at this time or earlier.
    pub to: Option<Timestamp>,
    /// Events after this position.
    pub after: Option<Position>,
    /// Events before this position.
    pub before: Option<Position>,
    /// Creations of messages of this sender. Edits and deletions don't name a sender.
    pub sender: Option<SenderId>,
    /// Events with this text in their payload.
    pub text: Option<SearchText>,
}

/// An unparsed filter, from the command line or a query string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilterParams {
    /// [`EventFilter::stream`].
    pub stream: Option<String>,
    /// [`EventFilter::app`].
    pub app: Option<String>,
    /// [`EventFilter::chat`].
    pub chat: Option<String>,
    /// [`EventFilter::types`].
    #[serde(rename = "type", default)]
    pub types: Vec<String>,
    /// [`EventFilter::actor`].
    pub actor: Option<String>,
    /// [`EventFilter::address`].
    pub address: Option<String>,
    /// [`EventFilter::correlation_id`].
    pub correlation: Option<String>,
    /// [`EventFilter::from`], as a duration before now.
    pub since: Option<String>,
    /// [`EventFilter::from`].
    pub from: Option<String>,
    /// [`EventFilter::to`].
    pub to: Option<String>,
    /// [`EventFilter::after`].
    pub after: Option<String>,
    /// [`EventFilter::before`].
    pub before: Option<String>,
    /// [`EventFilter::sender`]. Not serialized if absent: a replay checkpoint stores a hash of the filter's JSON, and
    /// the JSON of a filter without a sender must stay as it was before this parameter existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// [`EventFilter::text`].
    pub text: Option<String>,
}

/// An invalid parameter of a filter.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{parameter}` must be {requirement}")]
pub struct InvalidFilter {
    /// The name of the parameter, as in [`EventFilterParams`].
    pub parameter: &'static str,
    /// The values that the parameter accepts, as in "must be …".
    pub requirement: &'static str,
}

impl EventFilter {
    /// Parses a filter. `since` counts back from `now`.
    pub fn parse(params: EventFilterParams, now: Timestamp) -> Result<Self, InvalidFilter> {
        let since = parse_parameter("since", params.since, "a duration such as 2h, 90s or 1d12h", |text| {
            let millis = i64::try_from(parse_duration(text)?.as_millis()).ok()?;
            Some(Timestamp::from_millis(now.millis().saturating_sub(millis)))
        })?;
        let from = parse_time_parameter("from", params.from)?;
        if since.is_some() && from.is_some() {
            return Err(InvalidFilter {
                parameter: "since",
                requirement: "given without `from`: both are lower bounds of the time",
            });
        }
        let app = parse_parameter("app", params.app, "an app's token, 36 characters", |text| {
            AppToken::parse(text).ok()
        })?;
        let chat = parse_parameter("chat", params.chat, "a chat's number, from 1 up", |text| {
            ChatNumber::parse(text).ok()
        })?;
        if chat.is_some() && app.is_none() {
            return Err(InvalidFilter {
                parameter: "chat",
                requirement: "given with `app`: each app numbers its own chats",
            });
        }
        Ok(Self {
            stream: parse_non_empty("stream", params.stream)?.map(Arc::from),
            app,
            chat,
            types: params.types,
            actor: parse_non_empty("actor", params.actor)?,
            address: parse_non_empty("address", params.address)?,
            correlation_id: parse_non_empty("correlation", params.correlation)?,
            from: since.or(from),
            to: parse_time_parameter("to", params.to)?,
            after: parse_position_parameter("after", params.after)?,
            before: parse_position_parameter("before", params.before)?,
            sender: parse_parameter(
                "sender",
                params.sender,
                "an id of 1 to 128 characters without control characters",
                |text| SenderId::parse(text.to_owned()).ok(),
            )?,
            text: parse_non_empty("text", params.text)?.map(|text| SearchText::new(&text)),
        })
    }

    /// The types of the filter that do not exist, most likely because they are misspelt.
    pub fn unknown_types(&self) -> impl Iterator<Item = &str> {
        let exists = |name: &&str| Event::TYPES.contains(name) || OperatorAction::TYPES.contains(name);
        self.types.iter().map(String::as_str).filter(move |name| !exists(name))
    }

    /// Whether an event matches the filter.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        // Cheap conditions come first: parsing metadata and payloads costs most.
        self.after.is_none_or(|after| event.position > after)
            && self.before.is_none_or(|before| event.position < before)
            && self.from.is_none_or(|from| event.recorded_at >= from)
            && self.to.is_none_or(|to| event.recorded_at <= to)
            && (self.types.is_empty() || self.types.contains(&event.event_type))
            && self.stream.as_ref().is_none_or(|stream| *stream == event.stream)
            && self.app.is_none_or(|app| belongs_to(event, app, self.chat))
            && self.matches_metadata(event)
            && self.sender.as_ref().is_none_or(|sender| is_sent_by(event, sender))
            && self.text.as_ref().is_none_or(|text| text.matches_payload(&event.data))
    }

    fn matches_metadata(&self, event: &RecordedEvent) -> bool {
        if self.actor.is_none() && self.address.is_none() && self.correlation_id.is_none() {
            return true;
        }
        let Ok(metadata) = serde_json::from_slice::<Metadata>(&event.metadata) else { return false };
        let actor = metadata.actor;
        self.actor.as_deref().is_none_or(|expected| {
            actor_kind_name(actor.kind) == expected || actor.name.as_deref() == Some(expected)
        }) && self.address.as_deref().is_none_or(|expected| actor.address.as_deref() == Some(expected))
            && self.correlation_id.as_deref().is_none_or(|expected| metadata.correlation_id == expected)
    }
}

/// Whether an event belongs to an app or, if a chat is given, to this chat of the app.
fn belongs_to(event: &RecordedEvent, app: AppToken, chat: Option<ChatNumber>) -> bool {
    match (StreamId::parse(&event.stream), chat) {
        (Ok(stream), None) => *stream.app() == app,
        (Ok(StreamId::Chat(owner, number)), Some(chat)) => owner == app && number == chat,
        (Ok(StreamId::App(owner)), Some(chat)) => {
            owner == app
                && matches!(event.decode(), Ok(Event::ChatCreated(created)) if created.chat_number == chat)
        }
        (Err(_), _) => false,
    }
}

/// Whether an event is the creation of a message of a sender.
fn is_sent_by(event: &RecordedEvent, sender: &SenderId) -> bool {
    let Ok(Event::MessageCreated(created)) = event.decode() else { return false };
    created.sender.is_some_and(|by| by.id == *sender)
}

/// The name of a kind of actor in event metadata.
pub fn actor_kind_name(kind: ActorKind) -> &'static str {
    match kind {
        ActorKind::Anonymous => "anonymous",
        ActorKind::App => "app",
        ActorKind::Admin => "admin",
        ActorKind::Operator => "operator",
        ActorKind::System => "system",
    }
}

/// The text that a filter searches for in payloads, ignoring case. A payload in JSON matches if one of its string
/// values, without escapes, contains the text. Names of members are not searched.
#[derive(Clone, PartialEq, Eq)]
pub struct SearchText(String);

impl SearchText {
    /// Creates a search text, ignoring case.
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    fn matches_payload(&self, data: &[u8]) -> bool {
        match serde_json::from_slice(data) {
            Ok(payload) => self.matches_value(&payload),
            // Invalid JSON is searched as text.
            Err(_) => self.matches_text(&String::from_utf8_lossy(data)),
        }
    }

    fn matches_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.matches_text(text),
            Value::Array(elements) => elements.iter().any(|element| self.matches_value(element)),
            Value::Object(members) => members.values().any(|member| self.matches_value(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    fn matches_text(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.0)
    }
}

/// Omits the text, because it may be personal and log lines contain filters.
impl fmt::Debug for SearchText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SearchText(…)")
    }
}

fn parse_parameter<T>(
    parameter: &'static str,
    text: Option<String>,
    requirement: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, InvalidFilter> {
    let Some(text) = text else { return Ok(None) };
    parse(&text).map(Some).ok_or(InvalidFilter { parameter, requirement })
}

fn parse_non_empty(name: &'static str, text: Option<String>) -> Result<Option<String>, InvalidFilter> {
    match text {
        Some(text) if text.is_empty() => {
            Err(InvalidFilter { parameter: name, requirement: "a text that is not empty" })
        }
        text => Ok(text),
    }
}

fn parse_time_parameter(
    name: &'static str,
    text: Option<String>,
) -> Result<Option<Timestamp>, InvalidFilter> {
    parse_parameter(name, text, "a time such as 2026-09-21T14:13:20Z, or a date", parse_time)
}

fn parse_position_parameter(
    name: &'static str,
    text: Option<String>,
) -> Result<Option<Position>, InvalidFilter> {
    parse_parameter(name, text, "a position in the log, a whole number", |text| Position::parse(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn invalid_parameter(params: EventFilterParams) -> &'static str {
        EventFilter::parse(params, NOW).unwrap_err().parameter
    }

    #[test]
    fn names_the_invalid_parameter() {
        let given = |text: &str| Some(text.to_owned());
        let none = EventFilterParams::default;
        assert_eq!(invalid_parameter(EventFilterParams { app: given("x"), ..none() }), "app");
        assert_eq!(invalid_parameter(EventFilterParams { chat: given("1"), ..none() }), "chat");
        assert_eq!(invalid_parameter(EventFilterParams { since: given("soon"), ..none() }), "since");
        assert_eq!(
            invalid_parameter(EventFilterParams { since: given("2h"), from: given("2026-09-21"), ..none() }),
            "since"
        );
        assert_eq!(invalid_parameter(EventFilterParams { to: given("tomorrow"), ..none() }), "to");
        assert_eq!(invalid_parameter(EventFilterParams { after: given("-1"), ..none() }), "after");
        assert_eq!(invalid_parameter(EventFilterParams { text: given(""), ..none() }), "text");
        assert_eq!(invalid_parameter(EventFilterParams { sender: given(""), ..none() }), "sender");
    }

    #[test]
    fn the_json_of_a_filter_omits_an_absent_sender() {
        let stored = serde_json::to_string(&EventFilterParams::default()).unwrap();
        assert!(!stored.contains("sender"), "{stored}");
        let params = EventFilterParams { sender: Some("u-17".to_owned()), ..EventFilterParams::default() };
        let stored = serde_json::to_string(&params).unwrap();
        assert_eq!(serde_json::from_str::<EventFilterParams>(&stored).unwrap(), params);
    }

    #[test]
    fn since_counts_back_from_now() {
        let params = EventFilterParams { since: Some("2h".to_owned()), ..EventFilterParams::default() };
        let filter = EventFilter::parse(params, NOW).unwrap();
        assert_eq!(filter.from, Some(Timestamp::from_millis(NOW.millis() - 7_200_000)));
    }

    #[test]
    fn finds_unescaped_text_ignoring_case() {
        let payload = r#"{"message_number":1,"body":"Gr\u00fc\u00dfe\nan \"alle\""}"#.as_bytes();
        for found in ["grüße", "GRÜ", "an \"alle\"", "e\nan"] {
            assert!(SearchText::new(found).matches_payload(payload), "{found}");
        }
        for absent in ["body", "u00fc", "\\n", "1"] {
            assert!(!SearchText::new(absent).matches_payload(payload), "{absent}");
        }
        assert!(SearchText::new("TORN").matches_payload(b"{\"body\":\"torn \xff"));
    }

    #[test]
    fn reports_unknown_types() {
        let types =
            vec!["MessageDeleted".to_owned(), "Messagedeleted".to_owned(), "RebuildStarted".to_owned()];
        let filter = EventFilter { types, ..EventFilter::default() };
        assert_eq!(filter.unknown_types().collect::<Vec<_>>(), ["Messagedeleted"]);
    }
}
