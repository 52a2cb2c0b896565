//! Postgres: the contract, and what is its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::read_model::{MessageWindow, ReadModel, ReadModelChanges, ReadModelError, ReadModelWriter};
use chat_postgres::{PostgresReadModel, PostgresReadModelWriter, PostgresUrl};
use chat_testing::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use chat_ports::contract_tests::read_model::a_dry_run_leaves_nothing;
use chat_ports::contract_tests::read_model::rows::{Sides, app, changes, chat_number, token, with_messages};
use chat_ports::read_model_contract;

/// Long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The database of a test's folder, which keeps its URL.
fn open(folder: &Path) -> Sides {
    let place = folder.join("url");
    let url = std::fs::read_to_string(&place).unwrap_or_else(|_| Postgres::shared().create_database());
    std::fs::write(place, &url).unwrap();
    let url = PostgresUrl::parse(&url).unwrap();
    let writer = block_in_place(|| Handle::current().block_on(open_writer(&url))).unwrap();
    Sides { writer: Box::new(writer), reader: Arc::new(PostgresReadModel::new(url)) }
}

read_model_contract!(open);

/// Opens the writer once the one before it is gone: Postgres notices that a moment after it happened.
async fn open_writer(url: &PostgresUrl) -> Result<PostgresReadModelWriter, ReadModelError> {
    within("the lock", async || match PostgresReadModelWriter::open(url).await {
        Err(ReadModelError::InUse) => None,
        opened => Some(opened.map(|(writer, _)| writer)),
    })
    .await
}

