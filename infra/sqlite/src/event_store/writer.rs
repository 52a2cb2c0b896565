//! The writer thread of the event log.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chat_domain::{ExpectedRevision, Position, Revision};
use quick_cache::unsync::Cache;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::error::OtherIncarnation;
use super::incarnations::read_log_id;
use super::open_files::{FileCheckError, OpenFiles};
use super::reader::{last_revision, read_head, stream_id};
use super::recent_events::RecentEvents;
use crate::wal_checkpointer::WalCheckpointer;
use chat_ports::event_store::{AppendError, AppendReceipt, LogId, StreamAppend};

/// Requests that may wait for the writer thread; the senders of further ones wait.
pub(super) const QUEUE_CAPACITY: usize = 64;

/// A transaction with this many appends takes no further request, which bounds the latency of each append.
const MAX_APPENDS_PER_TRANSACTION: usize = 4_096;

/// The number of streams whose last revision is cached between transactions.
const CACHED_STREAMS: usize = 20_000;

/// A request to the writer thread.
pub(super) enum WriterRequest {
    /// Store events.
    Append(AppendRequest),
    /// Write durably without changing an event, see [`chat_ports::event_store::EventStore::probe_write`].
    Probe(oneshot::Sender<Result<(), AppendError>>),
}

pub(super) struct AppendRequest {
    pub(super) appends: Vec<StreamAppend>,
    pub(super) reply_sender: oneshot::Sender<Vec<Result<AppendReceipt, AppendError>>>,
}

pub(super) struct Writer {
    connection: Connection,
    files: Arc<OpenFiles>,
    /// The incarnation of the log that appends are meant for.
    incarnation: Arc<Mutex<LogId>>,
    streams: Cache<Arc<str>, CachedStream>,
    /// SQLite's `data_version`: changes when another connection has written, which invalidates the cache.
    data_version: i64,
    head: watch::Sender<Position>,
    recent: Arc<RecentEvents>,
}

/// The row id and last revision of a stream.
#[derive(Clone, Copy)]
struct CachedStream {
    id: i64,
    last_revision: Option<Revision>,
}

/// The reason why the appends of a transaction are not acknowledged.
enum TransactionError {
    /// An event id is already stored. The other appends of the transaction must not fail because of it.
    DuplicateId,
    /// The log's files are not in place, or another incarnation has begun. Nothing was stored.
    Replaced(Arc<dyn StdError + Send + Sync>),
    /// The log's files were removed or replaced during the commit.
    ReplacedDuringCommit(Arc<FileCheckError>),
    /// Nothing was stored.
    Failed(Arc<rusqlite::Error>),
    /// The commit failed on its way to the disk.
    OutcomeUnknown(Arc<rusqlite::Error>),
}

impl From<rusqlite::Error> for TransactionError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

type AppendResult = Result<AppendReceipt, AppendError>;

impl Writer {
    pub(super) fn new(
        connection: Connection,
        files: Arc<OpenFiles>,
        incarnation: Arc<Mutex<LogId>>,
        head: watch::Sender<Position>,
        recent: Arc<RecentEvents>,
    ) -> Self {
        let streams = Cache::new(CACHED_STREAMS);
        Self { connection, files, incarnation, streams, data_version: -1, head, recent }
    }

