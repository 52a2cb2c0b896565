//! Errors of calls to KurrentDB, and their meaning for retries and for the port.

use std::time::Duration;

use kurrentdb::Error as ClientError;
use thiserror::Error;

use chat_ports::event_store::EventStoreError;

/// An error of a call.
#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("KurrentDB can't be reached or can't answer now")]
    Transient(#[source] ClientError),
    #[error("the client could not be set up")]
    ClientSetup(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "KurrentDB refuses access: check the user, the password, and the user's rights to read $all and to write"
    )]
    AccessDenied,
    #[error("KurrentDB refuses the call")]
    Refused(#[source] ClientError),
    #[error("the stream does not exist")]
    StreamNotFound,
    #[error("the stream was deleted; streams of this system must never be deleted")]
    StreamDeleted,
    #[error("the stream does not end at the expected revision")]
    WrongExpectedRevision,
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// Invalid data in the store.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Damage {
    #[error(
        "an event of this system was written in an explicit transaction (commit {commit}, prepare {prepare})"
    )]
    ExplicitTransaction { commit: u64, prepare: u64 },
    #[error("the stream has event {found} instead of {expected}: events are missing")]
    MissingEvents { expected: u64, found: u64 },
    #[error("the log's identity can't be read")]
    UnreadableLogId,
    #[error("an append was stored at an unexpected revision")]
    UnexpectedRevision,
}

impl From<ClientError> for CallError {
    fn from(error: ClientError) -> Self {
        use grpc_status::{FAILED_PRECONDITION, INVALID_ARGUMENT, OUT_OF_RANGE};
        match error {
            ClientError::WrongExpectedVersion { .. } => Self::WrongExpectedRevision,
            ClientError::ResourceNotFound => Self::StreamNotFound,
            ClientError::ResourceDeleted => Self::StreamDeleted,
            ClientError::AccessDenied => Self::AccessDenied,
            ClientError::Grpc { code, .. }
                if matches!(code as i32, INVALID_ARGUMENT | FAILED_PRECONDITION | OUT_OF_RANGE) =>
            {
                Self::Refused(error)
            }
            ClientError::ServerError(_)
            | ClientError::NotLeaderException(_)
            | ClientError::ConnectionClosed
            | ClientError::Grpc { .. }
            | ClientError::GrpcConnectionError(_)
            | ClientError::DeadlineExceeded => Self::Transient(error),
            _ => Self::Refused(error),
        }
    }
}

/// gRPC status codes, which the client does not export by name.
mod grpc_status {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
}

impl CallError {
    /// Whether a retry may succeed.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Transient(_))
    }

    /// Whether an append that failed with this error after it was sent may have been stored.
    pub(super) fn leaves_outcome_unknown(&self) -> bool {
        match self {
            Self::Transient(error) => !matches!(error, ClientError::NotLeaderException(_)),
            Self::Timeout(_) => true,
            _ => false,
        }
    }

    /// Whether the client has to be replaced: it stops for good if it can't connect, and it never switches to another node
    /// by itself. With a single node it reconnects by itself, unless the connection hangs.
    pub(super) fn invalidates_client(&self, cluster: bool) -> bool {
        match self {
            Self::Timeout(_)
            | Self::Transient(ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_)) => true,
            // The error names the new leader, and the client reconnects to it.
            Self::Transient(ClientError::NotLeaderException(_)) => false,
            Self::Transient(_) => cluster,
            _ => false,
        }
    }
}

impl From<CallError> for EventStoreError {
    fn from(failure: CallError) -> Self {
        match failure {
            CallError::Timeout(_) | CallError::Transient(_) => Self::Unavailable(failure.into()),
            CallError::Damaged(_) | CallError::StreamDeleted | CallError::WrongExpectedRevision => {
                Self::Damaged(failure.into())
            }
            CallError::ClientSetup(_)
            | CallError::AccessDenied
            | CallError::Refused(_)
            | CallError::StreamNotFound => Self::Refused(failure.into()),
        }
    }
}
