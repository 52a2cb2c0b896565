//! The event store in one SQLite file: the embedded default.
//!
//! A thread of its own holds the one connection that writes; appends arrive there over a channel, and those that wait
//! together share one transaction and one fsync. Reads run on a few read-only connections. Other processes may read
//! and append at the same time: the write-ahead log lets readers be, and each append checks its stream inside its
//! transaction. Another thread copies the write-ahead log into the file, so that no append waits for that.

mod reader;
mod recent;
mod schema;
mod subscription;
mod writer;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::Position;
use rusqlite::ErrorCode;
use tokio::sync::{mpsc, oneshot, watch};

use crate::write_ahead;
use chat_files::durable_folder;
use chat_ports::event_store::{
    AppendError, Appended, EventSearch, EventStore, EventStoreError, LogId, RecordedEvent, StreamAppend,
    StreamRead, Subscription,
};
use reader::ReaderPool;
use recent::Recent;
use subscription::SqliteSubscription;
use writer::Job;

/// Reads of single streams that run at once.
const STREAM_READS: usize = 4;

/// Reads of the log as a whole that run at once: they keep projections fed, and don't queue behind whoever reads long
/// streams.
const LOG_READS: usize = 2;

/// An event log in a SQLite file.
pub struct SqliteEventStore {
    log_id: LogId,
    jobs: mpsc::Sender<Job>,
    stream_readers: Arc<ReaderPool>,
    log_readers: Arc<ReaderPool>,
    recent: Arc<Recent>,
    /// The last position this process knows of; wakes subscriptions.
    head: watch::Receiver<Position>,
}

impl SqliteEventStore {
    /// Opens the log at `path`, creating it, and the folder it is in, where they don't exist.
    ///
    /// Blocks for a few milliseconds. Fails as [`EventStoreError::Damaged`] where the file is something else or of a
    /// newer version.
    pub fn open(path: &Path) -> Result<Self, EventStoreError> {
        durable_folder::create(&durable_folder::parent(path))
            .map_err(|error| EventStoreError::Unavailable(error.into()))?;
        let mut connection = schema::open_for_writing(path)?;
        let log_id = schema::migrate(&mut connection)?;
        let stream_readers = Arc::new(ReaderPool::new(path, STREAM_READS));
        let log_readers = Arc::new(ReaderPool::new(path, LOG_READS));
        let head = reader::head(&connection).map_err(classify)?;
        let (head_sender, head) = watch::channel(head);
        let (jobs, queue) = mpsc::channel(writer::QUEUE);
        let recent = Arc::new(Recent::default());
        let unavailable = |error: std::io::Error| EventStoreError::Unavailable(error.into());
        let log = write_ahead::spawn("event-log-wal", path).map_err(unavailable)?;
        log.watch(&mut connection).map_err(classify)?;
        writer::spawn(connection, queue, head_sender, Arc::clone(&recent), log).map_err(unavailable)?;
        Ok(Self { log_id, jobs, stream_readers, log_readers, recent, head })
    }
}

#[async_trait]
impl EventStore for SqliteEventStore {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        Ok(self.log_id)
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<Appended, AppendError>> {
        let count = appends.len();
        let (answer, answered) = oneshot::channel();
        if self.jobs.send(Job { appends, answer }).await.is_err() {
            return refuse_all(count, || AppendError::Unavailable(Stopped.into()));
        }
        match answered.await {
            Ok(results) => results,
            Err(_) => refuse_all(count, || AppendError::OutcomeUnknown(Stopped.into())),
        }
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.stream_readers.run(move |connection| reader::stream(connection, &read)).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log_readers.run(move |connection| reader::all(connection, after, limit)).await
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log_readers.run(move |connection| reader::all_backwards(connection, before, limit)).await
    }

    async fn find(&self, wanted: EventSearch) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.stream_readers.run(move |connection| reader::find(connection, wanted.id)).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.log_readers.run(reader::head).await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        let (readers, recent) = (Arc::clone(&self.log_readers), Arc::clone(&self.recent));
        Ok(Box::new(SqliteSubscription::new(readers, recent, self.head.clone(), after)))
    }
}

/// The thread that writes is gone, which only a panic in it explains.
#[derive(Debug, thiserror::Error)]
#[error("the thread that writes to the event log has stopped")]
struct Stopped;

fn refuse_all(count: usize, error: impl Fn() -> AppendError) -> Vec<Result<Appended, AppendError>> {
    (0..count).map(|_| Err(error())).collect()
}

/// Sorts SQLite's failures into those worth a retry and those that will be found again.
fn classify(error: rusqlite::Error) -> EventStoreError {
    use rusqlite::Error as E;
    match &error {
        E::SqliteFailure(failure, _)
            if !matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
        {
            EventStoreError::Unavailable(error.into())
        }
        _ => EventStoreError::Damaged(error.into()),
    }
}
