//! The contract suite of the read model on SQLite, and further tests of this adapter.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chat_domain::Position;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::read_model::{MessageWindow, ReadModel, ReadModelChanges, ReadModelError, ReadModelWriter};
use chat_sql::list::ListMessagesOfSender;
use chat_sql::query::Query;
use chat_sqlite::{SqliteReadModel, SqliteReadModelStorage, SqliteReadModelWriter};

use futures::FutureExt;

use chat_ports::contract_tests::read_model::rows::{
    WriterAndReader, app, changes, chat_number, commit_chat_with_messages, token,
};
use chat_ports::contract_tests::read_model::{
    TABLES_BEFORE_SENDERS, a_dry_run_leaves_nothing, a_named_lock_has_one_holder,
    tables_without_senders_are_extended_in_place,
};
use chat_ports::read_model_contract;

fn open(folder: &Path) -> WriterAndReader {
    let path = folder.join("below/read-model.db");
    let (writer, _) = SqliteReadModelWriter::open(&path).unwrap();
    WriterAndReader { writer: Box::new(writer), reader: Arc::new(SqliteReadModel::new(path)) }
}

read_model_contract!(open);

/// Opens a writer and closes it. Returns whether the file existed or was created.
fn open_and_close(path: &Path) -> Result<StorageOrigin, ReadModelError> {
    SqliteReadModelWriter::open(path).map(|(_writer, origin)| origin)
}

#[tokio::test]
async fn queries_are_unavailable_until_the_file_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    let reader = SqliteReadModel::new(&path);
    let early = reader.position().await;
    assert!(matches!(early, Err(ReadModelError::Unavailable(_))), "{early:?}");
    assert!(!path.exists(), "a read created the file");
    assert_eq!(open_and_close(&path).unwrap(), StorageOrigin::Created);
    assert_eq!(reader.position().await.unwrap(), Position::START);
    assert_eq!(open_and_close(&path).unwrap(), StorageOrigin::Existing);
}

#[tokio::test]
async fn a_dry_run_beside_the_writer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below/read-model.db");
    assert!(matches!(
        SqliteReadModelWriter::open_dry_run(&path).map(drop),
        Err(ReadModelError::Unavailable(_))
    ));
    assert!(!path.exists(), "a dry run created the file");
    let read_model = open(folder.path());
    commit_chat_with_messages(&read_model, 3).await;
    a_dry_run_leaves_nothing(&read_model, SqliteReadModelWriter::open_dry_run(&path).unwrap()).await;
}

#[tokio::test]
async fn a_file_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    let (writer, _) = SqliteReadModelWriter::open(&path).unwrap();
    assert!(matches!(open_and_close(&path), Err(ReadModelError::InUse)));
    assert!(matches!(SqliteReadModelWriter::recreate(&path).map(drop), Err(ReadModelError::InUse)));
    drop(writer);
    assert_eq!(open_and_close(&path).unwrap(), StorageOrigin::Existing);
}

#[tokio::test]
async fn a_file_has_named_locks() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteReadModelStorage::new(folder.path().join("below/read-model.db"));
    a_named_lock_has_one_holder(&storage, &storage.clone()).await;
}

#[tokio::test]
async fn a_text_file_an_empty_file_and_another_version_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    for content in ["Dear diary, ".repeat(1_000), String::new()] {
        fs::write(&path, content).unwrap();
        let opened = open_and_close(&path);
        assert!(matches!(opened, Err(ReadModelError::Damaged(_))), "{opened:?}");
        let read = SqliteReadModel::new(&path).position().await;
        assert!(matches!(read, Err(ReadModelError::Damaged(_))), "{read:?}");
    }
    drop(SqliteReadModelWriter::recreate(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let opened = open_and_close(&path);
    assert!(matches!(opened, Err(ReadModelError::Damaged(_))), "{opened:?}");
}

#[tokio::test]
async fn a_database_of_another_program_is_not_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diary.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE diary (day)").unwrap();
    let opened = open_and_close(&path);
    assert!(matches!(opened, Err(ReadModelError::Unavailable(_))), "{opened:?}");
}

#[tokio::test]
async fn overwritten_pages_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let read_model = open(folder.path());
    commit_chat_with_messages(&read_model, 2_000).await;
    drop(read_model);
    let path = folder.path().join("below/read-model.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let read = SqliteReadModel::new(&path).digest().await;
    assert!(matches!(read, Err(ReadModelError::Damaged(_))), "{read:?}");
}

#[tokio::test]
async fn readers_switch_to_a_recreated_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below/read-model.db");
    let read_model = open(folder.path());
    commit_chat_with_messages(&read_model, 10).await;
    // `commit_chat_with_messages` moves the checkpoint to position 1,000, however many messages it commits.
    assert_eq!(read_model.reader.position().await.unwrap(), Position::new(1_000));
    let reader = Arc::clone(&read_model.reader);
    drop(read_model);

    let recreated = SqliteReadModelWriter::recreate(&path).unwrap();
    assert_eq!(reader.position().await.unwrap(), Position::START);
    recreated.commit(ReadModelChanges { new_apps: vec![app(5, 'b')], ..changes(0, 5) }).await.unwrap();
    let apps = reader.apps(Position::START, 10).await.unwrap();
    assert_eq!((apps.position, apps.value), (Position::new(5), vec![app(5, 'b')]));
    let quarantined: Vec<_> = fs::read_dir(folder.path().join("below"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
}

#[tokio::test]
async fn queries_wait_for_a_free_connection() {
    let folder = tempfile::tempdir().unwrap();
    let read_model = open(folder.path());
    commit_chat_with_messages(&read_model, 100).await;
    let reader = SqliteReadModel::with_connections(folder.path().join("below/read-model.db"), 1);
    let queries = (0..50).map(|_| {
        let reader = reader.clone();
        tokio::spawn(
            async move { reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 50).await },
        )
    });
    for query in queries.collect::<Vec<_>>() {
        assert_eq!(query.await.unwrap().unwrap().value.unwrap().messages.len(), 50);
    }
}

