//! A client that repeats requests if that is safe, and never if a command could be executed twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_ports::backoff::Backoff;
use http::StatusCode;
use thiserror::Error;

use crate::client::{ApiRequest, ApiResponse, Connection, SendError, Server};
use crate::tally::Tally;

/// Time after which a request is not repeated any more.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const INITIAL_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// A longer `Retry-After` is shortened to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The final failure of a request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The server refused the request with this status and code. Nothing was executed.
    #[error("{0}")]
    Refused(String),
    /// The outcome is unknown: the request may have been executed.
    #[error("{0}")]
    Uncertain(String),
    /// The server could not be reached within [`RETRY_TIMEOUT`].
    #[error("server unreachable")]
    Unreachable,
}

/// A connection that repeats requests.
#[derive(Debug)]
pub struct RetryingClient {
    connection: Connection,
    retried: Tally,
}

impl RetryingClient {
    /// Creates a client with a connection of its own.
    pub fn new(server: Arc<Server>) -> Self {
        Self { connection: Connection::new(server), retried: Tally::default() }
    }

    /// Returns how often requests were repeated, by cause, since the last call.
    pub fn take_retries(&mut self) -> Tally {
        std::mem::take(&mut self.retried)
    }

    /// Sends a request until it succeeds (2xx), must not be repeated, or has been repeated for [`RETRY_TIMEOUT`].
    ///
    /// A request is repeated if it was not sent, or if the server refused it temporarily (429, and 503 other than
    /// `outcome_unknown`). In both cases nothing was executed. A request with an unknown outcome, for example because
    /// its response was lost, is repeated only if it is idempotent ([`ApiRequest::is_idempotent`]).
    pub async fn send(&mut self, request: &ApiRequest) -> Result<ApiResponse, RequestError> {
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
        loop {
            let (error, retry_after) = match self.connection.send(request).await {
                Ok(response) if response.status.is_success() => return Ok(response),
                Ok(response) => (error_from_response(&response), response.retry_after()),
                Err(SendError::Unsent(_)) => (RequestError::Unreachable, None),
                Err(SendError::Lost(_)) => (RequestError::Uncertain("connection lost".to_owned()), None),
            };
            let is_retryable = match &error {
                RequestError::Refused(status_and_code) => {
                    status_and_code.starts_with("503") || status_and_code.starts_with("429")
                }
                RequestError::Uncertain(_) => request.is_idempotent,
                RequestError::Unreachable => true,
            };
            if !is_retryable || Instant::now() >= deadline {
                return Err(error);
            }
            self.retried.count(&error.to_string());
            let pause = backoff.next_pause();
            tokio::time::sleep(retry_after.map_or(pause, |requested| requested.min(MAX_RETRY_AFTER))).await;
        }
    }
}

fn error_from_response(response: &ApiResponse) -> RequestError {
    let status_and_code = response.status_and_code();
    if response.status == StatusCode::SERVICE_UNAVAILABLE
        && response.code().as_deref() == Some("outcome_unknown")
    {
        return RequestError::Uncertain(status_and_code);
    }
    // An internal error may occur after the event was stored.
    if response.status.is_server_error() && response.status != StatusCode::SERVICE_UNAVAILABLE {
        return RequestError::Uncertain(status_and_code);
    }
    RequestError::Refused(status_and_code)
}
