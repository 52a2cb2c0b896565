//! The query side: a pool of read-only connections. Each query is one read transaction.
//!
//! A query of few rows runs directly on the async worker: its pages are usually in memory, where it takes some
//! microseconds, and a handover to another thread takes several times that. It runs on a thread for blocking work if a
//! connection has to be opened or waited for, if the file is locked, if it might block the last free worker
//! ([`WorkerReadLimiter`]), and while reads are so slow that they must come from the disk ([`ReadLatency`]).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, InterruptHandle, params_from_iter};
use tokio::sync::Semaphore;

use super::error::{NotCreated, ThreadEnded, classify_error, is_busy};
use super::file::{self, BUSY_TIMEOUT, open_for_reading};
use super::load;
use super::read_latency::{ReadLatency, ReadThread};
use super::row::{SqliteParameter, SqliteRow};
use super::worker_read_limiter::WorkerReadLimiter;
use chat_files::file_id::FileId;
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::{ReadModelError, Snapshot};
use chat_sql::contents::ENTITY_TABLES;
use chat_sql::query::Query;
use chat_sql::{SqlEngine, SqlReadModel};

/// The time for which reads on workers rely on the last check whether another process has replaced the file.
const FILE_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The read model in a SQLite file, for queries.
pub type SqliteReadModel = SqlReadModel<SqliteEngine>;

/// Runs the queries of a [`SqliteReadModel`]. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct SqliteEngine {
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    /// Permits for reads on threads for blocking work. Reads on workers need no permit: permits are granted in order,
    /// so while one read waits for a permit, no worker would get one at once, and all reads would move to threads.
    permits: Arc<Semaphore>,
    worker_reads: WorkerReadLimiter,
    /// Idle connections, with a busy timeout of zero.
    idle: Mutex<Vec<(FileId, Connection)>>,
    last_file_check: Mutex<Option<FileCheck>>,
    read_latency: ReadLatency,
}

/// The result of the last check of the file.
#[derive(Clone, Copy)]
struct FileCheck {
    file: FileId,
    checked_at: Instant,
    /// The [`file::replacement_count`] at the check. While it is unchanged, this process has not replaced the file.
    replacement_count: u64,
}

/// The number of processors; tokio has a worker for each.
fn processor_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl SqliteEngine {
    /// Checks the whole file in the background, and returns [`ReadModelError::Damaged`] if a page is invalid. Dropping
    /// the future stops the check.
    pub async fn verify(&self) -> Result<(), ReadModelError> {
        let pool = Arc::clone(&self.pool);
        let opened = tokio::task::spawn_blocking(move || open_for_reading(&pool.path));
        let ended = |error| ReadModelError::Unavailable(Box::new(error));
        let connection = opened.await.map_err(ended)??;
        let _interrupt = InterruptOnDrop(connection.get_interrupt_handle());
        let checked = tokio::task::spawn_blocking(move || {
            // Each page is read once, so a large page cache would be useless.
            connection.execute_batch("PRAGMA cache_size = -512")?;
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        });
        match checked.await.map_err(ended)?.map_err(classify_error)? {
            verdict if verdict == "ok" => Ok(()),
            finding => Err(ReadModelError::Damaged(finding.into())),
        }
    }

    /// Runs a query on a thread for blocking work. The thread holds a permit until the query ends, also if the caller
    /// is cancelled.
    async fn run_blocking<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let closed = |_| ReadModelError::Unavailable(Box::new(ThreadEnded));
        let permit = Arc::clone(&self.pool.permits).acquire_owned().await.map_err(closed)?;
        let pool = Arc::clone(&self.pool);
        let answer = tokio::task::spawn_blocking(move || {
            let answer = pool.run(query);
            drop(permit);
            answer
        });
        answer.await.map_err(|ended| ReadModelError::Unavailable(Box::new(ended)))?
    }
}

/// Interrupts a query whose caller was cancelled.
struct InterruptOnDrop(InterruptHandle);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl Pool {
    /// Runs the query on this thread, or returns it unchanged as the outer `Err` if running it might block.
    fn try_run<Q: Query>(&self, mut query: Q) -> Result<Result<Q::Output, ReadModelError>, Q> {
        if !Q::READS_FEW_ROWS || !self.read_latency.is_quick() {
            return Err(query);
        }
        let Some(_running) = self.worker_reads.try_begin() else { return Err(query) };
        let Ok(file) = self.recent_file() else { return Err(query) };
        let Some(connection) = self.take_idle(file) else { return Err(query) };
        match self.read_rows(&connection, &mut query, ReadThread::Worker) {
            Ok(()) => {
                Ok(into_output(query).map_err(classify_error).inspect(|_| self.put_back(file, connection)))
            }
            // SQLite reports a lock before the first row, so the query has read nothing yet and can be run again.
            Err(error) if is_busy(&error) => {
                self.put_back(file, connection);
                Err(query)
            }
            Err(error) => Ok(Err(classify_error(error))),
        }
    }

    /// Runs the query on this thread, and waits for locks of other connections.
    fn run<T>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadModelError> {
        let (file, mut connection) = self.connection()?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(classify_error)?;
        let answer = query(&mut connection).map_err(classify_error)?;
        connection.busy_timeout(Duration::ZERO).map_err(classify_error)?;
        // A connection whose query failed is closed.
        self.put_back(file, connection);
        Ok(answer)
    }

