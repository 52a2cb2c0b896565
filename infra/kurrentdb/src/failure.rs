//! What can go wrong with a call, and what that means.

use std::time::Duration;

use kurrentdb::Error as ClientError;
use thiserror::Error;

use chat_ports::event_store::EventStoreError;

/// Why a call failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    #[error("KurrentDB can't be reached or can't answer now")]
    Trouble(#[source] ClientError),
    #[error("the client could not be set up")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "KurrentDB refuses access: check the user, the password, and the user's rights to read $all and to write"
    )]
    AccessDenied,
    #[error("KurrentDB does not take the call")]
    Refused(#[source] ClientError),
    #[error("the stream does not exist")]
    NoStream,
    #[error("the stream was deleted, and streams of this system must not be")]
    Deleted,
    #[error("the stream does not end where it was expected to")]
    WrongRevision,
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// What is stored and can't be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Damage {
    #[error(
        "an event of this system was written in an explicit transaction (commit {commit}, prepare {prepare})"
    )]
    Transaction { commit: u64, prepare: u64 },
    #[error("the stream has event {found} where {expected} should be: events of it are missing")]
    Hole { expected: u64, found: u64 },
    #[error("the log's identity can't be read")]
    Identity,
    #[error("an append was stored at another place than was expected")]
    Misplaced,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        use tonic_code::{FAILED_PRECONDITION, INVALID_ARGUMENT, OUT_OF_RANGE};
        match error {
            ClientError::WrongExpectedVersion { .. } => Self::WrongRevision,
            ClientError::ResourceNotFound => Self::NoStream,
            ClientError::ResourceDeleted => Self::Deleted,
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
            | ClientError::DeadlineExceeded => Self::Trouble(error),
            _ => Self::Refused(error),
        }
    }
}

/// gRPC's status codes, of which the client gives no names to its callers.
mod tonic_code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
}

impl Failure {
    /// Whether the same call may succeed a moment later.
    pub(super) fn retryable(&self) -> bool {
        matches!(self, Self::Deadline(_) | Self::Trouble(_))
    }

    /// Whether an append that was sent and answered so may have been stored all the same.
    pub(super) fn leaves_open(&self) -> bool {
        match self {
            Self::Trouble(error) => !matches!(error, ClientError::NotLeaderException(_)),
            Self::Deadline(_) => true,
            _ => false,
        }
    }

    /// Whether the client is of no more use: it ends for good where it can't connect, and it never turns to another
    /// node of its own accord. With a single node it connects again by itself, unless a connection hangs.
    pub(super) fn ends_client(&self, cluster: bool) -> bool {
        match self {
            Self::Deadline(_)
            | Self::Trouble(ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_)) => true,
            // It knows where the leader is, and turns there.
            Self::Trouble(ClientError::NotLeaderException(_)) => false,
            Self::Trouble(_) => cluster,
            _ => false,
        }
    }
}

impl From<Failure> for EventStoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Deadline(_) | Failure::Trouble(_) => Self::Unavailable(failure.into()),
            Failure::Damaged(_) | Failure::Deleted | Failure::WrongRevision => Self::Damaged(failure.into()),
            Failure::Client(_) | Failure::AccessDenied | Failure::Refused(_) | Failure::NoStream => {
                Self::Refused(failure.into())
            }
        }
    }
}
