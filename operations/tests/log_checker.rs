//! Tests of the background check of the log.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{AppToken, ExpectedRevision, StreamId, Timestamp};
use chat_operations::log_checker::{self, LogCheckStatus};
use chat_ports::event_store::{AppendGate, EventStore, NewEvent, StreamAppend};
use chat_sqlite::SqliteEventStore;
use tokio::sync::watch;
use uuid::Uuid;

/// More than the number of findings that a check keeps.
const EVENTS_OF_UNKNOWN_TYPES: u64 = 100;

#[tokio::test]
async fn a_loss_after_many_events_of_unknown_types_closes_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = SqliteEventStore::open(&path).unwrap();
    let event = || NewEvent {
        id: EventId::new(Uuid::now_v7()),
        event_type: "SomethingHappened",
        schema_version: SchemaVersion(1),
        recorded_at: Timestamp::from_millis(0),
        data: "{}".into(),
        metadata: "{}".into(),
    };
    let append = StreamAppend {
        stream: StreamId::App(AppToken::generate(rand::fill)).to_string().into(),
        expected_revision: ExpectedRevision::from_last_revision(None),
        events: (0..EVENTS_OF_UNKNOWN_TYPES).map(|_| event()).collect(),
    };
    for appended in log.append(vec![append]).await {
        appended.unwrap();
    }
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("DELETE FROM events WHERE position = 90", []).unwrap();

    let gate = AppendGate::default();
    let (status_sender, status) = watch::channel(LogCheckStatus::default());
    // The check returns when it finds a loss.
    let check = log_checker::run(Arc::new(log), Duration::from_hours(1), gate.clone(), status_sender);
    tokio::time::timeout(Duration::from_mins(1), check).await.unwrap();
    let loss = status.borrow().loss.clone().unwrap();
    assert!(loss.contains("the events directly before position 91 are missing"), "{loss}");
    assert_eq!(gate.closed_because(), Some(loss.as_str()));
}
