//! Tests of reads that check the event log for damage.

use std::path::Path;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError, NewEvent, StreamAppend};
use chat_sqlite::SqliteEventStore;
use rusqlite::Connection;
use uuid::Uuid;

fn new_append(stream: u32) -> StreamAppend {
    let event = |event_type| NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type,
        schema_version: SchemaVersion::FIRST,
        recorded_at: Timestamp::from_millis(1_790_000_000_000),
        data: "{}".to_owned(),
        metadata: "{}".into(),
    };
    let events = vec![event("MessageCreated"), event("MessageDeleted")];
    let expected_revision = ExpectedRevision::NoStream;
    StreamAppend { stream: format!("chat-T-{stream}").into(), expected_revision, events }
}

/// Inserts an event at position 21 while the schema lacks `index`, so that the index lacks this event.
fn insert_without_index(path: &Path, index: &str) {
    let connection = Connection::open(path).unwrap();
    let delete_index = "DELETE FROM sqlite_schema WHERE type = 'index' AND name = ?1";
    connection
        .execute_batch("PRAGMA writable_schema = ON; CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema")
        .unwrap();
    assert_eq!(connection.execute(delete_index, [index]).unwrap(), 1);
    connection.execute_batch("PRAGMA schema_version = 1000").unwrap();
    // A new connection reads the schema without the index.
    let without_index = Connection::open(path).unwrap();
    without_index
        .execute(
            "INSERT INTO events SELECT 21, stream, 9, randomblob(16), event_type, schema_version, recorded_at, data, metadata
             FROM events WHERE position = 20",
            [],
        )
        .unwrap();
    drop(without_index);
    connection.execute("INSERT INTO sqlite_schema SELECT * FROM kept WHERE name = ?1", [index]).unwrap();
    connection.execute_batch("PRAGMA schema_version = 1001").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_an_index_lacks_is_damage() {
    // Both indexes should have the inserted event, a copy of the `MessageDeleted` at position 20.
    for index in ["events_in_stream", "events_changing"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let log = SqliteEventStore::open(&path).unwrap();
        log.append((0..10).map(new_append).collect()).await;
        assert_eq!(
            log.read_all_checked(Position::new(5), 100).await.unwrap(),
            log.read_all(Position::new(5), 100).await.unwrap()
        );
        insert_without_index(&path, index);
        assert_eq!(log.read_all_checked(Position::START, 20).await.unwrap().len(), 20, "{index}");
        let found = log.read_all_checked(Position::new(15), 20).await;
        assert!(
            matches!(&found, Err(EventStoreError::Damaged(error))
            if error.to_string().contains("position 21")),
            "{index}: {found:?}"
        );
        assert_eq!(log.read_all(Position::new(15), 20).await.unwrap().len(), 6, "{index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_hits_no_event_is_found_in_the_file() {
    const PAGE_BYTES: usize = 4_096;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = SqliteEventStore::open(&path).unwrap();
    log.append((0..10).map(new_append).collect()).await;
    log.close().await.unwrap();
    assert_eq!(log.check_file().await.unwrap(), Some(Vec::new()));
    drop(log);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE small (number INTEGER); INSERT INTO small VALUES (1)").unwrap();
    let root_page: usize = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'small'", [], |row| row.get(0))
        .unwrap();
    // SQLite copies the WAL into the database file when the last connection is closed, and the log may still be closing
    // its own. So the test copies the WAL itself.
    let is_busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert!(!is_busy, "the page is still in the WAL");
    drop(connection);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[(root_page - 1) * PAGE_BYTES..root_page * PAGE_BYTES].fill(0xa5);
    std::fs::write(&path, damaged).unwrap();

    let log = SqliteEventStore::open_read_only(&path).unwrap();
    assert_eq!(log.read_all_checked(Position::START, 100).await.unwrap().len(), 20);
    // SQLite either lists the damage, or can't go on because of it.
    let found = log.check_file().await;
    assert!(
        matches!(&found, Ok(Some(problems)) if !problems.is_empty())
            || matches!(&found, Err(EventStoreError::Damaged(_))),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_whose_stream_is_lost_are_damage_also_at_the_end_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = SqliteEventStore::open(&path).unwrap();
    log.append((0..10).map(new_append).collect()).await;
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    connection
        .execute("DELETE FROM streams WHERE id = (SELECT stream FROM events WHERE position = 20)", [])
        .unwrap();
    assert_eq!(log.read_all_checked(Position::START, 18).await.unwrap().len(), 18);
    for after in [10, 18, 19] {
        let found = log.read_all_checked(Position::new(after), 20).await;
        assert!(matches!(&found, Err(EventStoreError::Damaged(_))), "after {after}: {found:?}");
    }
    assert!(log.read_all_checked(Position::new(20), 20).await.unwrap().is_empty());
}
