//! Errors that end a replay.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use chat_ports::event_store::EventStoreError;
use http::StatusCode;
use thiserror::Error;

use crate::counted::counted;

/// Why a replay ended before it was complete. The next run resumes at the last checkpoint that could be written.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The log could not be read.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// The checkpoint file is malformed or in use, or does not fit the log or the replay.
    #[error("{}: {reason}", .path.display())]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// Why the replay can't use it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
    /// The fingerprint of the destination could not be computed.
    #[error("the destination can't be identified")]
    Destination(#[source] io::Error),
    /// The destination file is in use by another replay, or its content is not as the replay expects it.
    #[error("{}: {reason}", .path.display())]
    FileMismatch {
        /// The file.
        path: PathBuf,
        /// Why the replay can't use it.
        reason: &'static str,
    },
    /// The program could not be started or written to.
    #[error("the program can't be started or written to")]
    Program(#[source] io::Error),
    /// The program ended before it had read all events.
    #[error("the program ended before it had read all events ({0})")]
    ProgramEnded(ExitStatus),
    /// The program failed after all events were written to it.
    #[error("the program failed ({0})")]
    ProgramFailed(ExitStatus),
    /// The endpoint refused a batch with a status that a retry does not change.
    #[error("the endpoint answered {status}: {response_body}")]
    Refused {
        /// The status of the response.
        status: StatusCode,
        /// The beginning of the response body, as far as it could be read.
        response_body: String,
    },
    /// The endpoint did not accept a batch, and the next attempt would begin after the time limit.
    #[error("the endpoint has not accepted the events for {}: {last_error}", counted(.after.as_secs(), "second"))]
    GaveUp {
        /// The time for which delivery was attempted.
        after: Duration,
        /// The error of the last attempt.
        last_error: String,
    },
}
