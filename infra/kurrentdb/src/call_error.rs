//! What can go wrong with a call, and what that means.

use std::time::Duration;

use kurrentdb::Error as ClientError;
use thiserror::Error;

use chat_ports::event_store::EventStoreError;

/// Why a call failed.
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
    #[error("KurrentDB does not take the call")]
    Refused(#[source] ClientError),
    #[error("the stream does not exist")]
    StreamNotFound,
    #[error("the stream was deleted, and streams of this system must not be")]
    StreamDeleted,
    #[error("the stream does not end where it was expected to")]
    WrongExpectedRevision,
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// What is stored and can't be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Damage {
    #[error(
        "an event of this system was written in an explicit transaction (commit {commit}, prepare {prepare})"
    )]
    ExplicitTransaction { commit: u64, prepare: u64 },
    #[error("the stream has event {found} where {expected} should be: events of it are missing")]
    MissingEvents { expected: u64, found: u64 },
    #[error("the log's identity can't be read")]
    UnreadableLogId,
    #[error("an append was stored at another place than was expected")]
    UnexpectedPosition,
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

/// gRPC's status codes, of which the client gives no names to its callers.
mod grpc_status {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
}

impl CallError {
    /// Whether the same call may succeed a moment later.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Transient(_))
    }

    /// Whether an append that was sent and answered so may have been stored all the same.
    pub(super) fn leaves_outcome_unknown(&self) -> bool {
        match self {
            Self::Transient(error) => !matches!(error, ClientError::NotLeaderException(_)),
            Self::Timeout(_) => true,
            _ => false,
        }
    }

    /// Whether the client is of no more use: it ends for good where it can't connect, and it never turns to another
    /// node of its own accord. With a single node it connects again by itself, unless a connection hangs.
    pub(super) fn invalidates_client(&self, cluster: bool) -> bool {
        match self {
            Self::Timeout(_)
            | Self::Transient(ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_)) => true,
            // It knows where the leader is, and turns there.
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
