//! A pool of connections for queries.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{PgConnection, raw_sql};
use tokio::time::timeout;

use super::connections::Connections;
use super::error::{ResponseTimeout, classify_read_error, is_connection_lost};
use super::session::connect;
use chat_ports::read_model::ReadModelError;
use chat_sql::query::Query;
use chat_sql::row::Value;
use chat_sql::tables::REQUIRE_ADDED_COLUMNS;

/// The time limit of a query. Postgres itself cancels it after 5 seconds; this covers a server that does not respond.
const QUERY_TIMEOUT: Duration = Duration::from_secs(6);

/// Returns the default for the largest number of connections of a pool: four for each processor, at least 8 and at most
/// 32.
pub(super) fn default_connections() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (4 * processors).clamp(8, 32)
}

/// Connections for queries, and the options to open them with.
pub(super) struct Pool {
    options: PgConnectOptions,
    connections: Connections,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, max_connections: usize) -> Self {
        Self { options, connections: Connections::new(max_connections) }
    }

    /// Returns the rows of a query. Cancelling the future closes the connection.
    pub(super) async fn fetch_rows<Q: Query>(&self, query: &Q) -> Result<Vec<PgRow>, ReadModelError> {
        let permit = self.connections.acquire_permit().await;
        let _permit = permit.map_err(|error| ReadModelError::Unavailable(Box::new(error)))?;
        if let Some(mut connection) = self.connections.take_idle() {
            match fetch_all(&mut connection, query).await? {
                Ok(rows) => return Ok(self.put_back(connection, rows)),
                // The query is repeated below.
                Err(error) if is_connection_lost(&error) => self.connections.close_idle(),
                Err(error) => return Err(self.put_back(connection, classify_read_error(error))),
            }
        }
        let mut connection = connect(&self.options).await?;
        require_columns(&mut connection).await?;
        match fetch_all(&mut connection, query).await? {
            Ok(rows) => Ok(self.put_back(connection, rows)),
            Err(error) if is_connection_lost(&error) => Err(classify_read_error(error)),
            Err(error) => Err(self.put_back(connection, classify_read_error(error))),
        }
    }

    /// Puts a connection back, and passes the result of its query through.
    fn put_back<T>(&self, connection: PgConnection, value: T) -> T {
        self.connections.put_back(connection);
        value
    }
}

/// Fails if the read model lacks the columns of senders and data, which earlier versions did not create. Then all
/// queries fail, not only those that read these columns, so that a process that can't serve messages is not ready.
async fn require_columns(connection: &mut PgConnection) -> Result<(), ReadModelError> {
    let checked = raw_sql(REQUIRE_ADDED_COLUMNS).execute(connection);
    match timeout(QUERY_TIMEOUT, checked).await {
        Ok(checked) => checked.map(drop).map_err(classify_read_error),
        Err(_) => Err(ReadModelError::Unavailable(Box::new(ResponseTimeout(QUERY_TIMEOUT)))),
    }
}

/// Runs a query. The outer error is a timeout, the inner one the error of the query.
async fn fetch_all<Q: Query>(
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
    timeout(QUERY_TIMEOUT, statement.fetch_all(connection))
        .await
        .map_err(|_| ReadModelError::Unavailable(Box::new(ResponseTimeout(QUERY_TIMEOUT))))
}
