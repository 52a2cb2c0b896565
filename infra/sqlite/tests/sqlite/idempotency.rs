//! SQLite: the contract, and what is its own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chat_ports::event_store::LogId;
use chat_ports::idempotency::{Claim, IdempotencyTerms, LogContent, ReserveOutcome};
use chat_sqlite::SqliteIdempotencyStore;
use tempfile::TempDir;
use uuid::Uuid;

use chat_ports::contract_tests::idempotency::{LASTING, Place, Store, begun, done, granted, wish};
use chat_ports::idempotency_store_contract;

struct Folder(TempDir);

impl Folder {
    fn path(&self) -> PathBuf {
        self.0.path().join("below/idempotency.db")
    }

    fn open_for(&self, log: LogId, terms: IdempotencyTerms) -> Store {
        Arc::new(SqliteIdempotencyStore::with_terms(&self.path(), log, terms).unwrap())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join("below")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Place for Folder {
    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, terms: IdempotencyTerms) -> Store {
        self.open_for(LogId(Uuid::nil()), terms)
    }
}

idempotency_store_contract!(Folder);

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_costs_the_memory() {
    let folder = Folder::new().await;
    let store = begun(&folder, LASTING).await;
    store.complete(&done("a", 1)).await.unwrap();
    drop(store);
    // Its thread closes the file a moment later, and with it takes away what is written ahead.
    let closed = async {
        while folder.names().iter().any(|name| name.ends_with("-wal")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mut path = folder.path().into_os_string();
        path.push(suffix);
        fs::write(path, "Dear diary, ".repeat(10_000)).unwrap();
    }
    let store = folder.open(LASTING);
    assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::NotInitialized);
    assert!(
        folder.names().iter().any(|name| name.starts_with("idempotency.db.damaged-")),
        "{:?}",
        folder.names()
    );
}

#[tokio::test]
async fn a_file_of_another_program_is_left_alone() {
    let folder = Folder::new().await;
    fs::create_dir(folder.path().parent().unwrap()).unwrap();
    rusqlite::Connection::open(folder.path()).unwrap().execute_batch("CREATE TABLE diary (day)").unwrap();
    let store = folder.open(LASTING);
    store.reserve(&wish("a")).await.unwrap_err();
    rusqlite::Connection::open(folder.path()).unwrap().execute_batch("SELECT day FROM diary").unwrap();
}

#[tokio::test]
async fn a_log_does_not_answer_what_another_one_holds() {
    let folder = Folder::new().await;
    let store = begun(&folder, LASTING).await;
    store.complete(&done("a", 1)).await.unwrap();
    let other = folder.open_for(LogId(Uuid::max()), LASTING);
    assert_eq!(other.reserve(&wish("a")).await.unwrap(), ReserveOutcome::NotInitialized);
    other.initialize(LogContent::Empty).await.unwrap();
    assert_eq!(granted(&other, &wish("a")).await.claim, Claim::First);
    // The memory is the other log's from here on.
    assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::NotInitialized);
}

#[tokio::test]
async fn after_a_restart_of_the_machine_nobody_is_sure_to_be_the_first() {
    let folder = Folder::new().await;
    let store = begun(&folder, LASTING).await;
    assert_eq!(granted(&store, &wish("a")).await.claim, Claim::First);
    let connection = rusqlite::Connection::open(folder.path()).unwrap();
    connection.execute("UPDATE boot SET id = 'an earlier start'", []).unwrap();
    drop(store);
    let store = folder.open(LASTING);
    assert_eq!(granted(&store, &wish("b")).await.claim, Claim::Doubtful);
    assert!(matches!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::InFlight(_)));
}

#[tokio::test]
async fn what_has_expired_is_removed_in_passing() {
    let folder = Folder::new().await;
    let terms = IdempotencyTerms { retention: Duration::ZERO, ..LASTING };
    let store = begun(&folder, terms).await;
    for number in 1..=100 {
        store.complete(&done(&number.to_string(), number)).await.unwrap();
    }
    store.reserve(&wish("a")).await.unwrap();
    let connection = rusqlite::Connection::open(folder.path()).unwrap();
    let rows: u64 = connection.query_row("SELECT count(*) FROM reservations", [], |row| row.get(0)).unwrap();
    assert!(rows <= 1, "{rows} rows");
}
