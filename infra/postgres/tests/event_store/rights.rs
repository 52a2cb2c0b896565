//! Changes, users, settings and foreign tables that are refused.

use chat_domain::ExpectedRevision;
use chat_domain::Timestamp;
use chat_ports::contract_tests::event_store::scoped_log::event;
use chat_ports::event_store::{EventStore, EventStoreError, LogId, NewIncarnation};
use chat_postgres::{PostgresEventStore, PostgresUrl};
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use uuid::Uuid;

use crate::{Database, STREAM, fill, open, positions, until_answered};

/// Creates a user. Returns the name of the user, and the URL with which this user opens the database.
async fn create_user(database: &Database) -> (String, String) {
    let user = format!("user_{}", Uuid::new_v4().simple());
    database.run_sql(&format!("CREATE USER {user} PASSWORD 'secret'")).await;
    let (_, host) = database.url_text.split_once('@').unwrap();
    let url = format!("postgres://{user}:secret@{host}");
    (user, url)
}

#[tokio::test]
async fn updates_and_deletions_of_rows_are_refused_even_for_the_owner() {
    let database = Database::new().unwrap();
    let log = open(&database.url).await;
    fill(&log, STREAM, 0, 2).await;
    let mut owner = database.connect().await;
    for table in ["events", "streams", "log", "incarnations"] {
        for statement in [
            format!("DELETE FROM chat_event_log.{table}"),
            format!("TRUNCATE chat_event_log.{table}"),
            format!("UPDATE chat_event_log.{table} SET id = DEFAULT"),
        ] {
            let refused = raw_sql(AssertSqlSafe(statement.clone())).execute(&mut owner).await.unwrap_err();
            let message = refused.to_string();
            assert!(message.contains("the event log is append-only"), "{statement}: {message}");
        }
    }
    assert_eq!(positions(&log).await, [1, 2]);
}

#[tokio::test]
async fn the_rights_that_setup_grants_suffice_to_append_and_read_but_not_to_write_tables() {
    let database = Database::new().unwrap();
    let (user, url_text) = create_user(&database).await;
    let url = PostgresUrl::parse(&url_text).unwrap();
    // Setup may be repeated.
    for _ in 0..2 {
        until_answered(async || PostgresEventStore::set_up(&database.url, Some(&user)).await).await.unwrap();
    }
    let log = open(&url).await;
    fill(&log, STREAM, 0, 3).await;
    assert_eq!(positions(&log).await, [1, 2, 3]);
    log.probe_write().await.unwrap();
    let incarnation = NewIncarnation {
        log: LogId(Uuid::new_v4()),
        began_at: Timestamp::from_millis(7),
        reason: "a test".to_owned(),
        replaces: vec![],
    };
    log.begin_incarnation(incarnation).await.unwrap();
    fill(&log, STREAM, 3, 1).await;

    let mut connection_of_user = PgConnection::connect(&url_text).await.unwrap();
    for statement in [
        "INSERT INTO chat_event_log.streams (name) VALUES ('app-2')",
        "INSERT INTO chat_event_log.incarnations (id, began_after, began_at, reason, replaces)
         VALUES (gen_random_uuid(), 0, 0, '', '{}')",
        "UPDATE chat_event_log.events SET data = ''",
        "DELETE FROM chat_event_log.events",
        "TRUNCATE chat_event_log.events",
        "SELECT * FROM chat_event_log.log FOR UPDATE",
        "ALTER TABLE chat_event_log.events DISABLE TRIGGER ALL",
        "DROP SCHEMA chat_event_log CASCADE",
        "CREATE TABLE chat_event_log.more (n int)",
        "SELECT chat_event_log.lock_for_append()",
    ] {
        let refused = raw_sql(statement).execute(&mut connection_of_user).await.unwrap_err();
        let code =
            refused.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused}");
    }
}

