//! Requests that are repeated where that is safe, and never where it could carry something out twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use thiserror::Error;

use crate::client::{Call, Connection, Reply, SendError, Server};
use crate::tally::Tally;

/// How long a request is tried again before it counts as failed.
const RETRY_FOR: Duration = Duration::from_secs(30);
const INITIAL_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a request failed for good.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The server answered, and it was no success. Nothing was carried out.
    #[error("{0}")]
    Refused(String),
    /// It may have been carried out or not.
    #[error("{0}")]
    Uncertain(String),
    /// The server could not be reached for as long as was tried.
    #[error("server unreachable")]
    Unreachable,
}

/// A connection with patience.
#[derive(Debug)]
pub struct RetryingClient {
    connection: Connection,
    retried: Tally,
}

impl RetryingClient {
    /// A caller with a connection of its own.
    pub fn new(server: Arc<Server>) -> Self {
        Self { connection: Connection::new(server), retried: Tally::default() }
    }

    /// What was tried again, and why; counted from now on anew.
    pub fn take_retries(&mut self) -> Tally {
        std::mem::take(&mut self.retried)
    }

    /// Sends a request until it succeeds (2xx), fails for good, or patience ends.
    ///
    /// Tried again are requests that never left, and those that the server refused for the moment (429, and 503 but for
    /// `outcome_unknown`): nothing was carried out. A request whose answer was lost is tried again only
    /// where it changes nothing ([`Call::repeatable`]).
    pub async fn call(&mut self, call: &Call) -> Result<Reply, CallError> {
        let deadline = Instant::now() + RETRY_FOR;
        let mut pause = INITIAL_BACKOFF;
        loop {
            let (error, wait) = match self.connection.send(call).await {
                Ok(reply) if reply.status.is_success() => return Ok(reply),
                Ok(reply) => (error_from_reply(&reply), reply.retry_after()),
                Err(SendError::Unsent(_)) => (CallError::Unreachable, None),
                Err(SendError::Lost(_)) => (CallError::Uncertain("connection lost".to_owned()), None),
            };
            let again = match &error {
                CallError::Refused(outcome) => outcome.starts_with("503") || outcome.starts_with("429"),
                CallError::Uncertain(_) => call.is_idempotent,
                CallError::Unreachable => true,
            };
            if !again || Instant::now() >= deadline {
                return Err(error);
            }
            self.retried.count(&error.to_string());
            tokio::time::sleep(wait.map_or(pause, |wait| wait.min(MAX_RETRY_AFTER))).await;
            pause = (pause * 2).min(MAX_BACKOFF);
        }
    }
}

fn error_from_reply(reply: &Reply) -> CallError {
    let outcome = reply.outcome();
    if reply.status == StatusCode::SERVICE_UNAVAILABLE && reply.code().as_deref() == Some("outcome_unknown") {
        return CallError::Uncertain(outcome);
    }
    // A server's own failure may have struck after the event was stored.
    if reply.status.is_server_error() && reply.status != StatusCode::SERVICE_UNAVAILABLE {
        return CallError::Uncertain(outcome);
    }
    CallError::Refused(outcome)
}
