//! The query side: a few read-only connections, each query in one read transaction on one of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, InterruptHandle, Transaction, params_from_iter};
use tokio::sync::Semaphore;

use super::failure::{NotCreated, ThreadEnded, failure};
use super::file::{FileId, open_for_reading};
use super::load;
use crate::contents::Contents;
use crate::read_model::sql::Engine;
use crate::read_model::sql::digest::PARTS;
use crate::read_model::sql::query::Query;
use crate::read_model::{ReadModelError, Snapshot};

/// The read model in a SQLite file, for queries. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct SqliteReadModel {
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    /// As many as there are connections at most.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(FileId, Connection)>>,
}

impl SqliteReadModel {
    /// The read model in the file at `path`. The file need not exist yet: until a projector has created it, queries
    /// answer [`ReadModelError::Unavailable`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::with_connections(path, (2 * processors).clamp(4, 32))
    }

    /// The same with at most so many connections; further queries wait for one of them.
    pub fn with_connections(path: impl Into<PathBuf>, connections: usize) -> Self {
        let permits = Arc::new(Semaphore::new(connections.max(1)));
        Self { pool: Arc::new(Pool { path: path.into(), permits, idle: Mutex::default() }) }
    }

    /// Reads the whole file, beside everything else, and answers [`ReadModelError::Damaged`] where a page can't be
    /// understood. Dropping the future ends it.
    pub async fn verify(&self) -> Result<(), ReadModelError> {
        let pool = Arc::clone(&self.pool);
        let opened = tokio::task::spawn_blocking(move || open_for_reading(&pool.path));
        let ended = |error| ReadModelError::Unavailable(Box::new(error));
        let connection = opened.await.map_err(ended)??;
        let _interrupt = InterruptOnDrop(connection.get_interrupt_handle());
        let checked = tokio::task::spawn_blocking(move || {
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
        query: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
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
    fn run<T>(
        &self,
        query: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, ReadModelError> {
        let (file, mut connection) = self.connection()?;
        // Deferred: the snapshot is taken by the first read, that of the position.
        let transaction = connection.transaction().map_err(failure)?;
        let answer = query(&transaction).map_err(failure)?;
        transaction.finish().map_err(failure)?;
        // A connection that met an error is closed instead.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((file, connection));
        Ok(answer)
    }

    /// An idle connection to the file that has the path now, or a new one.
    fn connection(&self) -> Result<(FileId, Connection), ReadModelError> {
        let mut file = self.file()?;
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|(of, _)| *of == file);
            if let Some(connection) = idle.pop() {
                return Ok(connection);
            }
            drop(idle);
            let connection = open_for_reading(&self.path);
            // Opened while the file was being replaced, it may be a database with another one's WAL.
            let opened = self.file()?;
            if opened == file {
                return Ok((file, connection?));
            }
            file = opened;
        }
    }

    fn file(&self) -> Result<FileId, ReadModelError> {
        match FileId::of(&self.path) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(ReadModelError::Unavailable(Box::new(NotCreated))),
            Err(error) => Err(ReadModelError::Unavailable(Box::new(error))),
        }
    }
}

impl Engine for SqliteReadModel {
    async fn ask<Q: Query>(&self, mut query: Q) -> Result<Q::Answer, ReadModelError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(Q::SQL)?;
            let mut rows = select.query(params_from_iter(query.params()))?;
            while let Some(row) = rows.next()? {
                query.read(row)?;
            }
            query.answer().ok_or(rusqlite::Error::QueryReturnedNoRows)
        })
        .await
    }

    async fn read_through(&self) -> Result<Snapshot<Contents>, ReadModelError> {
        self.read(|db| {
            let position = load::checkpoint(db)?.position;
            let mut value = Contents::default();
            for part in &PARTS {
                let mut select = db.prepare(part.sql)?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    part.add(&mut value, row)?;
                }
            }
            Ok(Snapshot { position, value })
        })
        .await
    }
}
