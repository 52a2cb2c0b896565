//! Reservations in one SQLite file: the embedded default, for all processes of one machine.
//!
//! A thread of its own holds the one connection; calls arrive there over a channel, and those that wait together share
//! one transaction. `synchronous=NORMAL`: what a process wrote survives its death, and what a machine's crash loses is
//! noticed by the machine having started anew.
//!
//! Times are the machine's time of day, which its processes share. A clock that is set forward ends leases early: their
//! owners notice, since they watch both clocks.

mod reservations_table;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use chat_ports::clock;
use chat_ports::event_store::LogId;
use chat_ports::idempotency::{
    CompletedCommand, IdempotencyKeyId, IdempotencyStore, IdempotencyStoreError, IdempotencyTerms,
    KeyRequest, LeaseOwner, LogContent, RenewOutcome, ReserveOutcome,
};
use reservations_table::ReservationsTable;
use schema::FileError;

/// Calls that may wait for the thread; more of them wait in their callers.
const QUEUE_CAPACITY: usize = 1_024;

/// Calls that share a transaction at most.
const MAX_CALLS_PER_TRANSACTION: usize = 256;

/// Reservations in a SQLite file.
pub struct SqliteIdempotencyStore {
    calls: mpsc::Sender<Box<dyn PendingCall>>,
    terms: IdempotencyTerms,
}

impl SqliteIdempotencyStore {
    /// The reservations of a log in the file at `path`, which is created where it does not exist, when it is first
    /// needed; one that is damaged is moved aside, one of another log emptied.
    pub fn new(path: &Path, log: LogId) -> std::io::Result<Self> {
        Self::with_terms(path, log, IdempotencyTerms::default())
    }

    /// As [`SqliteReservations::new`], on other terms.
    pub fn with_terms(path: &Path, log: LogId, terms: IdempotencyTerms) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Box<dyn PendingCall>>(QUEUE_CAPACITY);
        let mut store = Worker { path: path.to_owned(), log, terms, connection: None };
        let work = move || {
            while let Some(first) = queue.blocking_recv() {
                let mut jobs = vec![first];
                while jobs.len() < MAX_CALLS_PER_TRANSACTION
                    && let Ok(job) = queue.try_recv()
                {
                    jobs.push(job);
                }
                store.process_calls(jobs);
            }
        };
        std::thread::Builder::new().name("idempotency".to_owned()).spawn(work)?;
        Ok(Self { calls: jobs, terms })
    }

    /// Runs `work` on the thread, in a transaction, and returns what it returned once that is committed.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReservationsTable<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, IdempotencyStoreError> {
        let stopped = || IdempotencyStoreError(WorkerStopped.into());
        let (answer, answered) = oneshot::channel();
        let call = Call { work: Some(work), value: None, reply_sender: answer };
        self.calls.send(Box::new(call)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?.map_err(|error| IdempotencyStoreError(Box::new(error)))
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

    async fn reserve(&self, wish: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError> {
        let wish = *wish;
        self.run(move |table| table.reserve(&wish)).await
    }

    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError> {
        self.run(move |table| table.renew(key, owner)).await
    }

    async fn complete(&self, done: &CompletedCommand) -> Result<(), IdempotencyStoreError> {
        let done = *done;
        self.run(move |table| table.complete(&done)).await
    }

    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError> {
        self.run(move |table| table.release(key, owner)).await
    }
}

/// The thread is gone, which only a panic in it explains.
#[derive(Debug, Error)]
#[error("the thread that keeps idempotency keys has stopped")]
struct WorkerStopped;

/// Work for the thread.
trait PendingCall: Send {
    fn run(&mut self, table: &ReservationsTable<'_>) -> rusqlite::Result<()>;

    /// Passes on what was returned, once it is committed, or why it was not.
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
        let Self { value, reply_sender: answer, .. } = *self;
        // Whoever asked may have gone. Without a value there was no commit.
        if let Some(answered) = committed.map(|()| value).transpose() {
            let _ = answer.send(answered);
        }
    }
}

/// What the thread works with.
struct Worker {
    path: PathBuf,
    log: LogId,
    terms: IdempotencyTerms,
    /// `None` before the first call, and after a failure: the next call opens the file anew.
    connection: Option<Connection>,
}

impl Worker {
    fn process_calls(&mut self, mut jobs: Vec<Box<dyn PendingCall>>) {
        let committed = self.transact(&mut jobs).map_err(|error| {
            self.connection = None;
            Arc::new(error)
        });
        for job in jobs {
            job.send_reply(committed.clone());
        }
    }

    fn transact(&mut self, jobs: &mut [Box<dyn PendingCall>]) -> Result<(), FileError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => schema::open(&self.path, self.log, self.terms, clock::now())?,
        };
        let connection = self.connection.insert(connection);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Behind the lock: processes that wait for each other see the times in the order of their transactions.
        let now = clock::now();
        let table = ReservationsTable { transaction: &transaction, log: self.log, terms: self.terms, now };
        table.remove_expired(jobs.len())?;
        jobs.iter_mut().try_for_each(|job| job.run(&table))?;
        Ok(transaction.commit()?)
    }
}
