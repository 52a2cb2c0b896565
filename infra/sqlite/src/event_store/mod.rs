//! The event store in one SQLite file: the embedded default.
//!
//! A writer thread owns the connection that appends. Appends reach it over a channel, and those that wait together
//! share one transaction and one fsync. Reads run on a few read-only connections. Other processes may read and append
//! at the same time: WAL mode does not block readers, and each append checks its stream inside its transaction. A
//! second thread checkpoints the WAL, so that appends wait for a checkpoint only if the WAL has grown large.

mod checked_read;
mod error;
mod incarnations;
mod log_copy;
mod open_files;
mod reader;
mod recent_events;
mod schema;
mod subscription;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use metrics::{Unit, describe_histogram, histogram};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::wal_checkpointer::WalCheckpointer;
use chat_files::durable_fs;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription,
};
use error::{OtherIncarnation, classify};
use open_files::{FileCheckError, OpenFiles};
use reader::ReaderPool;
use recent_events::RecentEvents;
use schema::FileChanges;
use subscription::SqliteSubscription;
use writer::{AppendRequest, Writer, WriterRequest};

pub use log_copy::{check_event_log_file, copy_event_log};

/// Concurrent reads of single streams.
const CONCURRENT_STREAM_READS: usize = 4;

/// Concurrent reads of the whole log. They have connections of their own, so that projections do not wait behind reads
/// of long streams.
const CONCURRENT_LOG_READS: usize = 2;

/// The time limit of [`truncate_wal`] for waiting for other connections.
const TRUNCATE_TIMEOUT: Duration = Duration::from_millis(500);

/// Registers the metrics of a process that appends to a log in SQLite.
pub fn register_metrics() {
    describe_histogram!(
        "chat_event_log_commit_seconds",
        Unit::Seconds,
        "Time of a commit of the log: nearly all of it is the disk's sync (fsync)."
    );
    let _ = histogram!("chat_event_log_commit_seconds");
}

/// An event log in a SQLite file.
pub struct SqliteEventStore {
    path: PathBuf,
    changes: FileChanges,
    files: Arc<OpenFiles>,
    /// The incarnation that this handle appends to.
    incarnation: Arc<Mutex<LogId>>,
    requests: mpsc::Sender<WriterRequest>,
    stream_readers: Arc<ReaderPool>,
    log_readers: Arc<ReaderPool>,
    recent: Arc<RecentEvents>,
    /// The head after the last transaction of this process, or at the opening. A new value wakes subscriptions.
    head: watch::Receiver<Position>,
}

impl SqliteEventStore {
    /// Opens the log at `path`, and creates it and its folder if they don't exist.
    ///
    /// Blocks. Fails with [`EventStoreError::Damaged`] if the file is no event log or of a newer version.
    pub fn open(path: &Path) -> Result<Self, EventStoreError> {
        durable_fs::create_dir_all(&durable_fs::parent_dir(path))
            .map_err(|error| EventStoreError::Unavailable(error.into()))?;
        let mut connection = schema::open_for_writing(path)?;
        schema::create_or_check(&mut connection)?;
        let log_id = incarnations::read_log_id(&connection).map_err(classify)?;
        let incarnation = Arc::new(Mutex::new(log_id));
        let files = OpenFiles::record(path).map_err(|error| EventStoreError::Unavailable(error.into()))?;
        let files = Arc::new(files);
        let changes = FileChanges::Possible;
        let readers = |connections| Arc::new(ReaderPool::new(path, changes, Arc::clone(&files), connections));
        let (stream_readers, log_readers) = (readers(CONCURRENT_STREAM_READS), readers(CONCURRENT_LOG_READS));
        let head = reader::read_head(&connection).map_err(classify)?;
        let (head_sender, head) = watch::channel(head);
        let (requests, queue) = mpsc::channel(writer::QUEUE_CAPACITY);
        let recent = Arc::new(RecentEvents::default());
        let unavailable = |error: std::io::Error| EventStoreError::Unavailable(error.into());
        let checkpointer = WalCheckpointer::spawn("event-log-wal", path).map_err(unavailable)?;
        checkpointer.install_wal_hook(&mut connection).map_err(classify)?;
        let writer = Writer::new(
            connection,
            Arc::clone(&files),
            Arc::clone(&incarnation),
            head_sender,
            Arc::clone(&recent),
        );
        writer.spawn(queue, checkpointer).map_err(unavailable)?;
        let path = path.to_owned();
        Ok(Self { path, changes, files, incarnation, requests, stream_readers, log_readers, recent, head })
    }

    fn check_files(&self) -> Result<(), EventStoreError> {
        self.files.check().map_err(|replaced| EventStoreError::Unavailable(replaced.into()))
    }

    /// Opens a log to read it. Other processes may append to it; appends through this handle fail.
    ///
    /// Blocks. Fails as [`Self::open`] does, and if there is no file.
    pub fn open_read_only(path: &Path) -> Result<Self, EventStoreError> {
        Self::open_without_writer(path, FileChanges::Possible)
    }

    /// Opens a copy that no process writes, without changing it or creating files beside it. A WAL beside it is not
    /// read. Appends to it fail.
    ///
    /// Blocks. Fails as [`Self::open`] does, and if there is no file.
    pub fn open_immutable(path: &Path) -> Result<Self, EventStoreError> {
        Self::open_without_writer(path, FileChanges::Excluded)
    }

