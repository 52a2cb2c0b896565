//! Tests of the writer with a failing event store, with a full queue, and at shutdown.

use std::sync::Arc;

use chat_command_api::command::CommandError;
use chat_command_api::writer::{WriterConfig, WriterHandle};
use chat_domain::{Position, Timestamp};
use chat_ports::event_store::EventStore;

use crate::faults::{AppendFault, FaultyLog};
use crate::test_log::{Client, TestLog, writer_on};

fn writer_on_faulty_log(test_log: &TestLog) -> (Arc<FaultyLog>, Client) {
    let log = Arc::new(FaultyLog::on(Arc::clone(&test_log.log)));
    let writer = writer_on(Arc::clone(&log) as Arc<dyn EventStore>, Arc::clone(&test_log.counters));
    (log, writer)
}

#[tokio::test]
async fn reuses_the_number_of_a_refused_append() {
    let test_log = TestLog::new();
    let (log, writer) = writer_on_faulty_log(&test_log);
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    log.inject_always(AppendFault::Refused);
    for _ in 0..3 {
        let refused = writer.create_message(app, chat).await;
        assert!(matches!(refused, Err(CommandError::EventStoreUnavailable(_))), "{refused:?}");
    }
    log.inject_always(AppendFault::None);
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 2);
    assert_eq!(test_log.events().await.len(), 4);
}

#[tokio::test]
async fn reports_a_lost_response_as_unknown_and_does_not_reuse_its_number() {
    let test_log = TestLog::new();
    let (log, writer) = writer_on_faulty_log(&test_log);
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    log.inject_always(AppendFault::ResponseLost);
    let unknown = writer.create_message(app, chat).await;
    assert!(matches!(unknown, Err(CommandError::OutcomeUnknown(_))), "{unknown:?}");
    log.inject_always(AppendFault::None);
    // The append was stored, so number 1 is in use.
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 2);
}

#[tokio::test]
async fn rejects_a_command_beyond_the_queue_capacity_at_once() {
    let test_log = TestLog::new();
    let log = Arc::new(FaultyLog::on(Arc::clone(&test_log.log)));
    let config = WriterConfig {
        event_store: Arc::clone(&log) as Arc<dyn EventStore>,
        counters: Arc::clone(&test_log.counters),
        clock: || Timestamp::from_millis(0),
        queue_capacity: 2,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head: Position::START,
    };
    let writer = Client::new(WriterHandle::spawn(config).0);
    let app = writer.create_app().await;
    log.inject_always(AppendFault::HangsBeforeStoring);
    let waiting = async { tokio::join!(writer.create_chat(app), writer.create_chat(app)) };
    let third = async {
        while writer.service.writer().available_capacity() > 0 {
            tokio::task::yield_now().await;
        }
        writer.create_chat(app).await
    };
    tokio::select! {
        _ = waiting => panic!("a command was answered although its append hangs"),
        refused = third => assert!(matches!(refused, Err(CommandError::Overloaded)), "{refused:?}"),
    }
}

#[tokio::test]
async fn the_writer_ends_after_the_last_handle_is_dropped_and_all_commands_are_answered() {
    let test_log = TestLog::new();
    let config = WriterConfig {
        event_store: Arc::clone(&test_log.log),
        counters: Arc::clone(&test_log.counters),
        clock: || Timestamp::from_millis(0),
        queue_capacity: 10,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head: Position::START,
    };
    let (handle, task) = WriterHandle::spawn(config);
    let writer = Client::new(handle);
    let app = writer.create_app().await;
    let last = tokio::spawn({
        let writer = writer.clone();
        async move { writer.create_chat(app).await }
    });
    drop(writer);
    assert_eq!(last.await.unwrap().unwrap().get(), 1);
    task.await.unwrap();
}