/// Tries until there is an answer.
async fn within<T, F: Future<Output = Option<T>>>(what: &str, attempt: impl Fn() -> F) -> T {
    let tries = async {
        loop {
            if let Some(answer) = attempt().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, tries).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

fn database() -> (String, PostgresUrl) {
    let text = Postgres::shared().create_database();
    let url = PostgresUrl::parse(&text).unwrap();
    (text, url)
}

/// What an operator does behind the program's back.
async fn meddle(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
}

fn is_unavailable<T>(answer: &Result<T, ReadModelError>) -> bool {
    matches!(answer, Err(ReadModelError::Unavailable(_)))
}

fn is_damaged<T>(answer: &Result<T, ReadModelError>) -> bool {
    matches!(answer, Err(ReadModelError::Damaged(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_tried_out_beside_the_writer_leaves_nothing() {
    let (_, url) = database();
    assert!(
        is_unavailable(&PostgresReadModelWriter::open_dry_run(&url).await.map(drop)),
        "there is nothing yet"
    );
    let writer = Box::new(open_writer(&url).await.unwrap());
    let sides = Sides { writer, reader: Arc::new(PostgresReadModel::new(url.clone())) };
    with_messages(&sides, 3).await;
    a_dry_run_leaves_nothing(&sides, PostgresReadModelWriter::open_dry_run(&url).await.unwrap()).await;
}

#[tokio::test]
async fn until_a_projector_was_there_queries_are_unavailable() {
    let (_, url) = database();
    let reader = PostgresReadModel::new(url.clone());
    let early = reader.position().await;
    assert!(is_unavailable(&early), "{early:?}");
    assert!(is_unavailable(&reader.digest().await));
    let (_writer, opened) = PostgresReadModelWriter::open(&url).await.unwrap();
    assert_eq!(opened, StorageOrigin::Created, "reading creates nothing");
    assert_eq!(reader.position().await.unwrap(), Position::START);
}

#[tokio::test]
async fn a_namespace_has_one_writer() {
    let (_, url) = database();
    let (writer, _) = PostgresReadModelWriter::open(&url).await.unwrap();
    let second = PostgresReadModelWriter::open(&url).await;
    assert!(matches!(second, Err(ReadModelError::InUse)));
    let second = PostgresReadModelWriter::recreate(&url).await;
    assert!(matches!(second, Err(ReadModelError::InUse)));
    drop(writer);
    let next = open_writer(&url).await.unwrap();
    assert_eq!(next.checkpoint().await.unwrap().position, Position::START);
}

#[tokio::test]
async fn a_standby_takes_over_when_the_writers_connection_is_lost() {
    let (text, url) = database();
    let (active, _) = PostgresReadModelWriter::open(&url).await.unwrap();
    active.commit(changes(0, 5)).await.unwrap();
    meddle(
        &text,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database =
         (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    let standby = open_writer(&url).await.unwrap();
    standby.commit(changes(5, 9)).await.unwrap();

    // The one that was active can't write any more, now or later.
    for _ in 0..2 {
        let late = active.commit(changes(9, 10)).await;
        assert!(is_unavailable(&late), "{late:?}");
    }
    assert_eq!(standby.checkpoint().await.unwrap().position, Position::new(9));
}

#[tokio::test]
async fn two_namespaces_of_a_database_know_nothing_of_each_other() {
    let (_, url) = database();
    let other = url.clone().with_schema("another").unwrap();
    let (writer, _) = PostgresReadModelWriter::open(&url).await.unwrap();
    let (other_writer, opened) = PostgresReadModelWriter::open(&other).await.unwrap();
    assert_eq!(opened, StorageOrigin::Created);
    writer.commit(ReadModelChanges { new_apps: vec![app(1, 'a')], ..changes(0, 5) }).await.unwrap();
    other_writer.commit(changes(0, 7)).await.unwrap();
    let (reader, other_reader) = (PostgresReadModel::new(url), PostgresReadModel::new(other));
    assert_eq!(reader.apps(Position::START, 10).await.unwrap().value.len(), 1);
    let apps = other_reader.apps(Position::START, 10).await.unwrap();
    assert_eq!((apps.position, apps.value), (Position::new(7), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_start_at_once_one_lays_out_and_the_others_stand_by() {
    let (_, url) = database();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { PostgresReadModelWriter::open(&url).await })
        })
        .collect();
    let mut writers = Vec::new();
    for start in starts {
        match start.await.unwrap() {
            Ok((writer, opened)) => writers.push((writer, opened)),
            Err(error) => assert!(matches!(error, ReadModelError::InUse), "{error:?}"),
        }
    }
    assert_eq!(writers.len(), 1);
    assert_eq!(writers[0].1, StorageOrigin::Created);
}

#[tokio::test]
async fn another_version_and_missing_tables_are_damage() {
    for harm in
        ["UPDATE chat_read_model.checkpoint SET layout = 99", "DROP TABLE chat_read_model.dead_letters"]
    {
        let (text, url) = database();
        drop(PostgresReadModelWriter::open(&url).await.unwrap());
        meddle(&text, harm).await;
        let opened = open_writer(&url).await.map(drop);
        assert!(is_damaged(&opened), "{harm}: {opened:?}");
        let fresh = within("the lock", async || PostgresReadModelWriter::recreate(&url).await.ok()).await;
        assert_eq!(fresh.checkpoint().await.unwrap().position, Position::START);
    }
}

#[tokio::test]
async fn a_reader_does_not_answer_from_tables_of_another_version() {
    let (text, url) = database();
    let _writer = PostgresReadModelWriter::open(&url).await.unwrap();
    let reader = PostgresReadModel::new(url);
    reader.position().await.unwrap();
    meddle(&text, "UPDATE chat_read_model.checkpoint SET layout = 99").await;
    assert!(is_damaged(&reader.position().await));
    assert!(is_damaged(&reader.apps(Position::START, 10).await));
    assert!(is_damaged(&reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 10).await));
    assert!(is_damaged(&reader.dead_letters(10).await));
    assert!(is_damaged(&reader.digest().await));
}

#[tokio::test]
async fn a_namespace_of_something_else_is_left_alone_and_an_empty_one_is_used() {
    let (text, url) = database();
    meddle(&text, "CREATE SCHEMA chat_read_model; CREATE TABLE chat_read_model.diary (day text)").await;
    let opened = open_writer(&url).await.map(drop);
    assert!(is_unavailable(&opened), "{opened:?}");
    meddle(&text, "DROP TABLE chat_read_model.diary").await;
    open_writer(&url).await.unwrap().commit(changes(0, 5)).await.unwrap();
}

#[tokio::test]
async fn rows_that_are_gone_are_damage_and_nothing_is_stored() {
    let (text, url) = database();
    let writer = Box::new(open_writer(&url).await.unwrap());
    let sides = Sides { writer, reader: Arc::new(PostgresReadModel::new(url.clone())) };
    let (_, chat, _) = with_messages(&sides, 3).await;
    meddle(&text, "DELETE FROM chat_read_model.chats").await;
    let before = sides.reader.digest().await.unwrap();
    let update = ReadModelChanges {
        new_apps: vec![app(1_005, 'b')],
        changed_chats: vec![chat],
        ..changes(1_000, 1_010)
    };
    let refused = sides.writer.commit(update).await;
    assert!(is_damaged(&refused), "{refused:?}");
    assert_eq!(sides.reader.digest().await.unwrap(), before);
    let checked = PostgresReadModel::new(url).verify().await;
    assert!(is_damaged(&checked), "{checked:?}");
}

#[tokio::test]
async fn readers_turn_to_the_namespace_that_took_the_place_of_theirs() {
    let (text, url) = database();
    let writer = Box::new(open_writer(&url).await.unwrap());
    let sides = Sides { writer, reader: Arc::new(PostgresReadModel::with_connections(url.clone(), 1)) };
    with_messages(&sides, 10).await;
    let page = sides.reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 5).await.unwrap();
    assert_eq!((page.position, page.value.unwrap().messages.len()), (Position::new(1_000), 5));
    let Sides { writer, reader } = sides;
    drop(writer);

    for (position, name) in [(5, 'b'), (7, 'c')] {
        let fresh = within("the lock", async || PostgresReadModelWriter::recreate(&url).await.ok()).await;
        assert_eq!(reader.position().await.unwrap(), Position::START);
        let missing = reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 5).await.unwrap();
        assert!(missing.value.is_err(), "{missing:?}");
        let apps = vec![app(position, name)];
        fresh.commit(ReadModelChanges { new_apps: apps.clone(), ..changes(0, position) }).await.unwrap();
        let found = reader.apps(Position::START, 10).await.unwrap();
        assert_eq!((found.position, found.value), (Position::new(position), apps));
    }
    // One is kept: the one before the last.
    meddle(&text, "DO $$ BEGIN ASSERT (SELECT name FROM chat_read_model_damaged.apps) = 'app b'; END $$")
        .await;
}

#[tokio::test]
async fn more_queries_than_connections_take_turns() {
    let (_, url) = database();
    let writer = Box::new(open_writer(&url).await.unwrap());
    let reader = PostgresReadModel::with_connections(url, 1);
    with_messages(&Sides { writer, reader: Arc::new(reader.clone()) }, 100).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_and_a_new_writer_go_on_after_postgres_was_restarted_or_killed() {
    let mut postgres = block_in_place(Postgres::start);
    let url = PostgresUrl::parse(&postgres.create_database()).unwrap();
    let reader = PostgresReadModel::new(url.clone());
    let mut writer = open_writer(&url).await.unwrap();
    let mut stands = Position::START;
    for (end, may_lose) in [(Postgres::stop as fn(&mut Postgres), false), (Postgres::kill, true)] {
        let next = Position::new(stands.get() + 10);
        writer.commit(changes(stands.get(), next.get())).await.unwrap();
        assert_eq!(reader.position().await.unwrap(), next);
        block_in_place(|| end(&mut postgres));
        assert!(is_unavailable(&reader.position().await));
        assert!(is_unavailable(&writer.checkpoint().await));
        let away = PostgresReadModelWriter::open(&url).await.map(drop);
        assert!(is_unavailable(&away), "{away:?}");
        block_in_place(|| postgres.restart());
        // The first query after it, on the connection that is lost. A kill may take the last commits along.
        let found = reader.position().await.unwrap();
        assert!(found == next || (may_lose && found == stands), "{found}");
        writer = open_writer(&url).await.unwrap();
        assert_eq!(writer.checkpoint().await.unwrap().position, found);
        stands = found;
    }
    writer.commit(changes(stands.get(), stands.get() + 10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_lost_unnoticed_cost_no_query() {
    let mut postgres = block_in_place(Postgres::start);
    let url = PostgresUrl::parse(&postgres.create_database()).unwrap();
    let reader = PostgresReadModel::with_connections(url.clone(), 4);
    drop(open_writer(&url).await.unwrap());
    let ask_all = async || {
        let queries: Vec<_> = (0..4)
            .map(|_| {
                let reader = reader.clone();
                tokio::spawn(async move { reader.position().await })
            })
            .collect();
        for query in queries {
            assert_eq!(query.await.unwrap().unwrap(), Position::START);
        }
    };
    ask_all().await;
    block_in_place(|| postgres.restart());
    ask_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_says_nothing_is_unavailable_soon() {
    let postgres = block_in_place(Postgres::start);
    let url = PostgresUrl::parse(&postgres.create_database()).unwrap();
    drop(open_writer(&url).await.unwrap());
    let reader = PostgresReadModel::with_connections(url, 1);
    block_in_place(|| postgres.pause());
    let started = std::time::Instant::now();
    assert!(is_unavailable(&reader.position().await));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    block_in_place(|| postgres.resume());
    assert_eq!(reader.position().await.unwrap(), Position::START);
}

#[tokio::test]
async fn no_error_shows_the_password() {
    let (text, _) = database();
    let password = Postgres::shared().password();
    let wrong_database = format!("{text}_not_there");
    let wrong_password = text.replace(password, "not-the-password");
    let nobody_listens = format!("postgres://postgres:{password}@127.0.0.1:1/chat");
    for url in [wrong_database, wrong_password, nobody_listens] {
        let reader = PostgresReadModel::new(PostgresUrl::parse(&url).unwrap());
        let error = reader.position().await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(password) && !shown.contains("not-the-password"), "{shown}");
    }
}
