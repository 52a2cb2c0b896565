//! The query side: a few read-only connections, each query in one read transaction on one of them.
//!
//! A query that looks at few rows is answered on the thread that asks: what it reads is mostly in memory, where it takes
//! some microseconds, and handing it to another thread takes several times that. It is handed to a thread for blocking
//! work all the same where a connection has to be opened or waited for, where the file is locked, and for as long as
//! reads take so long that they must be coming from the disk ([`Pace`]).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, InterruptHandle, params_from_iter};
use tokio::sync::Semaphore;

use super::error::{NotCreated, ThreadEnded, classify_error, is_busy};
use super::file::{self, BUSY_TIMEOUT, FileId, open_for_reading};
use super::load;
use super::read_latency::{ReadLatency, ReadThread};
use super::row::{SqliteParameter, SqliteRow};
use super::worker_read_limiter::WorkerReadLimiter;
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::{ReadModelError, Snapshot};
use chat_sql::contents::ENTITY_TABLES;
use chat_sql::query::Query;
use chat_sql::{SqlEngine, SqlReadModel};

/// For how long a file that another process may put in the place of ours is not looked for.
const FILE_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The read model in a SQLite file, for queries.
pub type SqliteReadModel = SqlReadModel<SqliteEngine>;

/// The read model in a SQLite file, for queries. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct SqliteEngine {
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    /// For reads on threads. Those on workers need none: where they did, a few reads that went to threads drew all others
    /// after them, since whoever waits for a permit comes first.
    permits: Arc<Semaphore>,
    worker_reads: WorkerReadLimiter,
    /// None of them waits for a lock.
    idle: Mutex<Vec<(FileId, Connection)>>,
    last_file_check: Mutex<Option<FileCheck>>,
    read_latency: ReadLatency,
}

/// The file that had the path when it was looked at.
#[derive(Clone, Copy)]
struct FileCheck {
    file: FileId,
    checked_at: Instant,
    /// How many files this process had put in the place of others by then.
    replacement_count: u64,
}

/// How many there are; tokio has a worker for each.
fn processor_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl SqliteEngine {
    /// Reads the whole file, beside everything else, and answers [`ReadModelError::Damaged`] where a page can't be
    /// understood. Dropping the future ends it.
    pub async fn verify(&self) -> Result<(), ReadModelError> {
        let pool = Arc::clone(&self.pool);
        let opened = tokio::task::spawn_blocking(move || open_for_reading(&pool.path));
        let ended = |error| ReadModelError::Unavailable(Box::new(error));
        let connection = opened.await.map_err(ended)??;
        let _interrupt = InterruptOnDrop(connection.get_interrupt_handle());
        let checked = tokio::task::spawn_blocking(move || {
            // Each page is read once: 2 MiB of them, for as long as a large file takes, would be kept for nothing.
            connection.execute_batch("PRAGMA cache_size = -512")?;
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        });
        match checked.await.map_err(ended)?.map_err(classify_error)? {
            verdict if verdict == "ok" => Ok(()),
            finding => Err(ReadModelError::Damaged(finding.into())),
        }
    }

    /// Runs a query on a thread for blocking work. The permit goes along: a caller that gives up does not free it
    /// before the query ends.
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

/// Ends a query that nobody waits for any more.
struct InterruptOnDrop(InterruptHandle);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl Pool {
    /// Answers at once, on this thread. Gives the query back, as it was, where that might take its time.
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
            // It was before the first row.
            Err(error) if is_busy(&error) => {
                self.put_back(file, connection);
                Err(query)
            }
            Err(error) => Ok(Err(classify_error(error))),
        }
    }

    fn run<T>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadModelError> {
        let (file, mut connection) = self.connection()?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(classify_error)?;
        let answer = query(&mut connection).map_err(classify_error)?;
        connection.busy_timeout(Duration::ZERO).map_err(classify_error)?;
        // A connection that met an error is closed instead.
        self.put_back(file, connection);
        Ok(answer)
    }

    /// Reads a query's rows. It is one statement, and so one read transaction.
    fn read_rows<Q: Query>(&self, db: &Connection, query: &mut Q, place: ReadThread) -> rusqlite::Result<()> {
        let started = Instant::now();
        let mut select = db.prepare_cached(Q::SQL)?;
        let mut rows = select.query(params_from_iter(query.params().into_iter().map(SqliteParameter)))?;
        while let Some(row) = rows.next()? {
            query.read(&SqliteRow(row))?;
        }
        if Q::READS_FEW_ROWS {
            self.read_latency.record(started.elapsed(), place);
        }
        Ok(())
    }

    fn take_idle(&self, file: FileId) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(of, _)| *of == file);
        idle.pop().map(|(_, connection)| connection)
    }

    fn put_back(&self, file: FileId, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((file, connection));
    }

    /// An idle connection to the file that has the path now, or a new one.
    fn connection(&self) -> Result<(FileId, Connection), ReadModelError> {
        let mut file = self.current_file()?;
        loop {
            if let Some(connection) = self.take_idle(file) {
                return Ok((file, connection));
            }
            let connection = open_for_reading(&self.path);
            // Opened while the file was being replaced, it may be a database with another one's WAL.
            let opened = self.current_file()?;
            if opened == file {
                return Ok((file, connection?));
            }
            file = opened;
        }
    }

    /// The file that has the path, or had it a moment ago: a query that came then would have been answered from it too.
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
        let (at, replaced) = (Instant::now(), file::replacement_count());
        match FileId::for_path(&self.path) {
            Ok(Some(file)) => {
                let seen = Some(FileCheck { file, checked_at: at, replacement_count: replaced });
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

    async fn ask<Q: Query>(&self, query: Q) -> Result<Q::Output, ReadModelError> {
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
            // Deferred: the snapshot is taken by the first read, that of the position.
            let db = db.transaction()?;
            let position = load::checkpoint(&db)?.position;
            let mut value = ProjectionContents::default();
            for part in &ENTITY_TABLES {
                let mut select = db.prepare(part.select_sql)?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    part.add_row(&mut value, &SqliteRow(row))?;
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
