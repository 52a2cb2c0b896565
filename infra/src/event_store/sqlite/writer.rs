//! The thread that appends.

use std::sync::Arc;

use chat_domain::{ExpectedRevision, Position, Revision};
use quick_cache::unsync::Cache;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::checkpointer::WrittenAhead;
use super::reader::stream_id;
use super::recent::Recent;
use super::streams::SharedTail;
use super::tail::Place;
use crate::event_store::{AppendError, Appended, StreamAppend};

/// Batches that may wait for the thread; more of them wait in their senders.
pub(super) const QUEUE: usize = 64;

/// Appends that share a transaction at most, so that none waits long for its neighbours.
const APPENDS_A_TRANSACTION: usize = 4_096;

/// Streams whose end is remembered between transactions.
const REMEMBERED_STREAMS: usize = 20_000;

/// Events that the index of streams may lag behind by: more make for fuller pages when it is filled, and are what a
/// process reads when it starts.
const UNFILED: usize = 16_384;

/// How far the filing gets before the file is told.
const FILED_STEP: u64 = 4_096;

pub(super) struct Job {
    pub(super) appends: Vec<StreamAppend>,
    pub(super) answer: oneshot::Sender<Vec<Result<Appended, AppendError>>>,
}

pub(super) fn spawn(
    connection: Connection,
    mut queue: mpsc::Receiver<Job>,
    head: watch::Sender<Position>,
    tail: SharedTail,
    recent: Arc<Recent>,
    log: WrittenAhead,
) -> std::io::Result<()> {
    let work = move || {
        let streams = Cache::new(REMEMBERED_STREAMS);
        let (filed, last) = (Position::START, Position::START);
        let mut writer = Writer { connection, streams, tail, filed, last, recent, head, log };
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = vec![first];
            let mut appends = jobs[0].appends.len();
            while appends < APPENDS_A_TRANSACTION
                && let Ok(job) = queue.try_recv()
            {
                appends += job.appends.len();
                jobs.push(job);
            }
            writer.carry_out(jobs);
            writer.log.committed(&writer.connection);
        }
    };
    std::thread::Builder::new().name("event-log".to_owned()).spawn(work).map(drop)
}

struct Writer {
    connection: Connection,
    streams: Cache<Arc<str>, Stream>,
    tail: SharedTail,
    /// How far the filing was when the file was told last.
    filed: Position,
    /// Where the log ended after the last transaction here.
    last: Position,
    head: watch::Sender<Position>,
    recent: Arc<Recent>,
    log: WrittenAhead,
}

/// A stream's row, and its last event.
#[derive(Clone, Copy)]
struct Stream {
    id: i64,
    last: Option<Revision>,
}

/// Why a transaction was given up.
enum GivenUp {
    /// An event's id is stored already, somewhere. The rest of the transaction must not suffer from it.
    DuplicateId,
    /// Nothing was stored.
    Failed(Arc<rusqlite::Error>),
    /// The commit failed on its way to the disk.
    Unknown(Arc<rusqlite::Error>),
}

impl From<rusqlite::Error> for GivenUp {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

type Outcome = Result<Appended, AppendError>;

impl Writer {
    fn carry_out(&mut self, jobs: Vec<Job>) {
        let appends: Vec<&StreamAppend> = jobs.iter().flat_map(|job| &job.appends).collect();
        let mut outcomes = self.append_all(&appends).into_iter();
        for job in jobs {
            let answer = outcomes.by_ref().take(job.appends.len()).collect();
            // Whoever asked may have gone; what is stored is stored.
            let _ = job.answer.send(answer);
        }
    }

    fn append_all(&mut self, appends: &[&StreamAppend]) -> Vec<Outcome> {
        match self.transact(appends) {
            Ok(outcomes) => outcomes,
            // One after the other: only the append with the known id fails.
            Err(GivenUp::DuplicateId) if appends.len() > 1 => {
                appends.iter().flat_map(|append| self.append_all(&[append])).collect()
            }
            Err(given_up) => appends.iter().map(|_| Err(given_up.as_append_error())).collect(),
        }
    }

