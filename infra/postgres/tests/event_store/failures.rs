//! Connections and servers that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chat_domain::{Position, Revision};
use chat_ports::contract_tests::event_store::scoped_log::event;
use chat_ports::event_store::{AppendError, EventStore, ReadStart, StreamRead};
use chat_testing::Postgres;
use sqlx::{PgConnection, raw_sql};
use tokio::task::block_in_place;

use crate::{DEADLINE, Database, STREAM, append, expected_before, fill, new_append, open, positions};

/// Appends one event, and repeats the same append until its outcome is known.
async fn append_persistently(log: &dyn EventStore, revision: u64) {
    let sent = new_append(STREAM, expected_before(revision), vec![event("A")]);
    let repeating = async {
        loop {
            match log.append(vec![sent.clone()]).await.pop().unwrap() {
                Ok(receipt) => return assert_eq!(receipt.revision.get(), revision),
                Err(error @ (AppendError::Conflict | AppendError::StreamTruncated(_))) => {
                    panic!("refused, although nothing else uses the stream: {error}")
                }
                Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)) => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, repeating).await.unwrap();
}

/// Asserts that [`STREAM`] has this number of events, each once and in order.
async fn assert_complete(log: &dyn EventStore, events: u64) {
    let mut revisions: Vec<u64> = Vec::new();
    loop {
        let start = ReadStart::Forwards(Revision::new(revisions.len() as u64));
        let stored = log.read_stream(StreamRead::all(STREAM, start, 1_000)).await.unwrap();
        let Some(first) = stored.first() else { break };
        assert_eq!(first.revision.get(), revisions.len() as u64, "a page does not follow the one before");
        revisions.extend(stored.iter().map(|event| event.revision.get()));
    }
    assert_eq!(revisions, (0..events).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_connection_is_terminated_is_stored_once() {
    const TERMINATIONS: usize = 20;
    let database = Arc::new(Database::new().unwrap());
    let log = open(&database.url).await;
    let appended = Arc::new(AtomicU64::new(0));
    let terminating = {
        let (database, appended) = (Arc::clone(&database), Arc::clone(&appended));
        tokio::spawn(async move {
            let mut admin = database.connect().await;
            for _ in 0..TERMINATIONS {
                while terminate_append(&mut admin).await == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // However slow the machine is, an append succeeds before the next termination.
                let before = appended.load(Ordering::SeqCst);
                while appended.load(Ordering::SeqCst) == before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    };
    while !terminating.is_finished() {
        let revision = appended.load(Ordering::SeqCst);
        append_persistently(&log, revision).await;
        appended.store(revision + 1, Ordering::SeqCst);
    }
    terminating.await.unwrap();
    let events = appended.load(Ordering::SeqCst);
    assert_complete(&log, events).await;
    assert_eq!(positions(&log).await, (1..=events).collect::<Vec<_>>());
}

/// Terminates the connections on which an append runs. Returns their number, which is 0 while none runs.
async fn terminate_append(admin: &mut PgConnection) -> i64 {
    let statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%append(%' AND state = 'active'";
    sqlx::query_scalar(statement).fetch_one(admin).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_survive_a_restart_and_a_kill_of_the_server() {
    let mut postgres = block_in_place(Postgres::start);
    let database = Database::on(&postgres);
    let log = open(&database.url).await;
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    for (round, stop) in [Postgres::stop as fn(&mut Postgres), Postgres::kill].into_iter().enumerate() {
        let first = round as u64 * 10;
        fill(&log, STREAM, first, 10).await;
        block_in_place(|| stop(&mut postgres));
        let refused = append(&log, STREAM, expected_before(first + 10)).await;
        // The outcome is unknown if the append was sent before the connection was lost.
        let is_expected =
            matches!(refused, Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)));
        assert!(is_expected, "{refused:?}");
        assert!(log.head().await.is_err());
        // That the server can't be reached is no sign of another log, so the check succeeds.
        log.verify_identity().await.unwrap();
        block_in_place(|| postgres.restart());
        assert_complete(&log, first + 10).await;
        log.verify_identity().await.unwrap();
    }
    append_persistently(&log, 20).await;
    let mut received = Vec::new();
    let receiving = async {
        while received.len() < 21 {
            // After an error, the subscription may be used again.
            if let Ok(batch) = subscription.next(5).await {
                received.extend(batch.events);
            }
        }
    };
    tokio::time::timeout(DEADLINE, receiving).await.unwrap();
    let received: Vec<u64> = received.iter().map(|event| event.position.get()).collect();
    assert_eq!(received, (1..=21).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_leaves_the_outcome_unknown_until_the_append_is_repeated() {
    let postgres = block_in_place(Postgres::start);
    let database = Database::on(&postgres);
    let log = open(&database.url).await;
    fill(&log, STREAM, 0, 1).await;
    let sent = new_append(STREAM, expected_before(1), vec![event("A")]);
    block_in_place(|| postgres.pause());
    let outcome = log.append(vec![sent.clone()]).await.pop().unwrap();
    assert!(matches!(outcome, Err(AppendError::OutcomeUnknown(_))), "{outcome:?}");
    block_in_place(|| postgres.resume());
    let receipt = log.append(vec![sent]).await.pop().unwrap().unwrap();
    assert_eq!((receipt.position.get(), receipt.revision.get()), (2, 1));
    assert_complete(&log, 2).await;
}

#[tokio::test]
async fn an_append_that_meets_a_deadlock_succeeds() {
    let database = Database::new().unwrap();
    let log = open(&database.url).await;
    fill(&log, STREAM, 0, 1).await;
    let mut other = database.connect().await;
    raw_sql("BEGIN; LOCK TABLE chat_event_log.events IN EXCLUSIVE MODE").execute(&mut other).await.unwrap();
    // The append holds the row of the log and waits for the table. The other transaction holds the table, and now waits
    // for the row: Postgres ends one of the two.
    let waiting = async {
        let statement = "SELECT pg_sleep(0.2); SELECT FROM chat_event_log.log FOR UPDATE";
        // Fails if Postgres ends this transaction. If Postgres ends the append's, the adapter repeats the append, which
        // succeeds after the rollback below.
        let _ = raw_sql(statement).execute(&mut other).await;
        raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let (appended, ()) = tokio::join!(append(&log, STREAM, expected_before(1)), waiting);
    appended.unwrap();
    assert_complete(&log, 2).await;
}
