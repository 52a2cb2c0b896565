//! A log that fails: clients get the right error, and no event is lost, duplicated or renumbered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use chat_command_api::command::CommandError;
use chat_command_api::writer::{WriterConfig, WriterHandle};
use chat_domain::{Position, Timestamp};
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, LogId, RecordedEvent, StreamAppend,
    StreamRead, Subscription,
};

use crate::stage::{Client, Stage, writer_on};

const NONE: u8 = 0;
const REFUSES: u8 = 1;
const LOSES_ANSWERS: u8 = 2;
const HANGS: u8 = 3;

/// A real log with an injected fault.
struct FaultyLog {
    log: Arc<dyn EventStore>,
    fault: AtomicU8,
}

#[async_trait]
impl EventStore for FaultyLog {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.log.log_id().await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let count = appends.len();
        match self.fault.load(Ordering::SeqCst) {
            REFUSES => (0..count).map(|_| Err(AppendError::Unavailable("away".into()))).collect(),
            LOSES_ANSWERS => {
                self.log.append(appends).await;
                (0..count).map(|_| Err(AppendError::OutcomeUnknown("cut off".into()))).collect()
            }
            HANGS => std::future::pending().await,
            _ => self.log.append(appends).await,
        }
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_stream(read).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_all(after, limit).await
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_all_backwards(before, limit).await
    }

    async fn find_event(&self, wanted: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.log.find_event(wanted).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.log.head().await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.log.subscribe(after).await
    }
}

fn writer_on_faulty_log(stage: &Stage) -> (Arc<FaultyLog>, Client) {
    let log = Arc::new(FaultyLog { log: Arc::clone(&stage.log), fault: AtomicU8::new(NONE) });
    let writer = writer_on(Arc::clone(&log) as Arc<dyn EventStore>, Arc::clone(&stage.counters));
    (log, writer)
}

#[tokio::test]
async fn reuses_the_numbers_of_a_refused_append_at_once() {
    let stage = Stage::new();
    let (log, writer) = writer_on_faulty_log(&stage);
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    log.fault.store(REFUSES, Ordering::SeqCst);
    for _ in 0..3 {
        let refused = writer.create_message(app, chat).await;
        assert!(matches!(refused, Err(CommandError::EventStoreUnavailable(_))), "{refused:?}");
    }
    log.fault.store(NONE, Ordering::SeqCst);
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 2);
    assert_eq!(stage.events().await.len(), 4);
}

#[tokio::test]
async fn reports_a_lost_response_as_unknown_and_does_not_reuse_its_number() {
    let stage = Stage::new();
    let (log, writer) = writer_on_faulty_log(&stage);
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    log.fault.store(LOSES_ANSWERS, Ordering::SeqCst);
    let unknown = writer.create_message(app, chat).await;
    assert!(matches!(unknown, Err(CommandError::OutcomeUnknown(_))), "{unknown:?}");
    log.fault.store(NONE, Ordering::SeqCst);
    // The append did arrive, so number 1 is taken.
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 2);
}

#[tokio::test]
async fn rejects_a_command_beyond_the_queue_capacity_at_once() {
    let stage = Stage::new();
    let log = Arc::new(FaultyLog { log: Arc::clone(&stage.log), fault: AtomicU8::new(NONE) });
    let config = WriterConfig {
        event_store: Arc::clone(&log) as Arc<dyn EventStore>,
        counters: Arc::clone(&stage.counters),
        clock: || Timestamp::from_millis(0),
        queue_capacity: 2,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head: Position::START,
    };
    let writer = Client::of(WriterHandle::spawn(config).0);
    let app = writer.create_app().await;
    log.fault.store(HANGS, Ordering::SeqCst);
    let waiting = async { tokio::join!(writer.create_chat(app), writer.create_chat(app)) };
    let third = async {
        while writer.0.writer().available_capacity() > 0 {
            tokio::task::yield_now().await;
        }
        writer.create_chat(app).await
    };
    tokio::select! {
        _ = waiting => panic!("the log hangs"),
        refused = third => assert!(matches!(refused, Err(CommandError::Overloaded)), "{refused:?}"),
    }
}

#[tokio::test]
async fn the_writer_ends_after_the_last_handle_is_dropped_and_all_commands_are_answered() {
    let stage = Stage::new();
    let config = WriterConfig {
        event_store: Arc::clone(&stage.log),
        counters: Arc::clone(&stage.counters),
        clock: || Timestamp::from_millis(0),
        queue_capacity: 10,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head: Position::START,
    };
    let (handle, task) = WriterHandle::spawn(config);
    let writer = Client::of(handle);
    let app = writer.create_app().await;
    let last = tokio::spawn({
        let writer = writer.clone();
        async move { writer.create_chat(app).await }
    });
    drop(writer);
    assert_eq!(last.await.unwrap().unwrap().get(), 1);
    task.await.unwrap();
}
