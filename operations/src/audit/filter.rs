//! Which events are meant.

use std::fmt;
use std::sync::Arc;

use chat_domain::metadata::ActorKind;
use chat_domain::{AppToken, ChatNumber, Event, Metadata, OperatorAction, Position, StreamId, Timestamp};
use chat_ports::event_store::RecordedEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::time::{parse_duration, parse_time};

/// Which events are meant: those that every given part fits. The default means all.
///
/// Times are those of the events' writers, whose clocks need not agree: an event in the middle of the log may bear a time
/// before that of the event in front of it. Each event's own time is held against [`EventFilter::from`] and
/// [`EventFilter::to`]. A read that goes towards the start ends early, once it meets an event recorded more than
/// [`super::time::CLOCKS_APART`] before `from`; one that goes towards the end, once it meets one that much after `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this stream.
    pub stream: Option<Arc<str>>,
    /// Of this app: its own stream and those of its chats.
    pub app: Option<AppToken>,
    /// Of this chat of the app: its stream and its creation.
    pub chat: Option<ChatNumber>,
    /// Of one of these types; none given: of any.
    pub types: Vec<String>,
    /// Caused by this kind of actor, or by whom of this name.
    pub actor: Option<String>,
    /// Caused from this network address.
    pub address: Option<String>,
    /// Belonging to this request or trace.
    pub correlation_id: Option<String>,
    /// Recorded at this time or later.
    pub from: Option<Timestamp>,
    /// Recorded at this time or earlier.
    pub to: Option<Timestamp>,
    /// After this position.
    pub after: Option<Position>,
    /// Before this position.
    pub before: Option<Position>,
    /// With this text in its payload.
    pub text: Option<Needle>,
}

/// A filter as it was written, part by part: on the command line or in a query string.
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
    /// [`EventFilter::text`].
    pub text: Option<String>,
}

/// A part of a filter that can't be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{part}` must be {must}")]
pub struct InvalidFilter {
    /// Which part, as in [`FilterWords`].
    pub part: &'static str,
    /// What it takes.
    pub must: &'static str,
}

impl EventFilter {
    /// Reads a filter; `now` is what `since` counts from.
    pub fn parse(words: EventFilterParams, now: Timestamp) -> Result<Self, InvalidFilter> {
        let since = parse_part("since", words.since, "a duration such as 2h, 90s or 1d12h", |text| {
            let millis = i64::try_from(parse_duration(text)?.as_millis()).ok()?;
            Some(Timestamp::from_millis(now.millis().saturating_sub(millis)))
        })?;
        let from = parse_time_part("from", words.from)?;
        if since.is_some() && from.is_some() {
            return Err(InvalidFilter {
                part: "since",
                must: "given without `from`: both say where to begin",
            });
        }
        let app =
            parse_part("app", words.app, "an app's token, 36 characters", |text| AppToken::parse(text).ok())?;
        let chat = parse_part("chat", words.chat, "a chat's number", |text| ChatNumber::parse(text).ok())?;
        if chat.is_some() && app.is_none() {
            return Err(InvalidFilter {
                part: "chat",
                must: "given with `app`: chats are numbered in each app",
            });
        }
        Ok(Self {
            stream: parse_non_empty("stream", words.stream)?.map(Arc::from),
            app,
            chat,
            types: words.types,
            actor: parse_non_empty("actor", words.actor)?,
            address: parse_non_empty("address", words.address)?,
            correlation_id: parse_non_empty("correlation", words.correlation)?,
            from: since.or(from),
            to: parse_time_part("to", words.to)?,
            after: parse_position_part("after", words.after)?,
            before: parse_position_part("before", words.before)?,
            text: parse_non_empty("text", words.text)?.map(|text| Needle::new(&text)),
        })
    }

    /// Those types it names that this program does not know: misspelt, most likely.
    pub fn unknown_types(&self) -> impl Iterator<Item = &str> {
        let known = |name: &&str| Event::TYPES.contains(name) || OperatorAction::TYPES.contains(name);
        self.types.iter().map(String::as_str).filter(move |name| !known(name))
    }

    /// Whether an event is meant.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        // What costs least comes first: payload and metadata are read for events that all else fits.
        self.after.is_none_or(|after| event.position > after)
            && self.before.is_none_or(|before| event.position < before)
            && self.from.is_none_or(|from| event.recorded_at >= from)
            && self.to.is_none_or(|to| event.recorded_at <= to)
            && (self.types.is_empty() || self.types.contains(&event.event_type))
            && self.stream.as_ref().is_none_or(|stream| *stream == event.stream)
            && self.app.is_none_or(|app| belongs_to(event, app, self.chat))
            && self.matches_metadata(event)
            && self.text.as_ref().is_none_or(|text| text.matches_payload(&event.data))
    }

    fn matches_metadata(&self, event: &RecordedEvent) -> bool {
        if self.actor.is_none() && self.address.is_none() && self.correlation_id.is_none() {
            return true;
        }
        let Ok(metadata) = serde_json::from_slice::<Metadata>(&event.metadata) else { return false };
        let actor = metadata.actor;
        self.actor.as_deref().is_none_or(|wanted| {
            actor_kind_name(actor.kind) == wanted || actor.name.as_deref() == Some(wanted)
        }) && self.address.as_deref().is_none_or(|wanted| actor.address.as_deref() == Some(wanted))
            && self.correlation_id.as_deref().is_none_or(|wanted| metadata.correlation_id == wanted)
    }
}

