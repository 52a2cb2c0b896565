//! Reads a log, and appends events to it that no process of the system would append.

use std::sync::Arc;

use chat_domain::event::{MessageCreated, SchemaVersion};
use chat_domain::metadata::EventId;
use chat_domain::{
    Event, ExpectedRevision, MessageBody, MessageNumber, Metadata, Position, Revision, Timestamp,
};
use chat_ports::event_store::{EventStore, NewEvent, RecordedEvent, StreamAppend, StreamRead};
use chat_postgres::{PostgresEventStore, PostgresUrl};
use chat_sqlite::SqliteEventStore;
use uuid::Uuid;

use crate::test_system::TestSystem;

/// Opens the log of a system.
pub async fn log(system: &TestSystem) -> Arc<dyn EventStore> {
    match system.flag("--event-store-url") {
        None => Arc::new(SqliteEventStore::open(&system.folder().join("events.db")).expect("the log")),
        Some(url) => {
            let url = PostgresUrl::parse(url).expect("a URL");
            Arc::new(PostgresEventStore::open(&url).await.expect("the log"))
        }
    }
}

/// Appends an event of the first schema version to the end of a stream.
pub async fn append(log: &dyn EventStore, stream: &str, event_type: &'static str, data: &str) -> Position {
    append_version(log, stream, event_type, SchemaVersion::FIRST, data).await
}

/// Appends an event of the given schema version to the end of a stream.
pub async fn append_version(
    log: &dyn EventStore,
    stream: &str,
    event_type: &'static str,
    schema_version: SchemaVersion,
    data: &str,
) -> Position {
    let last: Option<Revision> = log
        .read_stream(StreamRead::last_event(stream))
        .await
        .expect("the stream")
        .pop()
        .map(|event| event.revision);
    let metadata = serde_json::to_string(&Metadata::default()).expect("JSON");
    let append = StreamAppend {
        stream: stream.into(),
        expected_revision: ExpectedRevision::from_last_revision(last),
        events: vec![NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type,
            schema_version,
            recorded_at: Timestamp::from_millis(1_790_000_000_000),
            data: data.to_owned(),
            metadata: metadata.into(),
        }],
    };
    let appended = log.append(vec![append]).await.remove(0);
    appended.expect("an append").position
}

/// Returns the payload of a `MessageCreated` event.
pub fn message_created_payload(number: u64, body: &str) -> String {
    let message_number = MessageNumber::try_from(number).expect("a number");
    let body = MessageBody::parse(body.to_owned()).expect("a text");
    Event::from(MessageCreated { message_number, body, sender: None, data: None }).payload()
}

/// Reads all events.
pub async fn events(log: &dyn EventStore) -> Vec<RecordedEvent> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = events.last().map_or(Position::START, |event| event.position);
        let page = log.read_all(after, 1_000).await.expect("the log");
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}
