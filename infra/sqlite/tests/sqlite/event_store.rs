//! The contract suite of the event store on SQLite, and further tests of this adapter.

use std::path::PathBuf;
use std::sync::Arc;

use chat_domain::{ExpectedRevision, Position, Timestamp};
use chat_ports::event_store::{
    AppendError, EventStoreError, EventTypeFilter, LogId, NewIncarnation, ReadStart,
};
use chat_sqlite::SqliteEventStore;
use tempfile::TempDir;

use chat_ports::contract_tests::event_store::scoped_log::{Log, ScopedLog, event};
use chat_ports::event_store_contract;

struct Folder(TempDir);

impl Folder {
    #[expect(clippy::unnecessary_wraps, reason = "the contract suite expects it")]
    fn new() -> Option<Self> {
        Some(Self(tempfile::tempdir().unwrap()))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("below/events.db")
    }

    #[expect(clippy::unused_async, reason = "the contract suite expects it")]
    async fn open(&self) -> Log {
        Arc::new(SqliteEventStore::open(&self.file()).unwrap())
    }
}

event_store_contract!(Folder);

#[tokio::test]
async fn the_head_of_an_empty_log_is_its_start() {
    let folder = Folder::new().unwrap();
    let log = folder.open().await;
    assert_eq!(log.head().await.unwrap(), Position::START);
    assert_eq!(log.read_all(Position::START, 10).await.unwrap(), []);
    assert!(log.has_contiguous_positions());
}

#[tokio::test]
async fn an_event_id_stored_in_another_stream_conflicts_without_failing_the_other_appends() {
    let folder = Folder::new().unwrap();
    let log = ScopedLog::new(folder.open().await).await;
    let stored = event("A");
    log.append_to("s", ExpectedRevision::NoStream, vec![stored.clone()]).await.unwrap();
    let outcomes = log
        .append(vec![
            log.stream_append("t", ExpectedRevision::NoStream, vec![event("A")]),
            log.stream_append("u", ExpectedRevision::NoStream, vec![event("A"), stored]),
            log.stream_append("v", ExpectedRevision::NoStream, vec![event("A")]),
        ])
        .await;
    assert!(matches!(outcomes[..], [Ok(_), Err(AppendError::Conflict), Ok(_)]), "{outcomes:?}");
    assert_eq!(log.all().await.len(), 3);
    assert_eq!(log.read_revisions("u", ReadStart::End, EventTypeFilter::All, 10).await, [0; 0]);
}

#[tokio::test]
async fn a_foreign_database_and_a_text_file_are_refused_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let text = "Dear diary, ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let refused = SqliteEventStore::open(&path).map(drop);
    assert!(matches!(refused, Err(EventStoreError::Damaged(_))), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    let path = folder.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE diary (day)").unwrap();
    let content = std::fs::read(&path).unwrap();
    let refused = SqliteEventStore::open(&path).map(drop);
    assert!(matches!(refused, Err(EventStoreError::Damaged(_))), "{refused:?}");
    assert!(std::fs::read(&path).unwrap() == content, "the refused file was changed");
}

#[tokio::test]
async fn a_log_of_a_newer_version_is_refused() {
    let folder = Folder::new().unwrap();
    drop(folder.open().await);
    let path = folder.file();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteEventStore::open(&path).map(drop);
    assert!(matches!(refused, Err(EventStoreError::Damaged(_))), "{refused:?}");
}

#[tokio::test]
async fn a_read_of_large_events_returns_fewer_than_its_limit_and_can_be_continued() {
    let folder = Folder::new().unwrap();
    let log = ScopedLog::new(folder.open().await).await;
    let mut events = Vec::new();
    for _ in 0..20 {
        let mut large = event("A");
        large.data = format!("\"{}\"", "x".repeat(1 << 20));
        events.push(large);
    }
    log.append_to("s", ExpectedRevision::NoStream, events).await.unwrap();
    let mut after = Position::START;
    let mut reads = Vec::new();
    loop {
        let events = log.read_all(after, 1_000).await.unwrap();
        let Some(last) = events.last() else { break };
        after = last.position;
        reads.push(events.len());
    }
    assert_eq!(reads.iter().sum::<usize>(), 20);
    assert!(reads.len() > 1, "all events came in one read: {reads:?}");
}

#[tokio::test]
async fn a_damaged_payload_is_returned_unchanged() {
    let folder = Folder::new().unwrap();
    let log = ScopedLog::new(folder.open().await).await;
    log.append_to("s", ExpectedRevision::NoStream, vec![event("MessageCreated")]).await.unwrap();
    let connection = rusqlite::Connection::open(folder.file()).unwrap();
    connection.execute("UPDATE events SET data = CAST(x'ff00' AS TEXT)", []).unwrap();
    let events = log.read_all(Position::START, 10).await.unwrap();
    assert_eq!(events[0].data, [0xff, 0]);
    assert!(events[0].decode().is_err());
}

#[tokio::test]
async fn a_handle_of_the_previous_incarnation_appends_nothing() {
    let folder = Folder::new().unwrap();
    let old = ScopedLog::new(folder.open().await).await;
    old.fill("s", &["A"]).await;
    let incarnation = NewIncarnation {
        log: LogId(uuid::Uuid::new_v4()),
        began_at: Timestamp::from_millis(0),
        reason: String::new(),
        replaces: Vec::new(),
    };
    let new = old.with_handle(folder.open().await);
    new.begin_incarnation(incarnation).await.unwrap();
    let refused = old.append_to("t", ExpectedRevision::NoStream, vec![event("A")]).await;
    assert!(matches!(&refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    new.append_to("t", ExpectedRevision::NoStream, vec![event("A")]).await.unwrap();
}
