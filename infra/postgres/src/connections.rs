//! A bounded number of connections, each opened on demand and reused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::error::PoolTimeout;

/// The time limit of waiting for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// The time after which an idle connection is not reused, since the network may have dropped it. It is closed when the
/// next connection is taken.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Connections of one kind. Unlike the pool of `sqlx`, does not ping a connection that is put back: a ping would cost a
/// second round trip for each query. A query that finds its connection lost is repeated on a new one.
pub(super) struct Connections {
    /// One permit for each connection.
    permits: Semaphore,
    /// The idle connections, each with the time of its return.
    idle: Mutex<Vec<(Instant, PgConnection)>>,
}

impl Connections {
    /// Allows up to `max_connections`, and at least one.
    pub(super) fn new(max_connections: usize) -> Self {
        Self { permits: Semaphore::new(max_connections.max(1)), idle: Mutex::default() }
    }

    /// Waits until a connection may be used.
    pub(super) async fn acquire_permit(&self) -> Result<SemaphorePermit<'_>, PoolTimeout> {
        match timeout(ACQUIRE_TIMEOUT, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(PoolTimeout(ACQUIRE_TIMEOUT)),
        }
    }

    /// Takes the most recently used connection; `None` if a new one has to be opened.
    pub(super) fn take_idle(&self) -> Option<PgConnection> {
        let mut idle = self.lock_idle();
        idle.retain(|(since, _)| since.elapsed() < IDLE_TIMEOUT);
        idle.pop().map(|(_, connection)| connection)
    }

    /// Returns a connection after a completed statement.
    pub(super) fn put_back(&self, connection: PgConnection) {
        self.lock_idle().push((Instant::now(), connection));
    }

    /// Closes the idle connections. Called when a connection was lost: a restart of the server breaks all connections.
    pub(super) fn close_idle(&self) {
        self.lock_idle().clear();
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<(Instant, PgConnection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