    /// Reads the rows of a query, which is one statement and so one read transaction.
    fn read_rows<Q: Query>(
        &self,
        db: &Connection,
        query: &mut Q,
        thread: ReadThread,
    ) -> rusqlite::Result<()> {
        let started = Instant::now();
        let mut select = db.prepare_cached(Q::SQL)?;
        let mut rows = select.query(params_from_iter(query.params().into_iter().map(SqliteParameter)))?;
        while let Some(row) = rows.next()? {
            query.read(&SqliteRow(row))?;
        }
        if Q::READS_FEW_ROWS {
            self.read_latency.record(started.elapsed(), thread);
        }
        Ok(())
    }

    fn take_idle(&self, file: FileId) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(opened_file, _)| *opened_file == file);
        idle.pop().map(|(_, connection)| connection)
    }

    fn put_back(&self, file: FileId, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((file, connection));
    }

    /// Takes an idle connection to the current file, or opens one.
    fn connection(&self) -> Result<(FileId, Connection), ReadModelError> {
        let mut file = self.current_file()?;
        loop {
            if let Some(connection) = self.take_idle(file) {
                return Ok((file, connection));
            }
            let connection = open_for_reading(&self.path);
            // If the file was replaced during the opening, the connection may combine a database with another one's
            // WAL.
            let file_after = self.current_file()?;
            if file_after == file {
                return Ok((file, connection?));
            }
            file = file_after;
        }
    }

    /// The file that the last check found, if that was less than [`FILE_CHECK_INTERVAL`] ago and this process has
    /// replaced no file since. Otherwise the current file.
    fn recent_file(&self) -> Result<FileId, ReadModelError> {
        let seen = *self.last_file_check.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some(seen)
                if seen.checked_at.elapsed() < FILE_CHECK_INTERVAL
                    && seen.replacement_count == file::replacement_count() =>
            {
                Ok(seen.file)
            }
            _ => self.current_file(),
        }
    }

    fn current_file(&self) -> Result<FileId, ReadModelError> {
        let (checked_at, replacement_count) = (Instant::now(), file::replacement_count());
        match FileId::for_path(&self.path) {
            Ok(Some(file)) => {
                let seen = Some(FileCheck { file, checked_at, replacement_count });
                *self.last_file_check.lock().unwrap_or_else(PoisonError::into_inner) = seen;
                Ok(file)
            }
            Ok(None) => Err(ReadModelError::Unavailable(Box::new(NotCreated))),
            Err(error) => Err(ReadModelError::Unavailable(Box::new(error))),
        }
    }
}

fn into_output<Q: Query>(query: Q) -> rusqlite::Result<Q::Output> {
    query.into_output().ok_or(rusqlite::Error::QueryReturnedNoRows)
}

impl SqlEngine for SqliteEngine {
    type Location = PathBuf;

    fn new(path: PathBuf) -> Self {
        Self::with_connections(path, (2 * processor_count()).clamp(4, 32))
    }

    /// `connections` limits the reads on threads for blocking work. Reads on workers hold connections beyond this
    /// limit.
    fn with_connections(path: PathBuf, connections: usize) -> Self {
        let permits = Arc::new(Semaphore::new(connections.max(1)));
        let pool = Pool {
            path,
            permits,
            worker_reads: WorkerReadLimiter::new(processor_count()),
            idle: Mutex::default(),
            last_file_check: Mutex::default(),
            read_latency: ReadLatency::default(),
        };
        Self { pool: Arc::new(pool) }
    }

    async fn run_query<Q: Query>(&self, query: Q) -> Result<Q::Output, ReadModelError> {
        let mut query = match self.pool.try_run(query) {
            Ok(answer) => return answer,
            Err(query) => query,
        };
        let pool = Arc::clone(&self.pool);
        self.run_blocking(move |db| {
            pool.read_rows(db, &mut query, ReadThread::Blocking)?;
            into_output(query)
        })
        .await
    }

    async fn read_contents(&self) -> Result<Snapshot<ProjectionContents>, ReadModelError> {
        self.run_blocking(|db| {
            // Deferred: the first read, that of the position, takes the snapshot.
            let db = db.transaction()?;
            let position = load::checkpoint(&db)?.position;
            let mut value = ProjectionContents::default();
            for table in &ENTITY_TABLES {
                let mut select = db.prepare(table.select_sql)?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    table.add_row(&mut value, &SqliteRow(row))?;
                }
            }
            Ok(Snapshot { position, value })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::{AppToken, ChatNumber, MessageNumber};
    use rusqlite::StatementStatus;

    use super::*;
    use crate::SqliteReadModelWriter;
    use chat_sql::get::GetMessage;

    #[test]
    fn a_statement_is_compiled_once_for_all_parameters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read-model.db");
        drop(SqliteReadModelWriter::open(&path).unwrap());
        let reader = SqliteEngine::new(path.clone());
        let db = open_for_reading(&path).unwrap();
        for token in ["a", "b", "c"] {
            let token = AppToken::parse(&token.repeat(36)).unwrap();
            let mut query = GetMessage::new(token, ChatNumber::FIRST, MessageNumber::FIRST);
            reader.pool.read_rows(&db, &mut query, ReadThread::Worker).unwrap();
        }
        let statement = db.prepare_cached(GetMessage::SQL).unwrap();
        assert!(statement.get_status(StatementStatus::Run) > 0);
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
