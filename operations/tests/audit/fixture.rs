//! Test logs in SQLite and a fake KurrentDB.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::event::{
    AppCreated, AppRenamed, ChatCreated, MessageCreated, MessageDeleted, MessageEdited, SchemaVersion,
};
use chat_domain::metadata::{Actor, ActorKind, EventId};
use chat_domain::{
    AppName, AppToken, ChatNumber, DataChange, Event, ExpectedRevision, MessageBody, MessageNumber, Metadata,
    Position, Revision, Sender, SenderId, StreamId, Timestamp,
};
use chat_kurrentdb::{CallTimeouts, KurrentDbEventStore, KurrentDbUrl};
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewEvent, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription,
};
use chat_sqlite::SqliteEventStore;
use chat_testing::kurrentdb::FakeKurrentDb;
use tempfile::TempDir;
use uuid::Uuid;

/// A log with its storage.
pub struct Log {
    pub event_store: Arc<dyn EventStore>,
    next_id: std::sync::atomic::AtomicU64,
    _storage: Box<dyn std::any::Any>,
}

/// Creates an empty log in SQLite, and one in a fake KurrentDB.
pub async fn on_sqlite_and_kurrentdb() -> [Log; 2] {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let sqlite = tokio::task::spawn_blocking(move || SqliteEventStore::open(&path)).await.unwrap().unwrap();
    let server = FakeKurrentDb::start().unwrap();
    let url = KurrentDbUrl::parse(&server.url()).unwrap();
    // A busy machine may exceed the default time limits.
    let timeouts = CallTimeouts { attempt: Duration::from_secs(10), total: Duration::from_secs(30) };
    let kurrentdb = KurrentDbEventStore::open_with_timeouts(&url, timeouts).await.unwrap();
    [Log::new(Arc::new(sqlite), folder), Log::new(Arc::new(kurrentdb), server)]
}

/// An event to append.
#[derive(Clone, Debug)]
pub struct TestEvent {
    pub stream: String,
    pub event_type: &'static str,
    pub schema_version: SchemaVersion,
    pub data: String,
    pub recorded_at: Timestamp,
    pub actor: Actor,
    pub correlation: String,
}

impl TestEvent {
    /// Creates an event of a stream, with defaults for all other fields.
    pub fn new(stream: StreamId, event: impl Into<Event>) -> Self {
        let event: Event = event.into();
        Self {
            stream: stream.to_string(),
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            data: event.payload(),
            recorded_at: at(0),
            actor: Actor { kind: ActorKind::App, address: Some("10.0.0.7".to_owned()), ..Actor::default() },
            correlation: "request".to_owned(),
        }
    }

    /// Sets the time of the event: `second` seconds after the base time of [`at`].
    pub fn at(mut self, second: i64) -> Self {
        self.recorded_at = at(second);
        self
    }

    pub fn by(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// Sets the correlation id and the causation id of the event.
    pub fn in_request(mut self, correlation: &str) -> Self {
        correlation.clone_into(&mut self.correlation);
        self
    }
}

impl Log {
    fn new(event_store: Arc<dyn EventStore>, storage: impl std::any::Any) -> Self {
        Self { event_store, next_id: 1.into(), _storage: Box::new(storage) }
    }

    /// Appends an event at the end of its stream, and returns its position.
    pub async fn append(&self, event: TestEvent) -> Position {
        let stream: Arc<str> = event.stream.into();
        let last_event = StreamRead::last_event(Arc::clone(&stream));
        let last: Option<Revision> =
            self.event_store.read_stream(last_event).await.unwrap().pop().map(|event| event.revision);
        let number = self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let metadata = Metadata {
            command: "Test".to_owned(),
            actor: event.actor,
            correlation_id: event.correlation.clone(),
            causation_id: event.correlation,
            idempotency: None,
        };
        let new_event = NewEvent {
            id: EventId::new(Uuid::from_u128(u128::from(number))),
            event_type: event.event_type,
            schema_version: event.schema_version,
            recorded_at: event.recorded_at,
            data: event.data,
            metadata: serde_json::to_string(&metadata).unwrap().into(),
        };
        let append = StreamAppend {
            stream,
            expected_revision: ExpectedRevision::from_last_revision(last),
            events: vec![new_event],
        };
        self.event_store.append(vec![append]).await.remove(0).unwrap().position
    }

