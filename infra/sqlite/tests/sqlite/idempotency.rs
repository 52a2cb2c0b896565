//! The contract suite of the idempotency store on SQLite, and further tests of this adapter.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chat_ports::event_store::LogId;
use chat_ports::idempotency::{Claim, IdempotencyTerms, LogContent, ReserveOutcome};
use chat_sqlite::SqliteIdempotencyStore;
use tempfile::TempDir;
use uuid::Uuid;

use chat_ports::contract_tests::idempotency::{
    LONG_TERMS, Store, TestStore, completed_command, open_initialized, request, reserve_granted,
};
use chat_ports::idempotency_store_contract;

struct Folder(TempDir);

impl Folder {
    fn file_path(&self) -> PathBuf {
        self.0.path().join("below/idempotency.db")
    }

    fn open_for(&self, log: LogId, terms: IdempotencyTerms) -> Store {
        Arc::new(SqliteIdempotencyStore::with_terms(&self.file_path(), log, terms).unwrap())
    }

    fn file_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join("below")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl TestStore for Folder {
    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, terms: IdempotencyTerms) -> Store {
        self.open_for(LogId(Uuid::nil()), terms)
    }
}

idempotency_store_contract!(Folder);

#[tokio::test]
async fn a_damaged_file_is_quarantined_and_replaced_by_an_uninitialized_one() {
    let folder = Folder::new().await;
    let store = open_initialized(&folder, LONG_TERMS).await;
    store.complete(&completed_command("a", 1)).await.unwrap();
    drop(store);
    // The worker thread closes the file a moment later, which removes the WAL.
    let closed = async {
        while folder.file_names().iter().any(|name| name.ends_with("-wal")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mut path = folder.file_path().into_os_string();
        path.push(suffix);
        fs::write(path, "Dear diary, ".repeat(10_000)).unwrap();
    }
    let store = folder.open(LONG_TERMS);
    assert_eq!(store.reserve(&request("a")).await.unwrap(), ReserveOutcome::NotInitialized);
    assert!(
        folder.file_names().iter().any(|name| name.starts_with("idempotency.db.damaged-")),
        "no file is quarantined: {:?}",
        folder.file_names()
    );
}

#[tokio::test]
async fn a_folder_that_is_removed_is_not_created_again() {
    let folder = Folder::new().await;
    let store = open_initialized(&folder, LONG_TERMS).await;
    let parent = folder.0.path().join("below");
    fs::remove_dir_all(&parent).unwrap();
    for _ in 0..3 {
        assert!(store.reserve(&request("key")).await.is_err());
        assert!(!parent.exists());
    }
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_not_changed() {
    let folder = Folder::new().await;
    fs::create_dir(folder.file_path().parent().unwrap()).unwrap();
    rusqlite::Connection::open(folder.file_path())
        .unwrap()
        .execute_batch("CREATE TABLE diary (day)")
        .unwrap();
    let content = fs::read(folder.file_path()).unwrap();
    let store = folder.open(LONG_TERMS);
    store.reserve(&request("a")).await.unwrap_err();
    assert!(fs::read(folder.file_path()).unwrap() == content, "the refused file was changed");
}

#[tokio::test]
async fn a_file_of_another_log_is_emptied() {
    let folder = Folder::new().await;
    let store = open_initialized(&folder, LONG_TERMS).await;
    store.complete(&completed_command("a", 1)).await.unwrap();
    let other = folder.open_for(LogId(Uuid::max()), LONG_TERMS);
    assert_eq!(other.reserve(&request("a")).await.unwrap(), ReserveOutcome::NotInitialized);
    other.initialize(LogContent::Empty).await.unwrap();
    assert_eq!(reserve_granted(&other, &request("a")).await.claim, Claim::First);
    // The file now belongs to the other log.
    assert_eq!(store.reserve(&request("a")).await.unwrap(), ReserveOutcome::NotInitialized);
}

#[tokio::test]
async fn claims_are_doubtful_after_a_reboot() {
    let folder = Folder::new().await;
    let store = open_initialized(&folder, LONG_TERMS).await;
    assert_eq!(reserve_granted(&store, &request("a")).await.claim, Claim::First);
    let connection = rusqlite::Connection::open(folder.file_path()).unwrap();
    connection.execute("UPDATE boot SET id = 'an earlier start'", []).unwrap();
    drop(store);
    let store = folder.open(LONG_TERMS);
    assert_eq!(reserve_granted(&store, &request("b")).await.claim, Claim::Doubtful);
    assert!(matches!(store.reserve(&request("a")).await.unwrap(), ReserveOutcome::InFlight(_)));
}

#[tokio::test]
async fn a_system_time_that_was_set_back_before_a_reboot_does_not_hold_up_new_keys() {
    let folder = Folder::new().await;
    let terms = IdempotencyTerms { lease: Duration::ZERO, ..LONG_TERMS };
    // An empty log would leave `since` at 0.
    folder.open(terms).initialize(LogContent::HasEvents).await.unwrap();
    let connection = rusqlite::Connection::open(folder.file_path()).unwrap();
    connection.execute("UPDATE memory SET since = since + 3600000", []).unwrap();
    connection.execute("UPDATE boot SET id = 'an earlier start'", []).unwrap();
    let store = folder.open(terms);
    assert_eq!(reserve_granted(&store, &request("a")).await.claim, Claim::Doubtful);
}

#[tokio::test]
async fn expired_rows_are_removed_by_later_calls() {
    let folder = Folder::new().await;
    let terms = IdempotencyTerms { retention: Duration::ZERO, ..LONG_TERMS };
    let store = open_initialized(&folder, terms).await;
    for number in 1..=100 {
        store.complete(&completed_command(&number.to_string(), number)).await.unwrap();
    }
    store.reserve(&request("a")).await.unwrap();
    let connection = rusqlite::Connection::open(folder.file_path()).unwrap();
    let rows: u64 = connection.query_row("SELECT count(*) FROM reservations", [], |row| row.get(0)).unwrap();
    assert!(rows <= 1, "{rows} rows");
}
