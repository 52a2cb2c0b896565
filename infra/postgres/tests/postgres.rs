//! The contract suite of the read model on Postgres, and further tests of this adapter.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::read_model::{MessageWindow, ReadModel, ReadModelChanges, ReadModelError, ReadModelWriter};
use chat_postgres::{PostgresReadModel, PostgresReadModelStorage, PostgresReadModelWriter, PostgresUrl};
use chat_sql::list::ListMessagesOfSender;
use chat_sql::query::Query;
use chat_testing::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use chat_ports::contract_tests::read_model::rows::{
    WriterAndReader, app, changes, chat_number, commit_chat_with_messages, token,
};
use chat_ports::contract_tests::read_model::{
    TABLES_BEFORE_SENDERS, a_dry_run_leaves_nothing, a_named_lock_has_one_holder, retry, retry_queries,
    tables_without_senders_are_extended_in_place,
};
use chat_ports::read_model_contract;

/// The time limit of retries, long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Opens the database of a test, and creates it on the first call. The database's URL is stored in the test's folder.
fn open(folder: &Path) -> WriterAndReader {
    let url_file = folder.join("url");
    let url = std::fs::read_to_string(&url_file).unwrap_or_else(|_| Postgres::shared().create_database());
    std::fs::write(url_file, &url).unwrap();
    let url = PostgresUrl::parse(&url).unwrap();
    let writer = block_in_place(|| Handle::current().block_on(open_writer(&url))).unwrap();
    WriterAndReader { writer: Box::new(writer), reader: Arc::new(PostgresReadModel::new(url)) }
}

read_model_contract!(open);

/// Opens the writer as [`open_with_origin`] does.
async fn open_writer(url: &PostgresUrl) -> Result<PostgresReadModelWriter, ReadModelError> {
    open_with_origin(url).await.map(|(writer, _)| writer)
}

/// Opens the writer. Retries while Postgres is too busy to answer in time, and while the previous writer holds the
/// lock: Postgres releases the lock shortly after the connection of that writer closes.
async fn open_with_origin(
    url: &PostgresUrl,
) -> Result<(PostgresReadModelWriter, StorageOrigin), ReadModelError> {
    within("the lock", async || match PostgresReadModelWriter::open(url).await {
        Err(ReadModelError::InUse | ReadModelError::Unavailable(_)) => None,
        opened => Some(opened),
    })
    .await
}

