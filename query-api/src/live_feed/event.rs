//! Events of the live feed, and their form on the wire.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use chat_domain::{
    AppToken, ChatNumber, DataChange, Event, MessageNumber, Position, Sender, StreamId, Timestamp,
};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent, creation_lookup};
use chat_web::consistency::{ConsistencyToken, LogTag};
use chat_web::log_throttle::LogThrottle;
use serde::{Serialize, Serializer};
use tokio::sync::OnceCell;
use tracing::warn;

/// The bytes that an event occupies besides its payload and its encoding.
const OVERHEAD_BYTES: usize = 512;

/// Limits the warnings about events that can't be decoded. Each client that catches up reads such events anew.
static UNDECODABLE_LOG_THROTTLE: LogThrottle = LogThrottle::new(1);

/// The types of events in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeedEventType {
    MessageCreated,
    MessageEdited,
    MessageDeleted,
    ChatCreated,
    AppRenamed,
}

impl FeedEventType {
    const ALL: [Self; 5] = [
        Self::MessageCreated,
        Self::MessageEdited,
        Self::MessageDeleted,
        Self::ChatCreated,
        Self::AppRenamed,
    ];

    /// The types of events in the feed of a scope.
    pub(crate) fn all_in(scope: Scope) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |event_type| match scope {
            Scope::App(_) => true,
            Scope::Chat(..) => !matches!(event_type, Self::ChatCreated | Self::AppRenamed),
        })
    }

    /// The name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MessageCreated => "message.created",
            Self::MessageEdited => "message.edited",
            Self::MessageDeleted => "message.deleted",
            Self::ChatCreated => "chat.created",
            Self::AppRenamed => "app.renamed",
        }
    }

    /// The type of a stored event; `None` if the feed has no such events.
    fn from_stored(event_type: &str) -> Option<Self> {
        match event_type {
            "MessageCreated" => Some(Self::MessageCreated),
            "MessageEdited" => Some(Self::MessageEdited),
            "MessageDeleted" => Some(Self::MessageDeleted),
            "ChatCreated" => Some(Self::ChatCreated),
            "AppRenamed" => Some(Self::AppRenamed),
            _ => None,
        }
    }
}

/// The events that a follower follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The events of an app, of its chats and of their messages.
    App(AppToken),
    /// The events of a chat's messages.
    Chat(AppToken, ChatNumber),
}

impl Scope {
    pub(crate) fn app(self) -> AppToken {
        match self {
            Self::App(app) | Self::Chat(app, _) => app,
        }
    }
}

/// An event of an app or a chat. It is encoded once, when the first follower needs it.
pub(crate) struct FeedEvent {
    pub(crate) event_type: FeedEventType,
    pub(crate) stream: StreamId,
    recorded: RecordedEvent,
    encoded: OnceCell<Option<EncodedEvent>>,
}

/// The form of an event on the wire.
pub(crate) struct EncodedEvent {
    id: ConsistencyToken,
    event_type: FeedEventType,
    /// The sender of the message.
    pub(crate) sender: Option<Sender>,
    /// The event as a server-sent event.
    frame: Bytes,
    /// The range of the data in the frame.
    data: Range<usize>,
}

/// The data of an event.
#[derive(Serialize)]
struct EventData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_number: Option<ChatNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_number: Option<MessageNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<&'a Sender>,
    #[serde(skip_serializing_if = "DataChange::is_keep")]
    data: DataChange,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(serialize_with = "serialize_time")]
    at: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn serialize_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(time.to_rfc3339().as_str())
}

impl FeedEvent {
    /// Returns `None` for events that are not part of any feed.
    pub(crate) fn from_recorded(mut recorded: RecordedEvent) -> Option<Self> {
        let event_type = FeedEventType::from_stored(&recorded.event_type)?;
        let stream = StreamId::parse(&recorded.stream).ok()?;
        // Metadata is not sent to clients.
        recorded.metadata = Vec::new();
        Some(Self { event_type, stream, recorded, encoded: OnceCell::new() })
    }

    pub(crate) fn position(&self) -> Position {
        self.recorded.position
    }