/// Tries to open the log, and returns why that is refused.
async fn refusal(url: &PostgresUrl) -> String {
    match until_answered(async || PostgresEventStore::open(url).await.map(drop)).await {
        Err(EventStoreError::Refused(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Tries to set up the log, and returns why that is refused.
async fn setup_refusal(url: &PostgresUrl, program_user: Option<&str>) -> String {
    match until_answered(async || PostgresEventStore::set_up(url, program_user).await).await {
        Err(EventStoreError::Refused(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_without_rights_is_told_how_to_set_up_the_log() {
    let database = Database::new().unwrap();
    let (user, url_text) = create_user(&database).await;
    let url = PostgresUrl::parse(&url_text).unwrap();
    for refused in [refusal(&url).await, setup_refusal(&url, None).await] {
        let sentence =
            format!("there is no event log in this database, and the user {user} may not create it");
        assert!(refused.starts_with(&sentence), "{refused}");
    }
    let refused = setup_refusal(&url, Some(&user)).await;
    assert!(
        refused.starts_with(&format!("{user}, the user of the processes, would own the event log")),
        "{refused}"
    );
    until_answered(async || PostgresEventStore::set_up(&database.url, None).await).await.unwrap();
    let refused = refusal(&url).await;
    assert!(
        refused.starts_with("the user lacks a right on the event log: the owner of its tables grants"),
        "{refused}"
    );
    let refused = setup_refusal(&url, Some(&user)).await;
    let owner = refused.strip_prefix("the event log belongs to ").and_then(|rest| rest.split(',').next());
    assert!(
        owner.is_some_and(|owner| refused.contains(&format!("and only {owner} can grant rights"))),
        "{refused}"
    );
}

#[tokio::test]
async fn a_grant_by_a_user_who_is_not_the_owner_is_refused() {
    let database = Database::new().unwrap();
    let [(program, program_url), (other, _)] = [create_user(&database).await, create_user(&database).await];
    let program_url = PostgresUrl::parse(&program_url).unwrap();
    let set_up =
        async |url, user| until_answered(async || PostgresEventStore::set_up(url, Some(user)).await).await;
    set_up(&database.url, &program).await.unwrap();
    let refused = setup_refusal(&program_url, Some(&other)).await;
    assert!(refused.starts_with(&format!("the role {other} got no rights: only ")), "{refused}");
    // The role has the rights already.
    set_up(&program_url, &program).await.unwrap();
    set_up(&database.url, &other).await.unwrap();
    set_up(&program_url, &other).await.unwrap();
}

#[tokio::test]
async fn rights_for_a_role_that_does_not_exist_are_refused_with_its_name() {
    let database = Database::new().unwrap();
    let refused = setup_refusal(&database.url, Some("nobody_1")).await;
    assert!(refused.starts_with("the role nobody_1 does not exist: create it first"), "{refused}");
}

async fn open_existing(url: &PostgresUrl) -> Result<PostgresEventStore, EventStoreError> {
    until_answered(async || PostgresEventStore::open_existing(url).await).await
}

#[tokio::test]
async fn open_existing_creates_no_log() {
    let database = Database::new().unwrap();
    let opened = open_existing(&database.url).await.map(drop);
    assert!(matches!(opened, Err(EventStoreError::Refused(_))), "{opened:?}");
    let log = open(&database.url).await;
    log.append(vec![crate::new_append(STREAM, ExpectedRevision::NoStream, vec![event("A")])]).await;
    assert_eq!(positions(&open_existing(&database.url).await.unwrap()).await, [1]);
}

#[tokio::test]
async fn wrong_settings_are_refused_with_a_sentence_and_without_the_password() {
    let database = Database::new().unwrap();
    let password = chat_testing::Postgres::shared().password();
    for (url, sentence) in [
        (format!("{}_not_there", database.url_text), "the database does not exist"),
        (database.url_text.replace(password, "another-one"), "Postgres refuses the user or the password"),
    ] {
        let url = PostgresUrl::parse(&url).unwrap();
        let refused = until_answered(async || PostgresEventStore::open(&url).await.map(drop)).await;
        let Err(EventStoreError::Refused(cause)) = refused else { panic!("{refused:?}") };
        assert_eq!(cause.to_string(), sentence);
        let shown = format!("{cause:?}");
        assert!(!shown.contains(password) && !shown.contains("another-one"), "{shown}");
    }
    database.run_sql("CREATE SCHEMA chat_event_log; CREATE TABLE chat_event_log.diary (day text)").await;
    let refused = until_answered(async || PostgresEventStore::open(&database.url).await.map(drop)).await;
    assert!(matches!(refused, Err(EventStoreError::Refused(_))), "{refused:?}");
}