    fn transact(&mut self, appends: &[&StreamAppend]) -> Result<Vec<Outcome>, GivenUp> {
        let Self { connection, streams, tail, filed, last, recent, head: known_head, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let head = tail.catch_up(&transaction)?;
        if head != *last {
            // Another process has appended, and what is remembered may be old. Not the tail's word: a reader may have
            // brought it up to here.
            streams.clear();
        }
        let done = write(&transaction, streams, tail, head, appends).map_err(|error| {
            let duplicate = matches!(&error, rusqlite::Error::SqliteFailure(failure, _)
                if failure.code == ErrorCode::ConstraintViolation);
            if duplicate { GivenUp::DuplicateId } else { error.into() }
        });
        let done = done.and_then(|Written { outcomes, places, position }| {
            let (streams, up_to) = file(&transaction, tail, *filed)?;
            transaction.commit().map_err(|error| match &error {
                rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::SystemIoFailure => {
                    GivenUp::Unknown(Arc::new(error))
                }
                _ => error.into(),
            })?;
            let mut tail = tail.lock();
            tail.filed(&streams);
            for (stream, place) in places {
                tail.add(stream, place);
            }
            drop(tail);
            *filed = up_to;
            *last = position;
            recent.keep(head, appends, &outcomes);
            known_head.send_replace(position);
            Ok(outcomes)
        });
        if done.is_err() {
            // What was remembered of this transaction did not come to be.
            streams.clear();
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
        }
        done
    }
}

impl GivenUp {
    fn as_append_error(&self) -> AppendError {
        match self {
            Self::DuplicateId => AppendError::Conflict,
            Self::Failed(error) => AppendError::Unavailable(Box::new(Arc::clone(error))),
            Self::Unknown(error) => AppendError::OutcomeUnknown(Box::new(Arc::clone(error))),
        }
    }
}

/// What a transaction comes to.
struct Written {
    /// One for each append.
    outcomes: Vec<Outcome>,
    /// The new events, with the rows of their streams.
    places: Vec<(i64, Place)>,
    /// The log's last position.
    position: Position,
}

/// Writes what does not conflict.
fn write(
    transaction: &Transaction<'_>,
    streams: &mut Cache<Arc<str>, Stream>,
    tail: &SharedTail,
    head: Position,
    appends: &[&StreamAppend],
) -> rusqlite::Result<Written> {
    let mut position = head;
    let mut outcomes = Vec::with_capacity(appends.len());
    let mut places = Vec::with_capacity(appends.len());
    let mut insert = transaction.prepare_cached(
        "INSERT INTO events (position, stream, revision, id, event_type, schema_version, recorded_at, data, metadata)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for append in appends {
        let known = streams.get(&append.stream).copied();
        let stream = match known {
            Some(stream) => Some(stream),
            None => find(transaction, tail, &append.stream)?,
        };
        if ExpectedRevision::after(stream.and_then(|stream| stream.last)) != append.expected {
            outcomes.push(stored_before(transaction, tail, append)?.ok_or(AppendError::Conflict));
            continue;
        }
        let id = match stream {
            Some(stream) => stream.id,
            None => transaction
                .prepare_cached("INSERT INTO streams (name) VALUES (?)")?
                .insert([&append.stream])?,
        };
        let mut revision = append.expected.next();
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
            places.push((id, Place { revision, position }));
        }
        streams.insert(Arc::clone(&append.stream), Stream { id, last: Some(revision) });
        outcomes.push(Ok(Appended { position, revision }));
    }
    Ok(Written { outcomes, places, position })
}

/// Brings the index of streams closer to the end of the log. Returns which streams of the tail it holds now, with how many
/// events, and up to where the file was told that it holds all.
fn file(
    transaction: &Transaction<'_>,
    tail: &SharedTail,
    told: Position,
) -> rusqlite::Result<(Vec<(i64, usize)>, Position)> {
    let tail = tail.lock();
    let mut streams = Vec::new();
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO stream_positions (stream, revision, position) VALUES (?, ?, ?)",
    )?;
    for (stream, places) in tail.due(UNFILED) {
        streams.push((stream, places.len()));
        for Place { revision, position } in places {
            insert.execute((stream, revision.get(), position.get()))?;
        }
    }
    let filed = tail.all_filed_up_to(streams.len());
    if filed.get() < told.get() + FILED_STEP {
        return Ok((streams, told));
    }
    transaction.prepare_cached("UPDATE filing SET filed = ?")?.execute([filed.get()])?;
    Ok((streams, filed))
}

fn find(transaction: &Transaction<'_>, tail: &SharedTail, name: &str) -> rusqlite::Result<Option<Stream>> {
    let Some(id) = stream_id(transaction, name)? else { return Ok(None) };
    Ok(Some(Stream { id, last: tail.last_revision(transaction, id)? }))
}

/// Whether an append that seems to come too late was stored already: the same ids at the same places of the stream.
fn stored_before(
    transaction: &Transaction<'_>,
    tail: &SharedTail,
    append: &StreamAppend,
) -> rusqlite::Result<Option<Appended>> {
    let Some(stream) = stream_id(transaction, &append.stream)? else { return Ok(None) };
    let mut read = transaction.prepare_cached("SELECT id FROM events WHERE position = ?")?;
    let mut revision = append.expected.next();
    let mut last = None;
    for (index, event) in append.events.iter().enumerate() {
        if index > 0 {
            revision = revision.next();
        }
        let Some(position) = tail.position(transaction, stream, revision)? else { return Ok(None) };
        let id: [u8; 16] = read.query_row([position.get()], |row| row.get(0))?;
        if id != *event.id.uuid().as_bytes() {
            return Ok(None);
        }
        last = Some(Appended { position, revision });
    }
    Ok(last)
}