    /// Appends events to a new stream, up to 4,000 per append, with random ids and without an actor.
    pub async fn append_in_chunks(&self, stream: StreamId, events: impl IntoIterator<Item = Event>) {
        let stream: Arc<str> = stream.to_string().into();
        let events: Vec<NewEvent> = events
            .into_iter()
            .map(|event| NewEvent {
                id: EventId::new(Uuid::new_v4()),
                event_type: event.event_type(),
                schema_version: event.schema_version(),
                recorded_at: at(0),
                data: event.payload(),
                metadata: "{}".into(),
            })
            .collect();
        let mut last = None;
        for events in events.chunks(4_000) {
            let (stream, expected) = (Arc::clone(&stream), ExpectedRevision::from_last_revision(last));
            let append = StreamAppend { stream, expected_revision: expected, events: events.to_vec() };
            last = Some(self.event_store.append(vec![append]).await.remove(0).unwrap().revision);
        }
    }

    /// Appends events one by one, and returns their positions.
    pub async fn append_all(&self, events: impl IntoIterator<Item = TestEvent>) -> Vec<Position> {
        let mut positions = Vec::new();
        for event in events {
            positions.push(self.append(event).await);
        }
        positions
    }
}

/// Returns the time `second` seconds after the base time of the tests.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + second * 1_000)
}

/// The token of an app: 36 times the same letter, `b` for app 1.
pub fn token(app: u8) -> AppToken {
    AppToken::parse(&char::from(b'a' + app).to_string().repeat(36)).unwrap()
}

/// The stream of an app.
pub fn app(number: u8) -> StreamId {
    StreamId::App(token(number))
}

/// The stream of a chat of an app.
pub fn chat(app: u8, number: u64) -> StreamId {
    StreamId::Chat(token(app), chat_number(number))
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

/// Returns the creation of a message with a sender and data.
pub fn created_by(number: u64, body: &str, sender_id: &str, data: &str) -> Event {
    let sender = Sender { id: SenderId::parse(sender_id.to_owned()).unwrap(), name: None };
    let (sender, data) = (Some(sender), Some(data.parse().unwrap()));
    MessageCreated { message_number: message_number(number), body: text(body), sender, data }.into()
}

/// Returns an edit that also changes the data.
pub fn edited_data(number: u64, body: &str, data: DataChange) -> Event {
    MessageEdited { message_number: message_number(number), body: text(body), data }.into()
}

pub fn created(number: u64, body: &str) -> Event {
    MessageCreated { message_number: message_number(number), body: text(body), sender: None, data: None }
        .into()
}

pub fn edited(number: u64, body: &str) -> Event {
    MessageEdited { message_number: message_number(number), body: text(body), data: DataChange::Keep }.into()
}

pub fn deleted(number: u64) -> Event {
    MessageDeleted { message_number: message_number(number) }.into()
}

fn text(body: &str) -> MessageBody {
    MessageBody::parse(body.to_owned()).unwrap()
}

/// An event store that counts the events read, except those of `find_event` and subscriptions.
pub struct CountingEventStore {
    log: Arc<dyn EventStore>,
    events_read: AtomicUsize,
}

impl CountingEventStore {
    pub fn new(log: &Log) -> Self {
        Self { log: Arc::clone(&log.event_store), events_read: AtomicUsize::new(0) }
    }

    pub fn events_read(&self) -> usize {
        self.events_read.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl EventStore for CountingEventStore {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.log.log_id().await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.log.lineage().await
    }

    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.log.begin_incarnation(incarnation).await
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        self.log.verify_identity().await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        self.log.append(appends).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let events = self.log.read_stream(read).await?;
        self.events_read.fetch_add(events.len(), Ordering::Relaxed);
        Ok(events)
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let events = self.log.read_all(after, limit).await?;
        self.events_read.fetch_add(events.len(), Ordering::Relaxed);
        Ok(events)
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let events = self.log.read_all_backwards(before, limit).await?;
        self.events_read.fetch_add(events.len(), Ordering::Relaxed);
        Ok(events)
    }

    async fn find_event(&self, wanted: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.log.find_event(wanted).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.log.head().await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.log.subscribe(after).await
    }

    fn has_contiguous_positions(&self) -> bool {
        self.log.has_contiguous_positions()
    }
}
