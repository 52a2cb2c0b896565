//! Tests of copies of an event log.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Timestamp};
use chat_ports::event_store::{
    AppendError, EventStore, EventStoreError, LogId, NewEvent, NewIncarnation, StreamAppend,
};
use chat_sqlite::{SqliteEventStore, check_event_log_file, copy_event_log};
use uuid::Uuid;

fn new_append(stream: u32) -> StreamAppend {
    let event = NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type: "MessageCreated",
        schema_version: SchemaVersion::FIRST,
        recorded_at: Timestamp::from_millis(1_790_000_000_000),
        data: format!(r#"{{"body":"{}"}}"#, "x".repeat(500)),
        metadata: "{}".into(),
    };
    let expected_revision = ExpectedRevision::NoStream;
    StreamAppend { stream: format!("chat-T-{stream}").into(), expected_revision, events: vec![event] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_holds_the_log_and_can_only_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("events.db"), folder.path().join("copy.db"));
    let log = SqliteEventStore::open(&path).unwrap();
    log.append((0..100).map(new_append).collect()).await;
    copy_event_log(&path, &copy).unwrap();
    assert!(copy_event_log(&path, &copy).is_err(), "a copy was overwritten");
    log.append(vec![new_append(100)]).await;
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    check_event_log_file(&copy).unwrap();

    let opened_copy = SqliteEventStore::open_read_only(&copy).unwrap();
    assert_eq!(opened_copy.log_id().await.unwrap(), log.log_id().await.unwrap());
    assert_eq!(opened_copy.head().await.unwrap(), Position::new(100));
    let copied = opened_copy.read_all(Position::START, 1_000).await.unwrap();
    assert_eq!(copied, log.read_all(Position::START, 100).await.unwrap());
    let refused = opened_copy.append(vec![new_append(101)]).await.remove(0);
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    drop(opened_copy);
    let mut names: Vec<_> =
        folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["copy.db", "events.db", "events.db-shm", "events.db-wal"]);
}

#[test]
fn a_missing_log_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("events.db"), folder.path().join("copy.db"));
    assert!(copy_event_log(&path, &copy).is_err());
    assert!(SqliteEventStore::open_read_only(&path).is_err());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_a_copy_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("events.db"), folder.path().join("copy.db"));
    let log = SqliteEventStore::open(&path).unwrap();
    log.append((0..500).map(new_append).collect()).await;
    copy_event_log(&path, &copy).unwrap();
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    file.write_all_at(&[0xa5; 12_288], 40_960).unwrap();
    let found = check_event_log_file(&copy).unwrap_err();
    assert!(matches!(found, EventStoreError::Damaged(_)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_wal_mode_is_read_without_creating_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copies) = (folder.path().join("events.db"), folder.path().join("100% of it? #1 ü"));
    std::fs::create_dir(&copies).unwrap();
    let copy = copies.join("events.db");
    let log = SqliteEventStore::open(&path).unwrap();
    log.append(vec![new_append(1)]).await;
    log.close().await.unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let before = std::fs::read(&copy).unwrap();

    let opened_copy = SqliteEventStore::open_immutable(&copy).unwrap();
    assert_eq!(opened_copy.head().await.unwrap(), Position::new(1));
    assert_eq!(opened_copy.read_all_checked(Position::START, 10).await.unwrap().len(), 1);
    assert!(matches!(opened_copy.append(vec![new_append(2)]).await[0], Err(AppendError::Unavailable(_))));
    let incarnation = NewIncarnation {
        log: LogId(Uuid::new_v4()),
        began_at: Timestamp::from_millis(0),
        reason: String::new(),
        replaces: Vec::new(),
    };
    assert!(opened_copy.begin_incarnation(incarnation).await.is_err());
    opened_copy.close().await.unwrap();
    drop(opened_copy);
    assert_eq!(copies.read_dir().unwrap().count(), 1, "a file was created beside the copy");
    assert_eq!(std::fs::read(&copy).unwrap(), before);
}
