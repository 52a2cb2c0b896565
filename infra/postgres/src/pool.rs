//! A few connections, of which each query takes one for as long as it runs.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgRow};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::failure::{Busy, Silent, is_lost, reading};
use super::session::connect;
use chat_ports::read_model::ReadModelError;
use chat_sql::query::Query;
use chat_sql::row::Value;

/// How long a query waits for a connection.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it may take. Postgres itself ends it after 5 seconds; this is for a Postgres that says nothing any more.
const ANSWER: Duration = Duration::from_secs(6);
/// Connections that were not used for so long are closed: what lies between may have dropped them.
const UNUSED: Duration = Duration::from_mins(1);

/// `sqlx`'s own pool asks a connection whether it is alive each time that it is returned, which costs a second round trip
/// a query. Here, whoever finds a connection lost takes a new one.
pub(super) struct Pool {
    options: PgConnectOptions,
    /// As many as there are connections at most.
    permits: Semaphore,
    idle: Mutex<Vec<(Instant, PgConnection)>>,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, connections: usize) -> Self {
        Self { options, permits: Semaphore::new(connections.max(1)), idle: Mutex::default() }
    }

    /// The rows of a query. A caller that gives up closes the connection.
    pub(super) async fn rows<Q: Query>(&self, query: &Q) -> Result<Vec<PgRow>, ReadModelError> {
        let _permit = self.permit().await?;
        if let Some(mut connection) = self.idle() {
            match run(&mut connection, query).await? {
                Ok(rows) => return Ok(self.keep(connection, rows)),
                // All of them were lost: Postgres was started again. Queries can be repeated.
                Err(error) if is_lost(&error) => self.connections().clear(),
                Err(error) => return Err(self.keep(connection, reading(error))),
            }
        }
        let mut connection = connect(&self.options).await?;
        match run(&mut connection, query).await? {
            Ok(rows) => Ok(self.keep(connection, rows)),
            Err(error) if is_lost(&error) => Err(reading(error)),
            Err(error) => Err(self.keep(connection, reading(error))),
        }
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, ReadModelError> {
        match timeout(PATIENCE, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(ReadModelError::Unavailable(Box::new(Busy(PATIENCE)))),
        }
    }

    /// The connection that was used last.
    fn idle(&self) -> Option<PgConnection> {
        let mut connections = self.connections();
        connections.retain(|(since, _)| since.elapsed() < UNUSED);
        connections.pop().map(|(_, connection)| connection)
    }

    fn keep<T>(&self, connection: PgConnection, answer: T) -> T {
        self.connections().push((Instant::now(), connection));
        answer
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, PgConnection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run<Q: Query>(
    connection: &mut PgConnection,
    query: &Q,
) -> Result<sqlx::Result<Vec<PgRow>>, ReadModelError> {
    let mut statement = sqlx::query(Q::SQL);
    for param in query.params() {
        statement = match param {
            Value::Int(value) => statement.bind(value),
            Value::Text(text) => statement.bind(text),
            Value::Null => statement.bind(None::<i64>),
        };
    }
    timeout(ANSWER, statement.fetch_all(connection))
        .await
        .map_err(|_| ReadModelError::Unavailable(Box::new(Silent(ANSWER))))
}