    pub(crate) fn is_in(&self, scope: Scope) -> bool {
        match scope {
            Scope::App(app) => *self.stream.app() == app,
            Scope::Chat(app, chat) => self.stream == StreamId::Chat(app, chat),
        }
    }

    /// The bytes that the event occupies once it is encoded, approximately.
    pub(crate) fn size(&self) -> usize {
        2 * self.recorded.data.len() + OVERHEAD_BYTES
    }

    /// Encodes the event, unless it was encoded before. `None` if it can't be decoded: projections make such events
    /// dead letters, and the feed omits them.
    pub(crate) async fn encode(
        &self,
        log: &dyn EventStore,
        tag: LogTag,
    ) -> Result<Option<&EncodedEvent>, EventStoreError> {
        Ok(self.encoded.get_or_try_init(async || self.to_encoded(log, tag).await).await?.as_ref())
    }

    /// The encoded event; `None` if it was not encoded before or can't be decoded.
    pub(crate) fn encoded(&self) -> Option<&EncodedEvent> {
        self.encoded.get()?.as_ref()
    }

    async fn to_encoded(
        &self,
        log: &dyn EventStore,
        tag: LogTag,
    ) -> Result<Option<EncodedEvent>, EventStoreError> {
        let position = self.position();
        let event = match self.recorded.decode() {
            Ok(event) => event,
            Err(error) => {
                let position = position.get();
                if let Some(suppressed) = UNDECODABLE_LOG_THROTTLE.admit() {
                    warn!(position, %error, suppressed, "an event that can't be decoded is left out of the live feed");
                }
                return Ok(None);
            }
        };
        let (message_number, at) = (event.message_number(), self.recorded.recorded_at);
        let (mut chat_number, mut body, mut name, mut data) = (None, None, None, DataChange::Keep);
        if let StreamId::Chat(_, chat) = self.stream {
            chat_number = Some(chat);
        }
        let sender = match &event {
            Event::MessageCreated(created) => {
                body = Some(created.body.as_str());
                data = created.data.clone().map_or(DataChange::Keep, DataChange::Replace);
                created.sender.clone()
            }
            Event::MessageEdited(edited) => {
                body = Some(edited.body.as_str());
                data = edited.data.clone();
                self.sender_of(edited.message_number, log).await?
            }
            Event::MessageDeleted(deleted) => self.sender_of(deleted.message_number, log).await?,
            Event::ChatCreated(created) => {
                chat_number = Some(created.chat_number);
                None
            }
            Event::AppRenamed(renamed) => {
                name = Some(renamed.name.as_str());
                None
            }
            Event::AppCreated(_) => None,
        };
        let event = EventData { chat_number, message_number, body, sender: sender.as_ref(), data, name, at };
        // Text, numbers and times always serialize.
        let json = serde_json::to_string(&event).unwrap_or_default();
        Ok(Some(EncodedEvent::new(ConsistencyToken::new(tag, position), self.event_type, sender, &json)))
    }

    /// Finds the sender of a message of the event's chat. Only the event that created the message has the sender.
    async fn sender_of(
        &self,
        message: MessageNumber,
        log: &dyn EventStore,
    ) -> Result<Option<Sender>, EventStoreError> {
        let StreamId::Chat(app, chat) = self.stream else { return Ok(None) };
        let created = creation_lookup::find_message_created(log, app, chat, message).await?;
        Ok(match created.and_then(|created| created.decode().ok()) {
            Some(Event::MessageCreated(created)) => created.sender,
            _ => None,
        })
    }
}

impl EncodedEvent {
    fn new(id: ConsistencyToken, event_type: FeedEventType, sender: Option<Sender>, data: &str) -> Self {
        let mut frame = format!("id: {id}\nevent: {}\ndata: ", event_type.name());
        let start = frame.len();
        // JSON without white space has no line breaks.
        frame.push_str(data);
        let data = start..frame.len();
        frame.push_str("\n\n");
        Self { id, event_type, sender, frame: frame.into(), data }
    }

