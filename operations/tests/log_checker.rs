//! Tests of the background check of the log.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::operator_action::DeadLetterDiscarded;
use chat_domain::projection::ProjectionName;
use chat_domain::{AppToken, ExpectedRevision, Position, StreamId, Timestamp};
use chat_operations::events_check::{EventProblem, EventsChecker};
use chat_operations::log_checker::{self, LogCheckStatus};
use chat_operations::operator_actions::{Operator, record_action};
use chat_ports::event_store::{AppendGate, EventStore, NewEvent, StreamAppend};
use chat_sqlite::SqliteEventStore;
use tokio::sync::watch;
use uuid::Uuid;

/// More than the number of findings that a check keeps.
const EVENTS_OF_UNKNOWN_TYPES: u64 = 100;

/// Opens a new log, and appends events of unknown types.
async fn log_with_unknown_types(path: &Path, events: u64) -> SqliteEventStore {
    let log = SqliteEventStore::open(path).unwrap();
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
        events: (0..events).map(|_| event()).collect(),
    };
    for appended in log.append(vec![append]).await {
        appended.unwrap();
    }
    log
}

#[tokio::test]
async fn a_loss_after_many_events_of_unknown_types_closes_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = log_with_unknown_types(&path, EVENTS_OF_UNKNOWN_TYPES).await;
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("DELETE FROM events WHERE position = 90", []).unwrap();

    let gate = AppendGate::default();
    let (status_sender, status) = watch::channel(LogCheckStatus::default());
    // The check returns when it finds a loss.
    let check = log_checker::run(Arc::new(log), Duration::from_hours(1), gate.clone(), status_sender);
    tokio::time::timeout(Duration::from_mins(1), check).await.unwrap();
    let loss = status.borrow().loss.clone().unwrap();
    assert!(loss.contains("the events directly before position 91 are missing"), "{loss}");
    assert_eq!(gate.closed_because(), Some(loss));
}

#[tokio::test]
async fn a_discarded_event_is_taken_out_of_the_status_before_the_next_check() {
    let folder = tempfile::tempdir().unwrap();
    let log: Arc<dyn EventStore> =
        Arc::new(log_with_unknown_types(&folder.path().join("events.db"), 2).await);
    let (status_sender, mut status) = watch::channel(LogCheckStatus::default());
    // The next check is a day later.
    let check =
        log_checker::run(Arc::clone(&log), Duration::from_hours(24), AppendGate::default(), status_sender);
    let check = tokio::spawn(check);
    // Each event counts twice: its type is unknown, and its metadata is invalid.
    let undecodable = status.wait_for(|status| status.undecodable > 0).await.unwrap().undecodable;
    let operator = Operator { name: "alice".to_owned(), program: "test".to_owned(), job: None };
    for (position, left) in [(1, undecodable / 2), (2, 0)] {
        let discard = DeadLetterDiscarded {
            projection: ProjectionName::ReadModel,
            position: Position::new(position),
            reason: "a test".to_owned(),
        };
        record_action(&*log, &operator, &discard.into()).await.unwrap();
        let settled = status.wait_for(|status| status.undecodable == left);
        tokio::time::timeout(Duration::from_mins(1), settled)
            .await
            .expect("the count did not change after the discard")
            .unwrap();
    }
    check.abort();
}

#[tokio::test]
async fn a_loss_at_the_end_of_the_log_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = log_with_unknown_types(&path, EVENTS_OF_UNKNOWN_TYPES).await;
    let mut checker = EventsChecker::new(&log, Position::START, 1).await.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("DELETE FROM events WHERE position > 90", []).unwrap();
    while checker.check_page().await.unwrap() {}
    let result = checker.checked();
    assert_eq!(result.position, Position::new(EVENTS_OF_UNKNOWN_TYPES));
    let found = result.findings.last().unwrap();
    assert_eq!((found.position, found.problem), (Position::new(91), EventProblem::Unreadable));
}
