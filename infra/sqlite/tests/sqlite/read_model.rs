//! SQLite: the contract, and what is its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chat_domain::Position;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::read_model::{MessageWindow, ReadModel, ReadModelChanges, ReadModelError, ReadModelWriter};
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};

use futures::FutureExt;

use chat_ports::contract_tests::read_model::a_dry_run_leaves_nothing;
use chat_ports::contract_tests::read_model::rows::{Sides, app, changes, chat_number, token, with_messages};
use chat_ports::read_model_contract;

fn open(folder: &Path) -> Sides {
    let path = folder.join("below/read-model.db");
    let (writer, _) = SqliteReadModelWriter::open(&path).unwrap();
    Sides { writer: Box::new(writer), reader: Arc::new(SqliteReadModel::new(path)) }
}

read_model_contract!(open);

fn open_writer(path: &Path) -> Result<StorageOrigin, ReadModelError> {
    SqliteReadModelWriter::open(path).map(|(_, opened)| opened)
}

#[tokio::test]
async fn until_there_is_a_file_queries_are_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    let reader = SqliteReadModel::new(&path);
    let early = reader.position().await;
    assert!(matches!(early, Err(ReadModelError::Unavailable(_))), "{early:?}");
    assert!(!path.exists(), "reading creates nothing");
    assert_eq!(open_writer(&path).unwrap(), StorageOrigin::Created);
    assert_eq!(reader.position().await.unwrap(), Position::START);
    assert_eq!(open_writer(&path).unwrap(), StorageOrigin::Existing);
}

#[tokio::test]
async fn what_is_tried_out_beside_the_writer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below/read-model.db");
    assert!(matches!(
        SqliteReadModelWriter::open_dry_run(&path).map(drop),
        Err(ReadModelError::Unavailable(_))
    ));
    assert!(!path.exists(), "trying creates nothing");
    let sides = open(folder.path());
    with_messages(&sides, 3).await;
    a_dry_run_leaves_nothing(&sides, SqliteReadModelWriter::open_dry_run(&path).unwrap()).await;
}

#[tokio::test]
async fn a_file_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    let (writer, _) = SqliteReadModelWriter::open(&path).unwrap();
    assert!(matches!(open_writer(&path), Err(ReadModelError::InUse)));
    assert!(matches!(SqliteReadModelWriter::recreate(&path).map(drop), Err(ReadModelError::InUse)));
    drop(writer);
    assert_eq!(open_writer(&path).unwrap(), StorageOrigin::Existing);
}

#[tokio::test]
async fn text_an_empty_file_and_another_version_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    for content in ["Dear diary, ".repeat(1_000), String::new()] {
        fs::write(&path, content).unwrap();
        let opened = open_writer(&path);
        assert!(matches!(opened, Err(ReadModelError::Damaged(_))), "{opened:?}");
        let read = SqliteReadModel::new(&path).position().await;
        assert!(matches!(read, Err(ReadModelError::Damaged(_))), "{read:?}");
    }
    drop(SqliteReadModelWriter::recreate(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let opened = open_writer(&path);
    assert!(matches!(opened, Err(ReadModelError::Damaged(_))), "{opened:?}");
}

#[tokio::test]
async fn a_sound_database_of_another_kind_is_not_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diary.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE diary (day)").unwrap();
    let opened = open_writer(&path);
    assert!(matches!(opened, Err(ReadModelError::Unavailable(_))), "{opened:?}");
}

#[tokio::test]
async fn a_torn_page_is_damage_to_whoever_meets_it() {
    let folder = tempfile::tempdir().unwrap();
    let sides = open(folder.path());
    with_messages(&sides, 2_000).await;
    drop(sides);
    let path = folder.path().join("below/read-model.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let read = SqliteReadModel::new(&path).digest().await;
    assert!(matches!(read, Err(ReadModelError::Damaged(_))), "{read:?}");
}

#[tokio::test]
async fn readers_turn_to_a_file_that_took_the_place_of_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below/read-model.db");
    let sides = open(folder.path());
    with_messages(&sides, 10).await;
    assert_eq!(sides.reader.position().await.unwrap(), Position::new(1_000));
    let reader = Arc::clone(&sides.reader);
    drop(sides);

    let fresh = SqliteReadModelWriter::recreate(&path).unwrap();
    assert_eq!(reader.position().await.unwrap(), Position::START);
    fresh.commit(ReadModelChanges { new_apps: vec![app(5, 'b')], ..changes(0, 5) }).await.unwrap();
    let apps = reader.apps(Position::START, 10).await.unwrap();
    assert_eq!((apps.position, apps.value), (Position::new(5), vec![app(5, 'b')]));
    let aside: Vec<_> = fs::read_dir(folder.path().join("below"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
}

#[tokio::test]
async fn more_queries_than_connections_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let sides = open(folder.path());
    with_messages(&sides, 100).await;
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
fn queries_of_few_rows_are_answered_at_once_where_there_is_a_connection() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let sides = open(folder.path());
        with_messages(&sides, 100).await;
        sides.reader.position().await.unwrap();
        // What is handed to the only thread for blocking work from here on waits.
        let (free, taken) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || taken.recv());
        let page = sides.reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 50);
        let page = page.now_or_never().expect("handed to another thread").unwrap();
        assert_eq!(page.value.unwrap().messages.len(), 50);
        let mut digest = sides.reader.digest();
        assert!((&mut digest).now_or_never().is_none(), "reading everything takes its time");
        drop(free);
        digest.await.unwrap();
        assert!(busy.await.unwrap().is_err());
    });
}

/// Runs a test of this program again, in a working directory of its own.
fn again_in(folder: &Path, test: &str) {
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new(program)
        .args(["--exact", test])
        .env("RUN_AGAIN", "1")
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
}

#[test]
fn a_damaged_file_whose_path_is_a_bare_name_or_relative_is_put_aside() {
    let paths = ["read-model.db", "new/folder/read-model.db"].map(Path::new);
    if std::env::var_os("RUN_AGAIN").is_none() {
        let folder = tempfile::tempdir().unwrap();
        let test = "sqlite::a_damaged_file_whose_path_is_a_bare_name_or_relative_is_put_aside";
        again_in(folder.path(), test);
        for path in paths {
            assert_eq!(open_writer(&folder.path().join(path)).unwrap(), StorageOrigin::Existing);
        }
        return;
    }
    for path in paths {
        assert_eq!(open_writer(path).unwrap(), StorageOrigin::Created);
        fs::write(path, "Dear diary, ".repeat(1_000)).unwrap();
        assert!(matches!(open_writer(path), Err(ReadModelError::Damaged(_))));
        drop(SqliteReadModelWriter::recreate(path).unwrap());
        assert_eq!(open_writer(path).unwrap(), StorageOrigin::Existing);
    }
}