/// Whether an event is of an app, or of a chat of it.
fn belongs_to(event: &RecordedEvent, app: AppToken, chat: Option<ChatNumber>) -> bool {
    match (StreamId::parse(&event.stream), chat) {
        (Ok(stream), None) => *stream.app() == app,
        (Ok(StreamId::Chat(of, number)), Some(chat)) => of == app && number == chat,
        (Ok(StreamId::App(of)), Some(chat)) => {
            of == app
                && matches!(event.decode(), Ok(Event::ChatCreated(created)) if created.chat_number == chat)
        }
        (Err(_), _) => false,
    }
}

/// The name of a kind of actor, as in metadata.
pub fn actor_kind_name(kind: ActorKind) -> &'static str {
    match kind {
        ActorKind::Anonymous => "anonymous",
        ActorKind::App => "app",
        ActorKind::Admin => "admin",
        ActorKind::Operator => "operator",
        ActorKind::System => "system",
    }
}

/// A text that is looked for in payloads, whatever its case: in texts as they read, not as JSON writes them.
#[derive(Clone, PartialEq, Eq)]
pub struct Needle(String);

impl Needle {
    /// Looks for this text.
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    fn matches_payload(&self, data: &[u8]) -> bool {
        match serde_json::from_slice(data) {
            Ok(payload) => self.matches_value(&payload),
            // What is no JSON is still text, as far as it goes.
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

/// What people wrote stays out of log lines.
impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Needle(…)")
    }
}

fn parse_part<T>(
    part: &'static str,
    text: Option<String>,
    must: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, InvalidFilter> {
    let Some(text) = text else { return Ok(None) };
    read(&text).map(Some).ok_or(InvalidFilter { part, must })
}

fn parse_non_empty(name: &'static str, text: Option<String>) -> Result<Option<String>, InvalidFilter> {
    match text {
        Some(text) if text.is_empty() => Err(InvalidFilter { part: name, must: "a text" }),
        text => Ok(text),
    }
}

fn parse_time_part(name: &'static str, text: Option<String>) -> Result<Option<Timestamp>, InvalidFilter> {
    parse_part(name, text, "a time such as 2026-09-21T14:13:20Z, or a date", parse_time)
}

fn parse_position_part(name: &'static str, text: Option<String>) -> Result<Option<Position>, InvalidFilter> {
    parse_part(name, text, "a position in the log, a whole number", |text| {
        text.parse().ok().map(Position::new)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn invalid_part(words: EventFilterParams) -> &'static str {
        EventFilter::parse(words, NOW).unwrap_err().part
    }

    #[test]
    fn what_can_not_be_understood_is_named() {
        let text = |text: &str| Some(text.to_owned());
        let none = EventFilterParams::default;
        assert_eq!(invalid_part(EventFilterParams { app: text("x"), ..none() }), "app");
        assert_eq!(invalid_part(EventFilterParams { chat: text("1"), ..none() }), "chat");
        assert_eq!(invalid_part(EventFilterParams { since: text("soon"), ..none() }), "since");
        assert_eq!(
            invalid_part(EventFilterParams { since: text("2h"), from: text("2026-09-21"), ..none() }),
            "since"
        );
        assert_eq!(invalid_part(EventFilterParams { to: text("tomorrow"), ..none() }), "to");
        assert_eq!(invalid_part(EventFilterParams { after: text("-1"), ..none() }), "after");
        assert_eq!(invalid_part(EventFilterParams { text: text(""), ..none() }), "text");
    }

    #[test]
    fn since_counts_back_from_now() {
        let words = EventFilterParams { since: Some("2h".to_owned()), ..EventFilterParams::default() };
        let filter = EventFilter::parse(words, NOW).unwrap();
        assert_eq!(filter.from, Some(Timestamp::from_millis(NOW.millis() - 7_200_000)));
    }

    #[test]
    fn a_text_is_found_as_it_reads_and_whatever_its_case() {
        let payload = r#"{"message_number":1,"body":"Gr\u00fc\u00dfe\nan \"alle\""}"#.as_bytes();
        for there in ["grüße", "GRÜ", "an \"alle\"", "e\nan"] {
            assert!(Needle::new(there).matches_payload(payload), "{there}");
        }
        for not in ["body", "u00fc", "\\n", "1"] {
            assert!(!Needle::new(not).matches_payload(payload), "{not}");
        }
        assert!(Needle::new("TORN").matches_payload(b"{\"body\":\"torn \xff"));
    }

    #[test]
    fn types_that_are_misspelt_are_told() {
        let types =
            vec!["MessageDeleted".to_owned(), "Messagedeleted".to_owned(), "RebuildStarted".to_owned()];
        let filter = EventFilter { types, ..EventFilter::default() };
        assert_eq!(filter.unknown_types().collect::<Vec<_>>(), ["Messagedeleted"]);
    }
}