    /// Starts the thread. It ends when the queue is closed.
    pub(super) fn spawn(
        mut self,
        mut queue: mpsc::Receiver<WriterRequest>,
        mut checkpointer: WalCheckpointer,
    ) -> std::io::Result<()> {
        let work = move || {
            while let Some(first) = queue.blocking_recv() {
                let (mut requests, mut probes, mut append_count) = (Vec::new(), Vec::new(), 0);
                let mut next = Some(first);
                while let Some(request) = next {
                    match request {
                        WriterRequest::Append(request) => {
                            append_count += request.appends.len();
                            requests.push(request);
                        }
                        WriterRequest::Probe(reply_sender) => probes.push(reply_sender),
                    }
                    next =
                        if append_count < MAX_APPENDS_PER_TRANSACTION { queue.try_recv().ok() } else { None };
                }
                if !requests.is_empty() {
                    self.process_requests(requests);
                }
                for reply_sender in probes {
                    // The receiver may have been dropped.
                    let _ = reply_sender.send(self.probe().map_err(|error| error.to_append_error()));
                }
                checkpointer.after_commit(&self.connection);
            }
        };
        std::thread::Builder::new().name("event-log".to_owned()).spawn(work).map(drop)
    }

    fn process_requests(&mut self, requests: Vec<AppendRequest>) {
        let appends: Vec<&StreamAppend> = requests.iter().flat_map(|request| &request.appends).collect();
        let mut outcomes = self.append_all(&appends).into_iter();
        for request in requests {
            let results = outcomes.by_ref().take(request.appends.len()).collect();
            // The receiver may have been dropped. The events are durable either way.
            let _ = request.reply_sender.send(results);
        }
    }

    fn append_all(&mut self, appends: &[&StreamAppend]) -> Vec<AppendResult> {
        match self.transact(appends) {
            Ok(outcomes) => outcomes,
            // The appends are retried one by one, so that only the one with the stored id fails.
            Err(TransactionError::DuplicateId) if appends.len() > 1 => {
                appends.iter().flat_map(|append| self.append_all(&[append])).collect()
            }
            Err(error) => appends.iter().map(|_| Err(error.to_append_error())).collect(),
        }
    }

    /// Writes a page of the log with its content unchanged, and syncs the WAL.
    fn probe(&mut self) -> Result<(), TransactionError> {
        self.files.check().map_err(|replaced| TransactionError::Replaced(Arc::new(replaced)))?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // SQLite writes a page that was changed and changed back, but skips an update that leaves its row the same.
        transaction
            .execute_batch("INSERT INTO streams (name) VALUES (''); DELETE FROM streams WHERE name = '';")?;
        commit(transaction)
    }

    fn transact(&mut self, appends: &[&StreamAppend]) -> Result<Vec<AppendResult>, TransactionError> {
        let Self { connection, files, incarnation, streams, data_version, head: head_sender, recent } = self;
        files.check().map_err(|replaced| TransactionError::Replaced(Arc::new(replaced)))?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = transaction.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if *data_version != version {
            streams.clear();
            if read_log_id(&transaction)? != *incarnation.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(TransactionError::Replaced(Arc::new(OtherIncarnation)));
            }
            *data_version = version;
        }
        let result = write_appends(&transaction, streams, appends).map_err(|error| {
            let duplicate = matches!(&error, rusqlite::Error::SqliteFailure(failure, _)
                if failure.code == ErrorCode::ConstraintViolation);
            if duplicate { TransactionError::DuplicateId } else { error.into() }
        });
        let result = result.and_then(|(outcomes, head_before, head_after)| {
            commit(transaction)?;
            // Checked again: a commit into a removed file must not be acknowledged.
            files.check().map_err(|replaced| TransactionError::ReplacedDuringCommit(Arc::new(replaced)))?;
            recent.record_commit(head_before, appends, &outcomes);
            head_sender.send_replace(head_after);
            Ok(outcomes)
        });
        if result.is_err() {
            // The cache may hold revisions that this transaction has not stored.
            streams.clear();
            // An error of the rollback must not replace the result: after a failed commit, the outcome is unknown.
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a transaction can't be rolled back"
                );
            }
        }
        result
    }
}

/// Commits a transaction, which syncs the WAL.
fn commit(transaction: Transaction<'_>) -> Result<(), TransactionError> {
    let started = Instant::now();
    let committed = transaction.commit();
    metrics::histogram!("chat_event_log_commit_seconds").record(started.elapsed());
    committed.map_err(|error| match &error {
        rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::SystemIoFailure => {
            TransactionError::OutcomeUnknown(Arc::new(error))
        }
        _ => error.into(),
    })
}