/// Repeats an attempt until it has a result. Panics after [`DEADLINE`], with `what` as the name of the result.
async fn within<T>(what: &str, attempt: impl AsyncFn() -> Option<T>) -> T {
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

/// Creates an empty database. Returns its URL as text, and parsed.
fn database() -> (String, PostgresUrl) {
    let url_text = Postgres::shared().create_database();
    let url = PostgresUrl::parse(&url_text).unwrap();
    (url_text, url)
}

/// Runs SQL on the database outside the adapter.
async fn run_sql(url: &str, sql: &str) {
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
async fn a_dry_run_beside_the_writer_leaves_nothing() {
    let (_, url) = database();
    assert!(
        is_unavailable(&PostgresReadModelWriter::open_dry_run(&url).await.map(drop)),
        "a dry run found a read model that does not exist yet"
    );
    let writer = Box::new(open_writer(&url).await.unwrap());
    let reader = Arc::new(PostgresReadModel::new(url.clone()));
    let read_model = retry_queries(WriterAndReader { writer, reader });
    commit_chat_with_messages(&read_model, 3).await;
    let dry_run = retry(|| PostgresReadModelWriter::open_dry_run(&url)).await.unwrap();
    a_dry_run_leaves_nothing(&read_model, dry_run).await;
}

#[tokio::test]
async fn queries_are_unavailable_until_the_read_model_is_created() {
    let (_, url) = database();
    let reader = PostgresReadModel::new(url.clone());
    let early = reader.position().await;
    assert!(is_unavailable(&early), "{early:?}");
    assert!(is_unavailable(&reader.digest().await));
    let (_writer, origin) = open_with_origin(&url).await.unwrap();
    assert_eq!(origin, StorageOrigin::Created, "a query created the read model");
    assert_eq!(retry(|| reader.position()).await.unwrap(), Position::START);
}

#[tokio::test]
async fn a_schema_has_named_locks() {
    let (_, url) = database();
    let storage = PostgresReadModelStorage::new(url);
    a_named_lock_has_one_holder(&storage, &storage.clone()).await;
}

#[tokio::test]
async fn a_schema_has_one_writer() {
    let (_, url) = database();
    let writer = open_writer(&url).await.unwrap();
    let second = retry(|| PostgresReadModelWriter::open(&url)).await;
    assert!(matches!(second, Err(ReadModelError::InUse)));
    let second = retry(|| PostgresReadModelWriter::recreate(&url)).await;
    assert!(matches!(second, Err(ReadModelError::InUse)));
    drop(writer);
    let next = open_writer(&url).await.unwrap();
    assert_eq!(next.checkpoint().await.unwrap().position, Position::START);
}

#[tokio::test]
async fn a_standby_takes_over_when_the_writers_connection_is_lost() {
    let (text, url) = database();
    let active = open_writer(&url).await.unwrap();
    active.commit(changes(0, 5)).await.unwrap();
    run_sql(
        &text,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database =
         (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    let standby = open_writer(&url).await.unwrap();
    standby.commit(changes(5, 9)).await.unwrap();

    // The former writer can't commit any more.
    for _ in 0..2 {
        let late = active.commit(changes(9, 10)).await;
        assert!(is_unavailable(&late), "{late:?}");
    }
    assert_eq!(standby.checkpoint().await.unwrap().position, Position::new(9));
}

#[tokio::test]
async fn two_schemas_of_a_database_are_separate() {
    let (_, url) = database();
    let other = url.clone().with_schema("another").unwrap();
    let writer = open_writer(&url).await.unwrap();
    let (other_writer, origin) = open_with_origin(&other).await.unwrap();
    assert_eq!(origin, StorageOrigin::Created);
    writer.commit(ReadModelChanges { new_apps: vec![app(1, 'a')], ..changes(0, 5) }).await.unwrap();
    other_writer.commit(changes(0, 7)).await.unwrap();
    let (reader, other_reader) = (PostgresReadModel::new(url), PostgresReadModel::new(other));
    assert_eq!(reader.apps(Position::START, 10).await.unwrap().value.len(), 1);
    let apps = other_reader.apps(Position::START, 10).await.unwrap();
    assert_eq!((apps.position, apps.value), (Position::new(7), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_many_concurrent_starts_creates_the_read_model() {
    let (_, url) = database();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { retry(|| PostgresReadModelWriter::open(&url)).await })
        })
        .collect();
    let mut writers = Vec::new();
    for start in starts {
        match start.await.unwrap() {
            Ok((writer, origin)) => writers.push((writer, origin)),
            Err(error) => assert!(matches!(error, ReadModelError::InUse), "{error:?}"),
        }
    }
    assert_eq!(writers.len(), 1);
    assert_eq!(writers[0].1, StorageOrigin::Created);
}

#[tokio::test]
async fn another_version_and_missing_tables_are_damage() {
    for damage in
        ["UPDATE chat_read_model.checkpoint SET layout = 99", "DROP TABLE chat_read_model.dead_letters"]
    {
        let (text, url) = database();
        drop(open_writer(&url).await.unwrap());
        run_sql(&text, damage).await;
        let opened = open_writer(&url).await.map(drop);
        assert!(is_damaged(&opened), "{damage}: {opened:?}");
        let recreated = within("the lock", async || PostgresReadModelWriter::recreate(&url).await.ok()).await;
        assert_eq!(recreated.checkpoint().await.unwrap().position, Position::START);
    }
}

#[tokio::test]
async fn a_reader_refuses_tables_of_another_version() {
    let (text, url) = database();
    let _writer = open_writer(&url).await.unwrap();
    let reader = PostgresReadModel::new(url);
    retry(|| reader.position()).await.unwrap();
    run_sql(&text, "UPDATE chat_read_model.checkpoint SET layout = 99").await;
    assert!(is_damaged(&reader.position().await));
    assert!(is_damaged(&reader.apps(Position::START, 10).await));
    assert!(is_damaged(&reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 10).await));
    assert!(is_damaged(&reader.dead_letters(10).await));
    assert!(is_damaged(&retry(|| reader.digest()).await));
}

#[tokio::test]
async fn refuses_a_foreign_schema_and_uses_an_empty_one() {
    let (text, url) = database();
    run_sql(&text, "CREATE SCHEMA chat_read_model; CREATE TABLE chat_read_model.diary (day text)").await;
    let unless_in_use = |opened: Result<PostgresReadModelWriter, ReadModelError>| match opened.map(drop) {
        Err(ReadModelError::InUse) => None,
        opened => Some(opened),
    };
    let opened = within("the lock", async || {
        unless_in_use(PostgresReadModelWriter::open(&url).await.map(|(writer, _)| writer))
    })
    .await;
    assert!(is_unavailable(&opened), "{opened:?}");
    let recreated =
        within("the lock", async || unless_in_use(PostgresReadModelWriter::recreate(&url).await)).await;
    assert!(is_unavailable(&recreated), "{recreated:?}");
    let recreated = within("the lock", async || {
        unless_in_use(PostgresReadModelWriter::recreate_for_other_log(&url).await)
    })
    .await;
    assert!(is_unavailable(&recreated), "{recreated:?}");
    run_sql(&text, "DROP TABLE chat_read_model.diary").await;
    open_writer(&url).await.unwrap().commit(changes(0, 5)).await.unwrap();
}

#[tokio::test]
async fn a_change_of_missing_rows_is_reported_as_damage_and_stores_nothing() {
    let (text, url) = database();
    let writer = Box::new(open_writer(&url).await.unwrap());
    let reader = Arc::new(PostgresReadModel::new(url.clone()));
    let read_model = retry_queries(WriterAndReader { writer, reader });
    let (_, chat, _) = commit_chat_with_messages(&read_model, 3).await;
    run_sql(&text, "DELETE FROM chat_read_model.chats").await;
    let before = read_model.reader.digest().await.unwrap();
    let update = ReadModelChanges {
        new_apps: vec![app(1_005, 'b')],
        changed_chats: vec![chat],
        ..changes(1_000, 1_010)
    };
    let refused = read_model.writer.commit(update).await;
    assert!(is_damaged(&refused), "{refused:?}");
    assert_eq!(read_model.reader.digest().await.unwrap(), before);
    let reader = PostgresReadModel::new(url);
    let checked = retry(|| reader.verify()).await;
    assert!(is_damaged(&checked), "{checked:?}");
}

#[tokio::test]
async fn readers_switch_to_a_recreated_schema() {
    let (text, url) = database();
    let writer = Box::new(open_writer(&url).await.unwrap());
    let read_model =
        WriterAndReader { writer, reader: Arc::new(PostgresReadModel::with_connections(url.clone(), 1)) };
    commit_chat_with_messages(&read_model, 10).await;
    let page =
        read_model.reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 5).await.unwrap();
    assert_eq!((page.position, page.value.unwrap().messages.len()), (Position::new(1_000), 5));
    let WriterAndReader { writer, reader } = read_model;
    drop(writer);

    for (position, name) in [(5, 'b'), (7, 'c')] {
        let recreated = within("the lock", async || PostgresReadModelWriter::recreate(&url).await.ok()).await;
        assert_eq!(reader.position().await.unwrap(), Position::START);
        let missing = reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 5).await.unwrap();
        assert!(missing.value.is_err(), "{missing:?}");
        let apps = vec![app(position, name)];
        recreated.commit(ReadModelChanges { new_apps: apps.clone(), ..changes(0, position) }).await.unwrap();
        let found = reader.apps(Position::START, 10).await.unwrap();
        assert_eq!((found.position, found.value), (Position::new(position), apps));
    }
    // Of the two schemas that were replaced, only the last one is kept.
    run_sql(&text, "DO $$ BEGIN ASSERT (SELECT name FROM chat_read_model_damaged.apps) = 'app b'; END $$")
        .await;
}

#[tokio::test]
async fn queries_wait_for_a_free_connection() {
    let (_, url) = database();
    let writer = Box::new(open_writer(&url).await.unwrap());
    let reader = PostgresReadModel::with_connections(url, 1);
    commit_chat_with_messages(&WriterAndReader { writer, reader: Arc::new(reader.clone()) }, 100).await;
    // On a busy machine, the last query may wait for too long. Then all queries are sent again.
    within("a connection for each query", async || {
        let queries = (0..20).map(|_| {
            let reader = reader.clone();
            tokio::spawn(async move {
                reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 50).await
            })
        });
        for query in queries.collect::<Vec<_>>() {
            let page = query.await.unwrap().ok()?;
            assert_eq!(page.value.unwrap().messages.len(), 50);
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_and_a_new_writer_work_after_a_restart_or_kill_of_postgres() {
    let mut postgres = block_in_place(Postgres::start);
    let url = PostgresUrl::parse(&postgres.create_database()).unwrap();
    let reader = PostgresReadModel::new(url.clone());
    let mut writer = open_writer(&url).await.unwrap();
    let mut checkpoint = Position::START;
    for (stop, may_lose_commits) in [(Postgres::stop as fn(&mut Postgres), false), (Postgres::kill, true)] {
        let next = Position::new(checkpoint.get() + 10);
        writer.commit(changes(checkpoint.get(), next.get())).await.unwrap();
        assert_eq!(retry(|| reader.position()).await.unwrap(), next);
        block_in_place(|| stop(&mut postgres));
        assert!(is_unavailable(&reader.position().await));
        assert!(is_unavailable(&writer.checkpoint().await));
        let opened = PostgresReadModelWriter::open(&url).await.map(drop);
        assert!(is_unavailable(&opened), "{opened:?}");
        block_in_place(|| postgres.restart());
        // A kill may lose the last commits.
        let found = retry(|| reader.position()).await.unwrap();
        assert!(found == next || (may_lose_commits && found == checkpoint), "{found}");
        writer = open_writer(&url).await.unwrap();
        assert_eq!(writer.checkpoint().await.unwrap().position, found);
        checkpoint = found;
    }
    writer.commit(changes(checkpoint.get(), checkpoint.get() + 10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_survive_lost_idle_connections() {
    let mut postgres = block_in_place(Postgres::start);
    let url = PostgresUrl::parse(&postgres.create_database()).unwrap();
    let reader = PostgresReadModel::with_connections(url.clone(), 4);
    drop(open_writer(&url).await.unwrap());
    let query_all = async || {
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
    query_all().await;
    block_in_place(|| postgres.restart());
    query_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_postgres_is_reported_as_unavailable_within_seconds() {
    let postgres = block_in_place(Postgres::start);
    let url = PostgresUrl::parse(&postgres.create_database()).unwrap();
    drop(open_writer(&url).await.unwrap());
    let reader = PostgresReadModel::with_connections(url, 1);
    block_in_place(|| postgres.pause());
    let started = std::time::Instant::now();
    assert!(is_unavailable(&reader.position().await));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    block_in_place(|| postgres.resume());
    assert_eq!(retry(|| reader.position()).await.unwrap(), Position::START);
}

#[tokio::test]
async fn errors_do_not_contain_the_password() {
    let (text, _) = database();
    let password = Postgres::shared().password();
    let wrong_database = format!("{text}_not_there");
    let wrong_password = text.replace(password, "not-the-password");
    let closed_port = format!("postgres://postgres:{password}@127.0.0.1:1/chat");
    for url in [wrong_database, wrong_password, closed_port] {
        let reader = PostgresReadModel::new(PostgresUrl::parse(&url).unwrap());
        let error = reader.position().await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(password) && !shown.contains("not-the-password"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_from_before_senders_are_extended_in_place_while_they_are_read() {
    let (text, url) = database();
    // This version creates the schema. Then the tables are replaced by those of the version before senders.
    drop(open_writer(&url).await.unwrap());
    let schema = url.schema_name().to_owned();
    let tables = "apps, chats, messages, deleted_messages, dead_letters, checkpoint";
    let comments =
        tables.split(", ").map(|table| format!("COMMENT ON TABLE {table} IS 'chat-api read model';"));
    let comments: String = comments.collect();
    let sql = format!("SET search_path = {schema}; DROP TABLE {tables}; {TABLES_BEFORE_SENDERS} {comments}");
    run_sql(&text, &sql).await;
    let reader = PostgresReadModel::new(url.clone());
    let early = reader.position().await;
    assert!(is_unavailable(&early), "{early:?}");
    assert!(is_unavailable(&reader.digest().await));
    assert!(is_unavailable(&PostgresReadModelWriter::open_dry_run(&url).await.map(drop)));

    // A process of the version before senders keeps its connection, with a prepared statement.
    let mut old = PgConnection::connect(&text).await.unwrap();
    raw_sql(AssertSqlSafe(format!("SET search_path = {schema}"))).execute(&mut old).await.unwrap();
    let old_query = "SELECT body FROM messages WHERE chat_id = 2 ORDER BY number";
    let read_old = async |old: &mut PgConnection| -> Vec<String> {
        sqlx::query_scalar(old_query).fetch_all(old).await.unwrap()
    };
    assert_eq!(read_old(&mut old).await.len(), 3);
    let writer = Box::new(open_writer(&url).await.unwrap());
    let extended = retry_queries(WriterAndReader { writer, reader: Arc::new(reader) });
    let folder = tempfile::tempdir().unwrap();
    let fresh = retry_queries(open(folder.path()));
    tables_without_senders_are_extended_in_place(&extended, &fresh).await;
    assert_eq!(read_old(&mut old).await, ["edited", "message 3", "message 4"]);
    drop(extended);

    // A projector of the version before senders may take over again.
    sqlx::query(
        "INSERT INTO messages (number, body, version, created_at, updated_at, id, chat_id)
         VALUES (5, 'message 5', 1, 0, 0, 1002, 2)",
    )
    .execute(&mut old)
    .await
    .unwrap();
    open_writer(&url).await.unwrap();
}

#[tokio::test]
async fn a_page_of_one_sender_is_read_from_the_index_of_senders() {
    let (text, url) = database();
    open_writer(&url).await.unwrap();
    let mut connection = PgConnection::connect(&text).await.unwrap();
    // The settings are those of a session for queries.
    let prepared = format!(
        "SET search_path = {}; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
         SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan;
         PREPARE page (text, bigint, text, bigint, bigint, bigint) AS {}",
        url.schema_name(),
        ListMessagesOfSender::SQL
    );
    raw_sql(AssertSqlSafe(prepared)).execute(&mut connection).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar("EXPLAIN EXECUTE page ('a', 1, 'u-17', 5, 5, 5)")
        .persistent(false)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let plan = plan.join("\n");
    let index_scans = plan.matches("using messages_by_sender on messages").count();
    assert!(index_scans == 2 && !plan.contains("Sort"), "{plan}");
    for bound in ["(number < $4)", "(number >= $4)"] {
        assert!(plan.contains(bound), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_a_user_who_may_not_create_the_schema_names_the_needed_grant() {
    let (url_text, _) = database();
    let user = format!("user_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&url_text).await.unwrap();
    let create = format!("CREATE USER {user} PASSWORD 'secret'");
    raw_sql(AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
    let (_, host) = url_text.split_once('@').unwrap();
    let url = PostgresUrl::parse(&format!("postgres://{user}:secret@{host}")).unwrap();
    within("the refusal", async || match PostgresReadModelWriter::open(&url).await {
        Err(ReadModelError::Unavailable(cause)) => {
            let cause = cause.to_string();
            let is_refused = cause.starts_with("permission denied for database ");
            (is_refused && cause.contains("`GRANT CREATE ON DATABASE ")).then_some(())
        }
        opened => panic!("{:?}", opened.map(drop)),
    })
    .await;
}
