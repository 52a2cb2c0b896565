//! Calls to the server of the log: connections, deadlines and retries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{ConnectOptions, PgConnection, Postgres, query_scalar};
use tokio::time::{Instant, sleep, timeout};

use super::call_error::{CallError, refuses_settings};
use crate::connections::Connections;
use crate::error::{ResponseTimeout, is_connection_lost};
use crate::session::{
    CONNECT_TIMEOUT, DEAD_CLIENT_SETTINGS, INDEX_SCAN_SETTINGS, options_with_application_name,
};
use crate::url::PostgresUrl;
use chat_ports::backoff::Backoff;

/// The time limit of running a statement once. Longer than the time for which an append waits for the lock of the log
/// (2 s), so that the server's error arrives.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// The time after which no further attempt of a call begins.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(4);

/// The time limit of checking or creating the log, and granting rights to it.
pub(super) const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

const INITIAL_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// The number of connections that append. Appends take turns. With two connections, the next append already waits at
/// the server.
const APPEND_CONNECTIONS: usize = 2;

/// The number of concurrent reads of single streams, and of events by their ids.
const STREAM_READ_CONNECTIONS: usize = 4;

/// The number of concurrent reads of the whole log. They have connections of their own, so that projections don't queue
/// behind reads of long streams.
const LOG_READ_CONNECTIONS: usize = 3;

/// The connections of a log.
pub(super) struct LogServer {
    options: PgConnectOptions,
    /// The same without session settings, which some connection poolers refuse.
    plain_options: PgConnectOptions,
    /// Whether the server has refused the session settings before.
    refuses_settings: AtomicBool,
    pub(super) appends: Connections,
    pub(super) stream_reads: Connections,
    pub(super) log_reads: Connections,
}

/// A statement with its parameters.
pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A failed attempt.
pub(super) struct FailedAttempt {
    pub(super) error: CallError,
    /// Whether the statement was sent.
    pub(super) was_sent: bool,
}

/// The pauses between the attempts of one call, and the time after which no further attempt begins.
pub(super) struct RetryTimer {
    deadline: Instant,
    backoff: Backoff,
}

impl RetryTimer {
    pub(super) fn start() -> Self {
        Self { deadline: Instant::now() + TOTAL_TIMEOUT, backoff: Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF) }
    }

    /// Waits before the next attempt. Returns `false` if the time limit leaves no further attempt.
    pub(super) async fn wait_for_retry(&mut self) -> bool {
        let pause = self.backoff.next_pause();
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }
}

impl LogServer {
    pub(super) fn new(url: &PostgresUrl) -> Self {
        let plain_options = options_with_application_name(url).extra_float_digits(None);
        // Statement timeouts end statements whose client no longer waits for them.
        let options = plain_options
            .clone()
            .options(INDEX_SCAN_SETTINGS)
            .options(DEAD_CLIENT_SETTINGS)
            .options([("statement_timeout", "5s"), ("default_transaction_isolation", "read committed")]);
        Self {
            options,
            plain_options,
            refuses_settings: AtomicBool::new(false),
            appends: Connections::new(APPEND_CONNECTIONS),
            stream_reads: Connections::new(STREAM_READ_CONNECTIONS),
            log_reads: Connections::new(LOG_READ_CONNECTIONS),
        }
    }

    /// The options of connections without session settings.
    pub(super) fn plain_options(&self) -> &PgConnectOptions {
        &self.plain_options
    }

    /// Opens a connection to a server that takes writes.
    pub(super) async fn connect(&self) -> Result<PgConnection, CallError> {
        within(CONNECT_TIMEOUT, async {
            let mut connection = self.open().await?;
            let is_standby: bool =
                query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
            if is_standby { Err(CallError::Standby) } else { Ok(connection) }
        })
        .await
    }

    async fn open(&self) -> Result<PgConnection, CallError> {
        if !self.refuses_settings.load(Ordering::Relaxed) {
            match self.options.connect().await {
                Err(error) if refuses_settings(&error) => {
                    self.refuses_settings.store(true, Ordering::Relaxed);
                }
                connected => return Ok(connected?),
            }
        }
        Ok(self.plain_options.connect().await?)
    }

    /// Runs a statement that may be repeated, and repeats it after a retryable error.
    pub(super) async fn fetch<'q>(
        &self,
        connections: &Connections,
        statement: impl Fn() -> Statement<'q>,
    ) -> Result<Vec<PgRow>, CallError> {
        let mut retry_timer = RetryTimer::start();
        loop {
            match self.attempt(connections, statement()).await {
                Err(failed) if failed.error.is_retryable() && retry_timer.wait_for_retry().await => {}
                result => return result.map_err(|failed| failed.error),
            }
        }
    }

    /// Runs a statement once. After a timeout or a cancellation, the connection is closed.
    pub(super) async fn attempt(
        &self,
        connections: &Connections,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, FailedAttempt> {
        let not_sent = |error| FailedAttempt { error, was_sent: false };
        let sent = |error| FailedAttempt { error, was_sent: true };
        let _permit = connections.acquire_permit().await.map_err(|error| not_sent(error.into()))?;
        let mut connection = match connections.take_idle() {
            Some(connection) => connection,
            None => self.connect().await.map_err(not_sent)?,
        };
        let run = timeout(ATTEMPT_TIMEOUT, statement.fetch_all(&mut connection)).await;
        let result = run.map_err(|_| sent(ResponseTimeout(ATTEMPT_TIMEOUT).into()))?;
        match &result {
            Err(error) if is_connection_lost(error) => connections.close_idle(),
            _ => connections.put_back(connection),
        }
        result.map_err(|error| sent(error.into()))
    }
}

/// Runs a future with a time limit.
pub(super) async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout(limit, future).await.unwrap_or_else(|_| Err(ResponseTimeout(limit).into()))
}
