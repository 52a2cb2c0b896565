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

use super::at_once::AtOnce;
use super::failure::{NotCreated, ThreadEnded, failure, is_busy};
use super::file::{self, BUSY_TIMEOUT, FileId, open_for_reading};
use super::load;
use super::pace::{Pace, Place};
use super::row::{SqliteParameter, SqliteRow};
use chat_ports::contents::Contents;
use chat_ports::read_model::{ReadModelError, Snapshot};
use chat_sql::digest::PARTS;
use chat_sql::query::Query;
use chat_sql::{SqlEngine, SqlReadModel};

/// For how long a file that another process may put in the place of ours is not looked for.
const LOOK_EVERY: Duration = Duration::from_millis(1);

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
    at_once: AtOnce,
    /// None of them waits for a lock.
    idle: Mutex<Vec<(FileId, Connection)>>,
    seen: Mutex<Option<Seen>>,
    pace: Pace,
}

/// The file that had the path when it was looked at.
#[derive(Clone, Copy)]
struct Seen {
    file: FileId,
    at: Instant,
    /// How many files this process had put in the place of others by then.
    replaced: u64,
}

/// How many there are; tokio has a worker for each.
fn processors() -> usize {
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
        match checked.await.map_err(ended)?.map_err(failure)? {
            verdict if verdict == "ok" => Ok(()),
            finding => Err(ReadModelError::Damaged(finding.into())),
        }
    }

    /// Runs a query on a thread for blocking work. The permit goes along: a caller that gives up does not free it
    /// before the query ends.
    async fn read<T: Send + 'static>(
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
    fn try_run<Q: Query>(&self, mut query: Q) -> Result<Result<Q::Answer, ReadModelError>, Q> {
        if !Q::FEW_ROWS || !self.pace.is_quick() {
            return Err(query);
        }
        let Some(_running) = self.at_once.begin() else { return Err(query) };
        let Ok(file) = self.file_lately() else { return Err(query) };
        let Some(connection) = self.idle(file) else { return Err(query) };
        match self.read(&connection, &mut query, Place::Worker) {
            Ok(()) => Ok(answer(query).map_err(failure).inspect(|_| self.keep(file, connection))),
            // It was before the first row.
            Err(error) if is_busy(&error) => {
                self.keep(file, connection);
                Err(query)
            }
            Err(error) => Ok(Err(failure(error))),
        }
    }

    fn run<T>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadModelError> {
        let (file, mut connection) = self.connection()?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failure)?;
        let answer = query(&mut connection).map_err(failure)?;
        connection.busy_timeout(Duration::ZERO).map_err(failure)?;
        // A connection that met an error is closed instead.
        self.keep(file, connection);
        Ok(answer)
    }

    /// Reads a query's rows. It is one statement, and so one read transaction.
    fn read<Q: Query>(&self, db: &Connection, query: &mut Q, place: Place) -> rusqlite::Result<()> {
        let started = Instant::now();
        let mut select = db.prepare_cached(Q::SQL)?;
        let mut rows = select.query(params_from_iter(query.params().into_iter().map(SqliteParameter)))?;
        while let Some(row) = rows.next()? {
            query.read(&SqliteRow(row))?;
        }
        if Q::FEW_ROWS {
            self.pace.took(started.elapsed(), place);
        }
        Ok(())
    }

    fn idle(&self, file: FileId) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(of, _)| *of == file);
        idle.pop().map(|(_, connection)| connection)
    }

    fn keep(&self, file: FileId, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((file, connection));
    }

    /// An idle connection to the file that has the path now, or a new one.
    fn connection(&self) -> Result<(FileId, Connection), ReadModelError> {
        let mut file = self.file()?;
        loop {
            if let Some(connection) = self.idle(file) {
                return Ok((file, connection));
            }
            let connection = open_for_reading(&self.path);
            // Opened while the file was being replaced, it may be a database with another one's WAL.
            let opened = self.file()?;
            if opened == file {
                return Ok((file, connection?));
            }
            file = opened;
        }
    }

    /// The file that has the path, or had it a moment ago: a query that came then would have been answered from it too.
    fn file_lately(&self) -> Result<FileId, ReadModelError> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some(seen) if seen.at.elapsed() < LOOK_EVERY && seen.replaced == file::replaced() => {
                Ok(seen.file)
            }
            _ => self.file(),
        }
    }

    fn file(&self) -> Result<FileId, ReadModelError> {
        let (at, replaced) = (Instant::now(), file::replaced());
        match FileId::of(&self.path) {
            Ok(Some(file)) => {
                let seen = Some(Seen { file, at, replaced });
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
                Ok(file)
            }
            Ok(None) => Err(ReadModelError::Unavailable(Box::new(NotCreated))),
            Err(error) => Err(ReadModelError::Unavailable(Box::new(error))),
        }
    }
}

fn answer<Q: Query>(query: Q) -> rusqlite::Result<Q::Answer> {
    query.answer().ok_or(rusqlite::Error::QueryReturnedNoRows)
}

impl SqlEngine for SqliteEngine {
    type Location = PathBuf;

    fn new(path: PathBuf) -> Self {
        Self::with_connections(path, (2 * processors()).clamp(4, 32))
    }

    fn with_connections(path: PathBuf, connections: usize) -> Self {
        let permits = Arc::new(Semaphore::new(connections.max(1)));
        let pool = Pool {
            path,
            permits,
            at_once: AtOnce::new(processors()),
            idle: Mutex::default(),
            seen: Mutex::default(),
            pace: Pace::default(),
        };
        Self { pool: Arc::new(pool) }
    }

    async fn ask<Q: Query>(&self, query: Q) -> Result<Q::Answer, ReadModelError> {
        let mut query = match self.pool.try_run(query) {
            Ok(answer) => return answer,
            Err(query) => query,
        };
        let pool = Arc::clone(&self.pool);
        self.read(move |db| {
            pool.read(db, &mut query, Place::Thread)?;
            answer(query)
        })
        .await
    }

    async fn read_through(&self) -> Result<Snapshot<Contents>, ReadModelError> {
        self.read(|db| {
            // Deferred: the snapshot is taken by the first read, that of the position.
            let db = db.transaction()?;
            let position = load::checkpoint(&db)?.position;
            let mut value = Contents::default();
            for part in &PARTS {
                let mut select = db.prepare(part.sql)?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    part.add(&mut value, &SqliteRow(row))?;
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
    fn a_statement_is_compiled_once_whatever_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read-model.db");
        drop(SqliteReadModelWriter::open(&path).unwrap());
        let reader = SqliteEngine::new(path.clone());
        let db = open_for_reading(&path).unwrap();
        for token in ["a", "b", "c"] {
            let token = AppToken::parse(&token.repeat(36)).unwrap();
            let mut query = GetMessage::new(token, ChatNumber::FIRST, MessageNumber::FIRST);
            reader.pool.read(&db, &mut query, Place::Worker).unwrap();
        }
        let statement = db.prepare_cached(GetMessage::SQL).unwrap();
        assert!(statement.get_status(StatementStatus::Run) > 0);
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