impl TransactionError {
    fn to_append_error(&self) -> AppendError {
        match self {
            Self::DuplicateId => AppendError::Conflict,
            Self::Replaced(cause) => AppendError::Unavailable(Box::new(Arc::clone(cause))),
            Self::ReplacedDuringCommit(cause) => AppendError::OutcomeUnknown(Box::new(Arc::clone(cause))),
            Self::Failed(error) => AppendError::Unavailable(Box::new(Arc::clone(error))),
            Self::OutcomeUnknown(error) => AppendError::OutcomeUnknown(Box::new(Arc::clone(error))),
        }
    }
}

/// Writes the appends that do not conflict. Returns the outcome of each append, and the head of the log before and
/// after.
fn write_appends(
    transaction: &Transaction<'_>,
    streams: &mut Cache<Arc<str>, CachedStream>,
    appends: &[&StreamAppend],
) -> rusqlite::Result<(Vec<AppendResult>, Position, Position)> {
    let head_before = read_head(transaction)?;
    let mut position = head_before;
    let mut outcomes = Vec::with_capacity(appends.len());
    for append in appends {
        let cached = streams.get(&append.stream).copied();
        let stream = match cached {
            Some(stream) => Some(stream),
            None => find_stream(transaction, &append.stream)?,
        };
        if ExpectedRevision::from_last_revision(stream.and_then(|stream| stream.last_revision))
            != append.expected_revision
        {
            outcomes.push(find_stored_append(transaction, append)?.ok_or(AppendError::Conflict));
            continue;
        }
        let id = match stream {
            Some(stream) => stream.id,
            None => transaction
                .prepare_cached("INSERT INTO streams (name) VALUES (?)")?
                .insert([&append.stream])?,
        };
        let mut insert = transaction.prepare_cached(
            "INSERT INTO events (position, stream, revision, id, event_type, schema_version, recorded_at, data, metadata)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let mut revision = append.expected_revision.next();
        for (index, event) in append.events.iter().enumerate() {
            if index > 0 {
                revision = revision.next();
            }
            position = Position::new(position.get() + 1);
            insert.execute(params![
                position.get(),
                id,
                revision.get(),
                event.id.uuid().as_bytes(),
                event.event_type,
                event.schema_version.0,
                event.recorded_at.millis(),
                event.data,
                event.metadata,
            ])?;
        }
        streams.insert(Arc::clone(&append.stream), CachedStream { id, last_revision: Some(revision) });
        outcomes.push(Ok(AppendReceipt { position, revision }));
    }
    Ok((outcomes, head_before, position))
}

fn find_stream(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<CachedStream>> {
    let Some(id) = stream_id(transaction, name)? else { return Ok(None) };
    Ok(Some(CachedStream { id, last_revision: last_revision(transaction, id)? }))
}

/// Finds an append that was stored before: the same ids at the same revisions of the stream.
fn find_stored_append(
    transaction: &Transaction<'_>,
    append: &StreamAppend,
) -> rusqlite::Result<Option<AppendReceipt>> {
    let Some(id) = stream_id(transaction, &append.stream)? else { return Ok(None) };
    let mut find =
        transaction.prepare_cached("SELECT position, id FROM events WHERE stream = ? AND revision = ?")?;
    let mut revision = append.expected_revision.next();
    let mut last = None;
    for (index, event) in append.events.iter().enumerate() {
        if index > 0 {
            revision = revision.next();
        }
        let mut rows = find.query(params![id, revision.get()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        if row.get::<_, [u8; 16]>(1)? != *event.id.uuid().as_bytes() {
            return Ok(None);
        }
        last = Some(AppendReceipt { position: Position::new(row.get(0)?), revision });
    }
    Ok(last)
}
