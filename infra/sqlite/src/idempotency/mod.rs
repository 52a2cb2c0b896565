//! The idempotency store in one SQLite file: the embedded default, for all processes of one machine.
//!
//! A worker thread owns the store's only connection. Calls reach it over a channel, and those that wait together share
//! one transaction. With `synchronous=NORMAL`, commits survive a crash of the process. A crash of the machine may lose
//! the last commits; the changed boot id shows that the machine was restarted.
//!
//! Ages are measured by a clock of the file. All processes of the machine share this clock, and setting the system time
//! does not move it. The search for the event of a repeated command uses the system time, because events are stamped
//! with it.

mod file_clock;
mod reservations_table;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use chat_files::durable_fs;
use chat_files::file_id::FileId;
use chat_ports::clock;
use chat_ports::event_store::LogId;
use chat_ports::idempotency::{
    CompletedCommand, IdempotencyKeyId, IdempotencyStore, IdempotencyStoreError, IdempotencyTerms,
    KeyRequest, LeaseOwner, LogContent, RenewOutcome, ReserveOutcome,
};
use file_clock::FileClock;
use reservations_table::ReservationsTable;
use schema::FileError;

pub use schema::read_idempotency_checkpoint;

/// Calls that may wait for the worker thread; the callers of further ones wait.
const QUEUE_CAPACITY: usize = 1_024;

/// The largest number of calls that share a transaction.
const MAX_CALLS_PER_TRANSACTION: usize = 256;

/// Reservations and answers in a SQLite file.
pub struct SqliteIdempotencyStore {
    calls: mpsc::Sender<Box<dyn PendingCall>>,
    terms: IdempotencyTerms,
}

impl SqliteIdempotencyStore {
    /// Creates the store of a log in the file at `path`, and its folder if that does not exist. The first call opens
    /// the file, and creates it if it does not exist; a damaged file is quarantined, and a file of another log emptied.
    /// A folder that is removed later is not created again: the log may have been in it.
    pub fn new(path: &Path, log: LogId) -> std::io::Result<Self> {
        Self::with_terms(path, log, IdempotencyTerms::default())
    }

    /// As [`SqliteIdempotencyStore::new`], with other durations.
    pub fn with_terms(path: &Path, log: LogId, terms: IdempotencyTerms) -> std::io::Result<Self> {
        durable_fs::create_dir_all(&durable_fs::parent_dir(path))?;
        let (sender, mut queue) = mpsc::channel::<Box<dyn PendingCall>>(QUEUE_CAPACITY);
        let mut worker = Worker { path: path.to_owned(), log, terms, open_file: None };
        let work = move || {
            while let Some(first) = queue.blocking_recv() {
                let mut calls = vec![first];
                while calls.len() < MAX_CALLS_PER_TRANSACTION
                    && let Ok(call) = queue.try_recv()
                {
                    calls.push(call);
                }
                worker.process_calls(calls);
            }
        };
        std::thread::Builder::new().name("idempotency".to_owned()).spawn(work)?;
        Ok(Self { calls: sender, terms })
    }

    /// Runs `work` on the worker thread in a transaction, and returns its value after the commit.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReservationsTable<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, IdempotencyStoreError> {
        let stopped = || IdempotencyStoreError(WorkerStopped.into());
        let (reply_sender, reply) = oneshot::channel();
        let call = Call { work: Some(work), value: None, reply_sender };
        self.calls.send(Box::new(call)).await.map_err(|_| stopped())?;
        reply.await.map_err(|_| stopped())?.map_err(|error| IdempotencyStoreError(Box::new(error)))
    }
}

#[async_trait]
impl IdempotencyStore for SqliteIdempotencyStore {
    fn terms(&self) -> IdempotencyTerms {
        self.terms
    }

    async fn initialize(&self, log: LogContent) -> Result<(), IdempotencyStoreError> {
        self.run(move |table| table.initialize(log)).await
    }

    async fn reserve(&self, request: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError> {
        let request = *request;
        self.run(move |table| table.reserve(&request)).await
    }

    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError> {
        self.run(move |table| table.renew(key, owner)).await
    }

    async fn complete(&self, command: &CompletedCommand) -> Result<(), IdempotencyStoreError> {
        let command = *command;
        self.run(move |table| table.complete(&command)).await
    }

    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError> {
        self.run(move |table| table.release(key, owner)).await
    }
}

/// The worker thread has ended, which only a panic can cause.
#[derive(Debug, Error)]
#[error("the worker thread of the idempotency store has stopped")]
struct WorkerStopped;

/// A call that waits for the worker thread.
trait PendingCall: Send {
    fn run(&mut self, table: &ReservationsTable<'_>) -> rusqlite::Result<()>;

    /// Sends the value after the commit, or the error.
    fn send_reply(self: Box<Self>, committed: Result<(), Arc<FileError>>);
}

struct Call<T, F> {
    work: Option<F>,
    value: Option<T>,
    reply_sender: oneshot::Sender<Result<T, Arc<FileError>>>,
}

impl<T: Send, F: FnOnce(&ReservationsTable<'_>) -> rusqlite::Result<T> + Send> PendingCall for Call<T, F> {
    fn run(&mut self, table: &ReservationsTable<'_>) -> rusqlite::Result<()> {
        self.value = self.work.take().map(|work| work(table)).transpose()?;
        Ok(())
    }

    fn send_reply(self: Box<Self>, committed: Result<(), Arc<FileError>>) {
        let Self { value, reply_sender, .. } = *self;
        // The receiver may have been dropped. Without a value there was no commit.
        if let Some(reply) = committed.map(|()| value).transpose() {
            let _ = reply_sender.send(reply);
        }
    }
}

/// The state of the worker thread.
struct Worker {
    path: PathBuf,
    log: LogId,
    terms: IdempotencyTerms,
    /// `None` before the first call and after a failure: the next call opens the file.
    open_file: Option<OpenFile>,
}

/// The file as it was opened.
struct OpenFile {
    connection: Connection,
    clock: FileClock,
    id: Option<FileId>,
}

impl Worker {
    fn process_calls(&mut self, mut calls: Vec<Box<dyn PendingCall>>) {
        let committed = self.transact(&mut calls).map_err(|error| {
            self.open_file = None;
            Arc::new(error)
        });
        for call in calls {
            call.send_reply(committed.clone());
        }
    }

    fn transact(&mut self, calls: &mut [Box<dyn PendingCall>]) -> Result<(), FileError> {
        let id = FileId::for_path(&self.path)?;
        let file = match self.open_file.take() {
            Some(file) if file.id == id => file,
            replaced => {
                drop(replaced);
                let (connection, clock) = schema::open(&self.path, self.log, self.terms)?;
                OpenFile { connection, clock, id: FileId::for_path(&self.path)? }
            }
        };
        let OpenFile { connection, clock: file_clock, .. } = self.open_file.insert(file);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // The clock is read under the write lock, so that times rise in the order of transactions across processes.
        let table = ReservationsTable {
            transaction: &transaction,
            log: self.log,
            terms: self.terms,
            now: file_clock.now(),
            system_time: clock::now(),
        };
        table.remove_expired(calls.len())?;
        calls.iter_mut().try_for_each(|call| call.run(&table))?;
        Ok(transaction.commit()?)
    }
}
