//! Logs for tests: on both engines the same events, with fixed ids, times and actors.

use std::sync::Arc;

use chat_domain::event::{
    AppCreated, AppRenamed, ChatCreated, MessageCreated, MessageDeleted, MessageEdited, SchemaVersion,
};
use chat_domain::metadata::{Actor, ActorKind, EventId};
use chat_domain::{
    AppName, AppToken, ChatNumber, Event, ExpectedRevision, MessageBody, MessageNumber, Metadata, Position,
    Revision, StreamId, Timestamp,
};
use chat_kurrentdb::{KurrentDbEventStore, KurrentDbUrl};
use chat_ports::event_store::{EventStore, EventTypeFilter, NewEvent, ReadStart, StreamAppend, StreamRead};
use chat_sqlite::SqliteEventStore;
use chat_testing::kurrentdb::FakeKurrentDb;
use tempfile::TempDir;
use uuid::Uuid;

/// A log and what it is kept in.
pub struct Log {
    pub log: Arc<dyn EventStore>,
    told: std::sync::atomic::AtomicU64,
    _kept_in: Box<dyn std::any::Any>,
}

/// An empty log on each engine.
pub async fn on_both_engines() -> [Log; 2] {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let sqlite = tokio::task::spawn_blocking(move || SqliteEventStore::open(&path)).await.unwrap().unwrap();
    let server = FakeKurrentDb::start().unwrap();
    let url = KurrentDbUrl::parse(&server.url()).unwrap();
    let kurrentdb = KurrentDbEventStore::open(&url).await.unwrap();
    [Log::new(Arc::new(sqlite), folder), Log::new(Arc::new(kurrentdb), server)]
}

/// An event to tell.
#[derive(Clone, Debug)]
pub struct Told {
    pub stream: String,
    pub event_type: &'static str,
    pub data: String,
    pub recorded_at: Timestamp,
    pub actor: Actor,
    pub correlation: String,
}

impl Told {
    /// An event of a stream; all else can be changed.
    pub fn new(stream: StreamId, event: impl Into<Event>) -> Self {
        let event: Event = event.into();
        Self {
            stream: stream.to_string(),
            event_type: event.event_type(),
            data: event.payload(),
            recorded_at: at(0),
            actor: Actor { kind: ActorKind::App, address: Some("10.0.0.7".to_owned()), ..Actor::default() },
            correlation: "request".to_owned(),
        }
    }

    pub fn at(mut self, second: i64) -> Self {
        self.recorded_at = at(second);
        self
    }

    pub fn by(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    pub fn in_request(mut self, correlation: &str) -> Self {
        correlation.clone_into(&mut self.correlation);
        self
    }
}

impl Log {
    fn new(log: Arc<dyn EventStore>, kept_in: impl std::any::Any) -> Self {
        Self { log, told: 1.into(), _kept_in: Box::new(kept_in) }
    }

    /// Appends an event at the end of its stream; its position.
    pub async fn tell(&self, told: Told) -> Position {
        let stream: Arc<str> = told.stream.into();
        let end = StreamRead {
            stream: Arc::clone(&stream),
            start: ReadStart::End,
            filter: EventTypeFilter::All,
            limit: 1,
        };
        let last: Option<Revision> =
            self.log.read_stream(end).await.unwrap().pop().map(|event| event.revision);
        let number = self.told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let metadata = Metadata {
            command: "Test".to_owned(),
            actor: told.actor,
            correlation_id: told.correlation.clone(),
            causation_id: told.correlation,
            idempotency: None,
        };
        let event = NewEvent {
            id: EventId::new(Uuid::from_u128(u128::from(number))),
            event_type: told.event_type,
            schema_version: SchemaVersion::CURRENT,
            recorded_at: told.recorded_at,
            data: told.data,
            metadata: serde_json::to_string(&metadata).unwrap().into(),
        };
        let append = StreamAppend {
            stream,
            expected_revision: ExpectedRevision::from_last_revision(last),
            events: vec![event],
        };
        self.log.append(vec![append]).await.remove(0).unwrap().position
    }

    /// Tells the first events of a stream, many in an append.
    pub async fn tell_at_once(&self, stream: StreamId, events: impl IntoIterator<Item = Event>) {
        let stream: Arc<str> = stream.to_string().into();
        let events: Vec<NewEvent> = events
            .into_iter()
            .map(|event| NewEvent {
                id: EventId::new(Uuid::new_v4()),
                event_type: event.event_type(),
                schema_version: SchemaVersion::CURRENT,
                recorded_at: at(0),
                data: event.payload(),
                metadata: "{}".into(),
            })
            .collect();
        let mut last = None;
        for events in events.chunks(4_000) {
            let (stream, expected) = (Arc::clone(&stream), ExpectedRevision::from_last_revision(last));
            let append = StreamAppend { stream, expected_revision: expected, events: events.to_vec() };
            last = Some(self.log.append(vec![append]).await.remove(0).unwrap().revision);
        }
    }

    /// Tells one after another; their positions.
    pub async fn tell_all(&self, events: impl IntoIterator<Item = Told>) -> Vec<Position> {
        let mut positions = Vec::new();
        for told in events {
            positions.push(self.tell(told).await);
        }
        positions
    }
}

/// So many seconds after the story began.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + second * 1_000)
}

pub fn token(app: u8) -> AppToken {
    AppToken::parse(&char::from(b'a' + app).to_string().repeat(36)).unwrap()
}

pub fn app(number: u8) -> StreamId {
    StreamId::App(token(number))
}

pub fn chat(number: u8, chat: u64) -> StreamId {
    StreamId::Chat(token(number), chat_number(chat))
}

pub fn chat_number(number: u64) -> ChatNumber {
    ChatNumber::try_from(number).unwrap()
}

pub fn message_number(number: u64) -> MessageNumber {
    MessageNumber::try_from(number).unwrap()
}

pub fn app_created(name: &str) -> Event {
    AppCreated { name: AppName::parse(name.to_owned()).unwrap() }.into()
}

pub fn app_renamed(name: &str) -> Event {
    AppRenamed { name: AppName::parse(name.to_owned()).unwrap() }.into()
}

pub fn chat_created(number: u64) -> Event {
    ChatCreated { chat_number: chat_number(number) }.into()
}

pub fn created(number: u64, body: &str) -> Event {
    MessageCreated { message_number: message_number(number), body: text(body) }.into()
}

pub fn edited(number: u64, body: &str) -> Event {
    MessageEdited { message_number: message_number(number), body: text(body) }.into()
}

pub fn deleted(number: u64) -> Event {
    MessageDeleted { message_number: message_number(number) }.into()
}

fn text(body: &str) -> MessageBody {
    MessageBody::parse(body.to_owned()).unwrap()
}
