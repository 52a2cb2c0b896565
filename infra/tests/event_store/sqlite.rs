//! SQLite: the contract, and what is its own.

use std::path::Path;
use std::sync::Arc;

use chat_domain::{ExpectedRevision, Position};
use chat_infra::event_store::{EventStoreError, SqliteEventStore};

use crate::contract::{Log, append, append_one, event, event_store_contract};

fn open(folder: &Path) -> Log {
    Arc::new(SqliteEventStore::open(&folder.join("below/events.db")).unwrap())
}

event_store_contract!(open);

#[tokio::test]
async fn a_file_that_is_no_event_log_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let text = "Dear diary, ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let refused = SqliteEventStore::open(&path).map(drop);
    assert!(matches!(refused, Err(EventStoreError::Damaged(_))), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    let path = folder.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE diary (day)").unwrap();
    let refused = SqliteEventStore::open(&path).map(drop);
    assert!(matches!(refused, Err(EventStoreError::Damaged(_))), "{refused:?}");
}

#[tokio::test]
async fn a_log_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let path = folder.path().join("below/events.db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteEventStore::open(&path).map(drop);
    assert!(matches!(refused, Err(EventStoreError::Damaged(_))), "{refused:?}");
}

#[tokio::test]
async fn a_read_of_large_events_stops_early_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut events = Vec::new();
    for _ in 0..20 {
        let mut large = event("A");
        large.data = format!("\"{}\"", "x".repeat(1 << 20));
        events.push(large);
    }
    append_one(&log, append("s", ExpectedRevision::NoStream, events)).await.unwrap();
    let mut after = Position::START;
    let mut reads = Vec::new();
    loop {
        let events = log.read_all(after, 1_000).await.unwrap();
        let Some(last) = events.last() else { break };
        after = last.position;
        reads.push(events.len());
    }
    assert_eq!(reads.iter().sum::<usize>(), 20);
    assert!(reads.len() > 1, "{reads:?}");
}

#[tokio::test]
async fn a_payload_damaged_on_disk_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    append_one(&log, append("s", ExpectedRevision::NoStream, vec![event("MessageCreated")])).await.unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("below/events.db")).unwrap();
    connection.execute("UPDATE events SET data = CAST(x'ff00' AS TEXT)", []).unwrap();
    let events = log.read_all(Position::START, 10).await.unwrap();
    assert_eq!(events[0].data, [0xff, 0]);
    assert!(events[0].decode().is_err());
}
