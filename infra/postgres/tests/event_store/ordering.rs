//! The order of positions, and the isolation of appends from other transactions and from refused appends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_domain::Position;
use chat_ports::contract_tests::event_store::scoped_log::within_deadline;
use chat_ports::event_store::{AppendError, EventStore};
use sqlx::{Connection, raw_sql};
use tokio::task::JoinSet;

use crate::{Database, STREAM, append, fill, open, positions};

/// SQL that calls the function `append` for one new stream, outside the adapter.
const RAW_APPEND: &str = "SELECT old_head FROM chat_event_log.append(
    chat_event_log.current_id(), 0, gen_random_uuid(), ARRAY['app-' || gen_random_uuid()], ARRAY[-1::bigint], ARRAY[1],
    ARRAY[0::bigint], ARRAY[gen_random_uuid()], ARRAY['A'], ARRAY[1], ARRAY[0::bigint], ARRAY['{}'], ARRAY['{}'])";

#[tokio::test]
async fn a_transaction_that_fails_or_is_rolled_back_leaves_no_gap() {
    let database = Database::new().unwrap();
    let log = open(&database.url).await;
    let mut other = database.connect().await;
    for revision in 0..3 {
        let mut transaction = other.begin().await.unwrap();
        raw_sql(RAW_APPEND).execute(&mut *transaction).await.unwrap();
        transaction.rollback().await.unwrap();
        let failing = format!("{RAW_APPEND}; SELECT 1 / 0");
        assert!(raw_sql(sqlx::AssertSqlSafe(failing)).execute(&mut other).await.is_err());
        fill(&log, STREAM, revision, 1).await;
    }
    assert_eq!(positions(&log).await, [1, 2, 3]);
}

