//! Builds logs for tests, in memory or in an event store.

use std::collections::HashMap;
use std::sync::Arc;

use chat_domain::event::{
    AppCreated, AppRenamed, ChatCreated, MessageCreated, MessageDeleted, MessageEdited, SchemaVersion,
};
use chat_domain::metadata::EventId;
use chat_domain::{
    AppName, AppToken, ChatNumber, DataChange, Event, ExpectedRevision, MessageBody, MessageData,
    MessageNumber, Position, Revision, Sender, SenderId, SenderName, StreamId, Timestamp,
};
use chat_ports::event_store::{EventStore, LogId, NewEvent, RecordedEvent, StreamAppend};
use uuid::Uuid;

pub const LOG: LogId = LogId(Uuid::from_u128(7));

pub fn token(app_number: u8) -> AppToken {
    const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    AppToken::parse(&char::from(ALPHABET[usize::from(app_number)]).to_string().repeat(36)).unwrap()
}

pub fn app(number: u8) -> StreamId {
    StreamId::App(token(number))
}

pub fn chat(app_number: u8, number: u64) -> StreamId {
    StreamId::Chat(token(app_number), chat_number(number))
}

pub fn chat_number(number: u64) -> ChatNumber {
    ChatNumber::try_from(number).unwrap()
}

pub fn message_number(number: u64) -> MessageNumber {
    MessageNumber::try_from(number).unwrap()
}

fn name(text: &str) -> AppName {
    AppName::parse(text.to_owned()).unwrap()
}

fn body(text: &str) -> MessageBody {
    MessageBody::parse(text.to_owned()).unwrap()
}

pub fn app_created(text: &str) -> Event {
    AppCreated { name: name(text) }.into()
}

pub fn app_renamed(text: &str) -> Event {
    AppRenamed { name: name(text) }.into()
}

pub fn chat_created(number: u64) -> Event {
    ChatCreated { chat_number: chat_number(number) }.into()
}

pub fn created(number: u64, text: &str) -> Event {
    MessageCreated { message_number: message_number(number), body: body(text), sender: None, data: None }
        .into()
}

pub fn edited(number: u64, text: &str) -> Event {
    MessageEdited { message_number: message_number(number), body: body(text), data: DataChange::Keep }.into()
}

/// Returns the creation of a message with data. The sender depends on the message's number.
pub fn created_by_sender(number: u64, text: &str) -> Event {
    let id = SenderId::parse(format!("u-{}", number % 2)).unwrap();
    let name = SenderName::parse(format!("name {number}")).ok();
    let (sender, data) = (Some(Sender { id, name }), Some(data(number)));
    MessageCreated { message_number: message_number(number), body: body(text), sender, data }.into()
}

/// Returns an edit with a change of the data.
pub fn edited_data(number: u64, text: &str, data: DataChange) -> Event {
    MessageEdited { message_number: message_number(number), body: body(text), data }.into()
}

pub fn data(number: u64) -> MessageData {
    format!(r#"{{"number":{number}}}"#).parse().unwrap()
}

pub fn deleted(number: u64) -> Event {
    MessageDeleted { message_number: message_number(number) }.into()
}

/// Returns a different time for each number. In a [`LogBuilder`], the number is the position of the event.
pub fn at(number: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + i64::try_from(number).unwrap() * 1_000)
}

/// A log in memory. Its positions are 10, 20, 30 …, because positions need not be contiguous.
#[derive(Clone, Debug, Default)]
pub struct LogBuilder {
    pub events: Vec<RecordedEvent>,
    revisions: HashMap<String, u64>,
}

impl LogBuilder {
    /// Creates a log of an app with one chat.
    pub fn with_chat() -> Self {
        let mut builder = Self::default();
        builder.append(app(1), app_created("one")).append(app(1), chat_created(1));
        builder
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better at the calls")]
    pub fn append(&mut self, stream: StreamId, event: Event) -> &mut Self {
        let payload = event.payload();
        self.append_raw(&stream.to_string(), event.event_type(), &payload)
    }

    pub fn append_raw(&mut self, stream: &str, event_type: &str, data: &str) -> &mut Self {
        let position = (self.events.len() as u64 + 1) * 10;
        let revision = self.revisions.entry(stream.to_owned()).or_default();
        self.events.push(RecordedEvent {
            position: Position::new(position),
            stream: stream.into(),
            revision: Revision::new(*revision),
            id: EventId::new(Uuid::from_u128(u128::from(position))),
            event_type: event_type.to_owned(),
            schema_version: newest_version(event_type),
            recorded_at: at(position),
            data: data.as_bytes().to_vec(),
            metadata: b"{}".to_vec(),
        });
        *revision += 1;
        self
    }

    /// Skips a revision of a stream.
    pub fn skip_revision(&mut self, stream: StreamId) -> &mut Self {
        *self.revisions.entry(stream.to_string()).or_default() += 1;
        self
    }

    pub fn head(&self) -> Position {
        self.events.last().map_or(Position::START, |event| event.position)
    }
}

/// Returns the newest version of an event type; 1 for an unknown type. A payload of an older version is also valid in
/// the newest one.
fn newest_version(event_type: &str) -> SchemaVersion {
    Event::newest_version(event_type).unwrap_or(SchemaVersion::FIRST)
}

/// Appends one event to an event store. `revision` must be the next one of the stream.
pub async fn append(log: &Arc<dyn EventStore>, stream: StreamId, revision: u64, event: &Event) -> Position {
    append_raw(log, &stream.to_string(), revision, event.event_type(), event.payload()).await
}

pub async fn append_raw(
    log: &Arc<dyn EventStore>,
    stream: &str,
    revision: u64,
    event_type: &'static str,
    data: String,
) -> Position {
    let append = StreamAppend {
        stream: stream.into(),
        expected_revision: ExpectedRevision::from_last_revision(revision.checked_sub(1).map(Revision::new)),
        events: vec![NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type,
            schema_version: newest_version(event_type),
            recorded_at: at(revision),
            data,
            metadata: "{}".into(),
        }],
    };
    log.append(vec![append]).await.remove(0).unwrap().position
}

/// Appends an app with one chat of `message_count` messages. Returns the position of the last event.
pub async fn append_chat(log: &Arc<dyn EventStore>, app_number: u8, message_count: u64) -> Position {
    let new = |event: &Event| NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type: event.event_type(),
        schema_version: event.schema_version(),
        recorded_at: at(1),
        data: event.payload(),
        metadata: "{}".into(),
    };
    let append = |stream: StreamId, events: Vec<Event>| StreamAppend {
        stream: stream.to_string().into(),
        expected_revision: ExpectedRevision::NoStream,
        events: events.iter().map(new).collect(),
    };
    let messages = (1..=message_count).map(|n| created(n, &format!("message {n}"))).collect();
    let appends = vec![
        append(app(app_number), vec![app_created("an app"), chat_created(1)]),
        append(chat(app_number, 1), messages),
    ];
    let mut last = Position::START;
    for appended in log.append(appends).await {
        last = last.max(appended.unwrap().position);
    }
    last
}