    fn open_without_writer(path: &Path, changes: FileChanges) -> Result<Self, EventStoreError> {
        let connection = schema::open_for_reading(path, changes).map_err(classify)?;
        schema::check_format(&connection)?;
        let log_id = incarnations::read_log_id(&connection).map_err(classify)?;
        let (_, head) = watch::channel(reader::read_head(&connection).map_err(classify)?);
        // There is no writer thread, so the receiver is dropped.
        let (requests, _) = mpsc::channel(writer::QUEUE_CAPACITY);
        let files = Arc::new(OpenFiles::default());
        let readers = |connections| Arc::new(ReaderPool::new(path, changes, Arc::clone(&files), connections));
        Ok(Self {
            path: path.to_owned(),
            changes,
            incarnation: Arc::new(Mutex::new(log_id)),
            requests,
            stream_readers: readers(CONCURRENT_STREAM_READS),
            log_readers: readers(CONCURRENT_LOG_READS),
            files,
            recent: Arc::new(RecentEvents::default()),
            head,
        })
    }
}

#[async_trait]
impl EventStore for SqliteEventStore {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.check_files()?;
        self.log_readers.run(incarnations::read_log_id).await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.log_readers.run(incarnations::read_lineage).await
    }

    /// Begins the incarnation in one transaction. From then on this handle appends to it, and the appends of other
    /// open handles are refused.
    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        if self.requests.is_closed() {
            return Err(EventStoreError::Unavailable(WriterStopped.into()));
        }
        self.check_files()?;
        let (path, current) = (self.path.clone(), Arc::clone(&self.incarnation));
        let begin = move || {
            let mut connection = schema::open_for_writing(&path)?;
            let begun = incarnations::begin(&mut connection, incarnation).map_err(classify)?;
            *current.lock().unwrap_or_else(PoisonError::into_inner) = begun.log;
            // A failure is only logged: the incarnation has begun, and is durable in the WAL.
            if let Err(error) = truncate_wal(&connection) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not truncate the WAL of the event log"
                );
            }
            Ok(begun)
        };
        let task = tokio::task::spawn_blocking(begin);
        task.await.unwrap_or_else(|error| Err(EventStoreError::Unavailable(error.into())))
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        if let Err(replaced @ FileCheckError::Replaced(_)) = self.files.check() {
            return Err(LogReplaced(replaced.to_string()));
        }
        let current = *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner);
        match self.log_readers.run(incarnations::read_log_id).await {
            Ok(log) if log != current => Err(LogReplaced(OtherIncarnation.to_string())),
            _ => Ok(()),
        }
    }

    /// Copies the WAL into the database file and truncates the WAL, as far as other connections allow it.
    async fn close(&self) -> Result<(), EventStoreError> {
        if self.requests.is_closed() {
            return Ok(());
        }
        self.check_files()?;
        let path = self.path.clone();
        let truncate = move || truncate_wal(&schema::open_for_writing(&path)?);
        let task = tokio::task::spawn_blocking(truncate);
        task.await.unwrap_or_else(|error| Err(EventStoreError::Unavailable(error.into())))
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let count = appends.len();
        let (reply_sender, reply) = oneshot::channel();
        let request = WriterRequest::Append(AppendRequest { appends, reply_sender });
        if self.requests.send(request).await.is_err() {
            return fail_all(count, || AppendError::Unavailable(WriterStopped.into()));
        }
        match reply.await {
            Ok(results) => results,
            Err(_) => fail_all(count, || AppendError::OutcomeUnknown(WriterStopped.into())),
        }
    }

    async fn probe_write(&self) -> Result<(), AppendError> {
        let (reply_sender, reply) = oneshot::channel();
        let stopped = || AppendError::Unavailable(WriterStopped.into());
        self.requests.send(WriterRequest::Probe(reply_sender)).await.map_err(|_| stopped())?;
        reply.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.stream_readers.run(move |connection| reader::read_stream(connection, &read)).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log_readers.run(move |connection| reader::read_all(connection, after, limit)).await
    }

    async fn read_all_checked(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let (path, changes) = (self.path.clone(), self.changes);
        let read = move || checked_read::read_all(&path, changes, after, limit);
        let unavailable = |error: tokio::task::JoinError| EventStoreError::Unavailable(error.into());
        tokio::task::spawn_blocking(read).await.map_err(unavailable)?
    }

    async fn check_file(&self) -> Result<Option<Vec<String>>, EventStoreError> {
        let (path, changes) = (self.path.clone(), self.changes);
        let check = move || checked_read::quick_check(&path, changes);
        let unavailable = |error: tokio::task::JoinError| EventStoreError::Unavailable(error.into());
        tokio::task::spawn_blocking(check).await.map_err(unavailable)?.map(Some)
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log_readers.run(move |connection| reader::read_all_backwards(connection, before, limit)).await
    }

    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.stream_readers.run(move |connection| reader::find_event(connection, lookup.id)).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.log_readers.run(reader::read_head).await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        let (readers, recent) = (Arc::clone(&self.log_readers), Arc::clone(&self.recent));
        Ok(Box::new(SqliteSubscription::new(readers, recent, self.head.clone(), after)))
    }
}

/// Copies the WAL into the database file and truncates the WAL, as far as other connections allow it.
fn truncate_wal(connection: &Connection) -> Result<(), EventStoreError> {
    connection.busy_timeout(TRUNCATE_TIMEOUT).map_err(classify)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(classify)
}

/// There is no writer thread: the log was opened to be read, or the thread has panicked.
#[derive(Debug, thiserror::Error)]
#[error("the event log has no writer thread")]
struct WriterStopped;

fn fail_all(count: usize, error: impl Fn() -> AppendError) -> Vec<Result<AppendReceipt, AppendError>> {
    (0..count).map(|_| Err(error())).collect()
}