#[tokio::test]
async fn idle_transactions_and_long_readers_delay_neither_appends_nor_subscriptions() {
    let database = Database::new().unwrap();
    let log = open(&database.url).await;
    fill(&log, STREAM, 0, 1).await;
    // `idle` holds an old snapshot and has written a table. `reader` has begun to read the events.
    let (mut idle, mut reader) = (database.connect().await, database.connect().await);
    raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE TABLE elsewhere (n int); SELECT count(*) FROM chat_event_log.events")
        .execute(&mut idle)
        .await
        .unwrap();
    raw_sql("BEGIN; DECLARE events CURSOR FOR SELECT * FROM chat_event_log.events; FETCH 1 FROM events")
        .execute(&mut reader)
        .await
        .unwrap();
    let mut subscription = log.subscribe(Position::new(1)).await.unwrap();
    for revision in 1..4 {
        fill(&log, STREAM, revision, 1).await;
        let batch = within_deadline(subscription.next(10)).await.unwrap();
        assert_eq!(batch.up_to, Position::new(revision + 1));
    }
    assert_eq!(positions(&log).await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_appears_before_a_position_that_was_seen() {
    const WRITERS: usize = 4;
    const EVENTS_EACH: u64 = 15;
    let database = Arc::new(Database::new().unwrap());
    let logs = [Arc::new(open(&database.url).await), Arc::new(open(&database.url).await)];
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let log = Arc::clone(&logs[writer % 2]);
        writers.spawn(async move { fill(&*log, &format!("app-{writer}"), 0, EVENTS_EACH).await });
    }
    // Transactions that are rolled back at any moment.
    let stopped = Arc::new(AtomicBool::new(false));
    let rollbacks = {
        let (database, stopped) = (Arc::clone(&database), Arc::clone(&stopped));
        tokio::spawn(async move {
            let mut other = database.connect().await;
            while !stopped.load(Ordering::Relaxed) {
                let mut transaction = other.begin().await.unwrap();
                raw_sql(RAW_APPEND).execute(&mut *transaction).await.unwrap();
                transaction.rollback().await.unwrap();
            }
        })
    };
    let mut seen: Vec<u64> = Vec::new();
    let total = WRITERS as u64 * EVENTS_EACH;
    while (seen.len() as u64) < total {
        let head = logs[0].head().await.unwrap().get();
        let now = positions(&*logs[1]).await;
        // There is no gap in which an event could appear later.
        assert_eq!(now, (1..=now.len() as u64).collect::<Vec<_>>());
        assert!(
            now.len() as u64 >= head.max(seen.len() as u64),
            "head {head}, events: {} before, {} now",
            seen.len(),
            now.len()
        );
        seen = now;
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    stopped.store(true, Ordering::Relaxed);
    rollbacks.await.unwrap();
    assert_eq!(positions(&*logs[0]).await.len() as u64, total);
}

#[tokio::test]
async fn appends_are_durable_and_read_committed_despite_the_settings_of_the_database() {
    let database = Database::new().unwrap();
    drop(open(&database.url).await);
    database
        .run_sql(
            "DO $$ BEGIN
                EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
                EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
             END $$",
        )
        .await;
    let log = open(&database.url).await;
    fill(&log, STREAM, 0, 2).await;

    let mut other = database.connect().await;
    // Outside the adapter, a transaction has the isolation level of the database, which `append` refuses.
    let refused = raw_sql(RAW_APPEND).execute(&mut other).await.unwrap_err();
    assert!(refused.to_string().contains("READ COMMITTED"), "{refused}");
    let mut transaction = other.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
    let synchronous_commit = async |db: &mut sqlx::PgConnection| -> String {
        sqlx::query_scalar("SHOW synchronous_commit").fetch_one(db).await.unwrap()
    };
    assert_eq!(synchronous_commit(&mut transaction).await, "off");
    raw_sql(RAW_APPEND).execute(&mut *transaction).await.unwrap();
    assert_eq!(synchronous_commit(&mut transaction).await, "on");
}

#[tokio::test]
async fn a_stored_event_id_fails_only_its_own_append() {
    let database = Database::new().unwrap();
    let log = open(&database.url).await;
    fill(&log, STREAM, 0, 1).await;
    let stored = log.read_all(Position::START, 1).await.unwrap().remove(0);
    let event = || chat_ports::contract_tests::event_store::scoped_log::event("A");
    let with_stored_id = chat_ports::event_store::NewEvent { id: stored.id, ..event() };
    let appends = vec![
        crate::new_append("app-2", crate::expected_before(0), vec![event()]),
        crate::new_append("app-3", crate::expected_before(0), vec![with_stored_id]),
        crate::new_append("app-4", crate::expected_before(0), vec![event(), event()]),
    ];
    let outcomes = log.append(appends).await;
    assert!(matches!(outcomes[..], [Ok(_), Err(AppendError::Conflict), Ok(_)]), "{outcomes:?}");
    assert_eq!(positions(&log).await, [1, 2, 3, 4]);
    append(&log, "app-3", crate::expected_before(0)).await.unwrap();
}

#[tokio::test]
async fn a_refused_event_fails_only_its_own_append_beside_a_stored_event_id() {
    let database = Database::new().unwrap();
    let log = open(&database.url).await;
    fill(&log, STREAM, 0, 1).await;
    database.run_sql("ALTER TABLE chat_event_log.events ADD CHECK (event_type <> 'refused')").await;
    let stored = log.read_all(Position::START, 1).await.unwrap().remove(0);
    let event = chat_ports::contract_tests::event_store::scoped_log::event;
    let with_stored_id = chat_ports::event_store::NewEvent { id: stored.id, ..event("A") };
    let appends = vec![
        crate::new_append("app-2", crate::expected_before(0), vec![with_stored_id]),
        crate::new_append("app-3", crate::expected_before(0), vec![event("refused")]),
        crate::new_append("app-4", crate::expected_before(0), vec![event("A")]),
    ];
    let outcomes = log.append(appends).await;
    assert!(
        matches!(outcomes[..], [Err(AppendError::Conflict), Err(AppendError::Unavailable(_)), Ok(_)]),
        "{outcomes:?}"
    );
    assert_eq!(positions(&log).await, [1, 2]);
}