    /// The event as a server-sent event.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Appends the event as a JSON object.
    pub(crate) fn write_json(&self, json: &mut String) {
        // Writing to a string never fails.
        let _ = write!(json, r#"{{"id":"{}","event":"{}","data":"#, self.id, self.event_type.name());
        json.push_str(std::str::from_utf8(&self.frame[self.data.clone()]).unwrap_or("null"));
        json.push('}');
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::Revision;
    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;
    use chat_ports::event_store::LogId;
    use chat_sqlite::SqliteEventStore;
    use uuid::Uuid;

    use super::*;

    fn recorded(stream: &str, event_type: &str, data: &str) -> RecordedEvent {
        let version = if data.contains("sender") || data.contains("\"data\"") { 2 } else { 1 };
        RecordedEvent {
            position: Position::new(1_000),
            stream: stream.into(),
            revision: Revision::FIRST,
            id: EventId::new(Uuid::from_u128(1)),
            event_type: event_type.to_owned(),
            schema_version: SchemaVersion(version),
            recorded_at: Timestamp::from_millis(1_790_000_000_007),
            data: data.as_bytes().to_vec(),
            metadata: b"{}".to_vec(),
        }
    }

    async fn encode(stream: &str, event_type: &str, data: &str) -> Option<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteEventStore::open(&folder.path().join("events.db")).unwrap();
        let event = FeedEvent::from_recorded(recorded(stream, event_type, data))?;
        let encoded = event.encode(&log, LogId(Uuid::from_u128(82)).into()).await.unwrap()?;
        let mut json = String::new();
        encoded.write_json(&mut json);
        Some((String::from_utf8(encoded.frame().to_vec()).unwrap(), json))
    }

    #[tokio::test]
    async fn an_event_has_the_same_data_in_both_forms() {
        let app = format!("app-{}", "k".repeat(36));
        let chat = format!("chat-{}-3", "k".repeat(36));
        let at = r#""at":"2026-09-21T14:13:20.007Z""#;
        let (number, body) = (r#""message_number":7"#, r#""body":"a\nb""#);
        let sender_and_data = r#""sender":{"id":"u-17"},"data":{"a":[1e400]}"#;
        for (stream, event_type, payload, name, data) in [
            (
                &chat,
                "MessageCreated",
                format!("{{{number},{body}}}"),
                "message.created",
                format!("{{\"chat_number\":3,{number},{body},{at}}}"),
            ),
            (
                &chat,
                "MessageCreated",
                format!("{{{number},{body},{sender_and_data}}}"),
                "message.created",
                format!("{{\"chat_number\":3,{number},{body},{sender_and_data},{at}}}"),
            ),
            (
                &chat,
                "MessageEdited",
                format!("{{{number},{body},\"data\":null}}"),
                "message.edited",
                format!("{{\"chat_number\":3,{number},{body},\"data\":null,{at}}}"),
            ),
            (
                &chat,
                "MessageDeleted",
                format!("{{{number}}}"),
                "message.deleted",
                format!("{{\"chat_number\":3,{number},{at}}}"),
            ),
            (
                &app,
                "ChatCreated",
                r#"{"chat_number":3}"#.to_owned(),
                "chat.created",
                format!("{{\"chat_number\":3,{at}}}"),
            ),
            (
                &app,
                "AppRenamed",
                r#"{"name":"b"}"#.to_owned(),
                "app.renamed",
                format!("{{\"name\":\"b\",{at}}}"),
            ),
        ] {
            let (frame, json) = encode(stream, event_type, &payload).await.unwrap();
            assert_eq!(frame, format!("id: v1-2a.rs\nevent: {name}\ndata: {data}\n\n"));
            assert_eq!(json, format!(r#"{{"id":"v1-2a.rs","event":"{name}","data":{data}}}"#));
        }
    }

    #[tokio::test]
    async fn other_and_damaged_events_are_left_out() {
        let app = format!("app-{}", "k".repeat(36));
        assert_eq!(encode(&app, "AppCreated", r#"{"name":"a"}"#).await, None);
        assert_eq!(encode("chat-operations", "ChatCreated", r#"{"chat_number":3}"#).await, None);
        assert_eq!(encode(&app, "ChatCreated", "{").await, None);
    }
}