#[test]
fn queries_of_few_rows_run_on_the_calling_thread() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let read_model = open(folder.path());
        commit_chat_with_messages(&read_model, 100).await;
        read_model.reader.position().await.unwrap();
        // This task occupies the only thread for blocking work.
        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let page = read_model.reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 50);
        let page = page.now_or_never().expect("the query ran on another thread").unwrap();
        assert_eq!(page.value.unwrap().messages.len(), 50);
        let mut digest = read_model.reader.digest();
        assert!(
            (&mut digest).now_or_never().is_none(),
            "the digest did not run on a thread for blocking work"
        );
        drop(release);
        digest.await.unwrap();
        assert!(busy.await.unwrap().is_err());
    });
}

/// Runs a test of this program a second time, in another working directory.
fn rerun_test_in(folder: &Path, test: &str) {
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new(program)
        .args(["--exact", test])
        .env("RERUN_IN_FOLDER", "1")
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
}

#[test]
fn a_damaged_file_with_a_relative_path_is_replaced() {
    let paths = ["read-model.db", "new/folder/read-model.db"].map(Path::new);
    if std::env::var_os("RERUN_IN_FOLDER").is_none() {
        let folder = tempfile::tempdir().unwrap();
        let test = "read_model::a_damaged_file_with_a_relative_path_is_replaced";
        rerun_test_in(folder.path(), test);
        for path in paths {
            assert_eq!(open_and_close(&folder.path().join(path)).unwrap(), StorageOrigin::Existing);
        }
        return;
    }
    for path in paths {
        assert_eq!(open_and_close(path).unwrap(), StorageOrigin::Created);
        fs::write(path, "Dear diary, ".repeat(1_000)).unwrap();
        assert!(matches!(open_and_close(path), Err(ReadModelError::Damaged(_))));
        drop(SqliteReadModelWriter::recreate(path).unwrap());
        assert_eq!(open_and_close(path).unwrap(), StorageOrigin::Existing);
    }
}

/// Creates a file as the version before senders and data wrote it.
fn create_file_of_version_before_senders(path: &Path) {
    let tables = TABLES_BEFORE_SENDERS
        .replace("BIGINT", "INTEGER")
        .replace("/* options */", "STRICT")
        .replace("/* options of a table that is its key's index */", "STRICT, WITHOUT ROWID");
    let db = rusqlite::Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "application_id", 0x4368_524d).unwrap();
    db.pragma_update(None, "user_version", 3).unwrap();
    db.execute_batch(&tables).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_from_before_senders_is_extended_in_place_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    create_file_of_version_before_senders(&path);
    let reader = SqliteReadModel::new(&path);
    let early = reader.position().await;
    assert!(matches!(early, Err(ReadModelError::Unavailable(_))), "{early:?}");
    let dry_run = SqliteReadModelWriter::open_dry_run(&path).map(drop);
    assert!(matches!(dry_run, Err(ReadModelError::Unavailable(_))), "{dry_run:?}");

    // A process of the version before senders keeps its connection, with a prepared statement.
    let old = rusqlite::Connection::open(&path).unwrap();
    let mut old_query =
        old.prepare("SELECT number, body FROM messages WHERE chat_id = 2 ORDER BY number").unwrap();
    let mut read_old = || {
        let rows = old_query.query_map([], |row| row.get::<_, String>(1)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(read_old().len(), 3);
    let (writer, origin) = SqliteReadModelWriter::open(&path).unwrap();
    assert_eq!(origin, StorageOrigin::Existing);
    let extended = WriterAndReader { writer: Box::new(writer), reader: Arc::new(reader) };
    tables_without_senders_are_extended_in_place(&extended, &open(folder.path())).await;
    assert_eq!(read_old(), ["edited", "message 3", "message 4"]);
    drop(extended);

    // A projector of the version before senders may take over again.
    old.execute(
        "INSERT INTO messages (number, body, version, created_at, updated_at, id, chat_id)
         VALUES (5, 'message 5', 1, 0, 0, 1002, 2)",
        [],
    )
    .unwrap();
    assert_eq!(open_and_close(&path).unwrap(), StorageOrigin::Existing);
}

/// The plan of a statement, as one text.
fn plan(db: &rusqlite::Connection, sql: &str) -> String {
    let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let details =
        explain.query_map(rusqlite::params!["a", 1, "u-17", 5, 5, 5], |row| row.get::<_, String>(3));
    details.unwrap().map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_page_of_one_sender_is_read_from_the_index_of_senders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    open_and_close(&path).unwrap();
    let plan = plan(&rusqlite::Connection::open(&path).unwrap(), ListMessagesOfSender::SQL);
    for side in ["(chat_id=? AND sender_id=? AND number<?)", "(chat_id=? AND sender_id=? AND number>?)"] {
        assert!(plan.contains(&format!("SEARCH m USING INDEX messages_by_sender {side}")), "{plan}");
    }
    assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN m"), "{plan}");
}
