//! A log that was set back or replaced while it was open.

use chat_domain::Timestamp;
use chat_ports::event_store::{AppendError, EventStore, LogId, NewIncarnation};
use uuid::Uuid;

use crate::{Database, STREAM, append, expected_before, fill, open, positions};

/// Removes the last `events` events, as a restore to an earlier moment or a switch to a standby that was behind does.
async fn set_back(database: &Database, events: u64) {
    let sql = format!(
        "ALTER TABLE chat_event_log.events DISABLE TRIGGER ALL;
         DELETE FROM chat_event_log.events WHERE position > (SELECT max(position) - {events} FROM chat_event_log.events);
         ALTER TABLE chat_event_log.events ENABLE TRIGGER ALL;"
    );
    database.run_sql(&sql).await;
}

#[tokio::test]
async fn refuses_the_appends_of_a_process_that_has_seen_a_lost_event() {
    let database = Database::new().unwrap();
    let (writer, watcher) = (open(&database.url).await, open(&database.url).await);
    fill(&writer, STREAM, 0, 3).await;
    for log in [&writer, &watcher] {
        log.verify_identity().await.unwrap();
    }
    set_back(&database, 1).await;
    for log in [&writer, &watcher] {
        let error = log.verify_identity().await.unwrap_err();
        assert!(error.to_string().starts_with("the log no longer has the event at position 3"), "{error}");
        let refused = append(log, STREAM, expected_before(2)).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        assert!(log.probe_write().await.is_err());
    }
    assert_eq!(positions(&writer).await, [1, 2]);

    // A process that has not seen the lost event may append. The new event gets the position of the lost one. That does
    // not hide the loss from a process that has seen the lost one.
    let later = open(&database.url).await;
    append(&later, STREAM, expected_before(2)).await.unwrap();
    assert!(writer.verify_identity().await.is_err());
    let refused = append(&writer, STREAM, expected_before(3)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn refuses_the_appends_of_a_handle_of_the_previous_incarnation() {
    let database = Database::new().unwrap();
    let (operator, process) = (open(&database.url).await, open(&database.url).await);
    fill(&process, STREAM, 0, 1).await;
    let incarnation = NewIncarnation {
        log: LogId(Uuid::new_v4()),
        began_at: Timestamp::from_millis(7),
        reason: "a test".to_owned(),
        replaces: vec![],
    };
    operator.begin_incarnation(incarnation).await.unwrap();
    assert!(process.verify_identity().await.is_err());
    let refused = append(&process, STREAM, expected_before(1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    operator.verify_identity().await.unwrap();
    append(&operator, STREAM, expected_before(1)).await.unwrap();
}

#[tokio::test]
async fn a_log_whose_tables_are_gone_is_noticed() {
    let database = Database::new().unwrap();
    let log = open(&database.url).await;
    database.run_sql("DROP SCHEMA chat_event_log CASCADE").await;
    assert!(log.verify_identity().await.is_err());
    assert!(append(&log, STREAM, expected_before(0)).await.is_err());
}
