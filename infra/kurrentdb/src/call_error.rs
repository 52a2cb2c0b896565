//! Errors of calls to KurrentDB, and their meaning for retries and for the port.

use std::error::Error as StdError;
use std::time::Duration;

use hyper_util::client::legacy::Error as TransportError;
use thiserror::Error;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::transport::TransportSetupError;
use super::url::Host;
use chat_ports::event_store::{EventStoreError, TruncatedStream};

/// An error of a call.
#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("KurrentDB can't be reached or can't answer now")]
    Transient(#[source] Box<Status>),
    #[error("none of the cluster members that {0} names can be used")]
    NoUsableNode(String),
    /// Holds the leader's address, if the node has named it.
    #[error("the node of KurrentDB is not the leader")]
    NotLeader(Option<Host>),
    #[error("KurrentDB did not execute the append: {0}")]
    NotExecuted(String),
    #[error("the call that carries all appends has ended")]
    CallEnded,
    #[error(transparent)]
    TransportSetup(#[from] TransportSetupError),
    #[error(
        "KurrentDB refuses access: check the user, the password, and the user's rights to read $all and to write"
    )]
    AccessDenied,
    #[error("KurrentDB refuses the call")]
    Refused(#[source] Box<Status>),
    #[error("there is no event log in this KurrentDB: `chat-api serve` creates it")]
    NoLog,
    #[error("the stream was deleted permanently")]
    StreamDeleted,
    #[error(transparent)]
    StreamTruncated(#[from] TruncatedStream),
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
    #[error("an event of KurrentDB has no id, stream or type")]
    IncompleteEvent,
    #[error("the log's identity can't be read")]
    UnreadableLogId,
    #[error("an append was stored at an unexpected revision")]
    UnexpectedRevision,
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let exception = status.metadata().get("exception").and_then(|name| name.to_str().ok());
        match (exception, status.code()) {
            (Some("not-leader"), _) => Self::NotLeader(leader_endpoint(status.metadata())),
            (Some("stream-deleted"), _) => Self::StreamDeleted,
            (_, Code::Unauthenticated | Code::PermissionDenied) => Self::AccessDenied,
            (
                _,
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented,
            ) => Self::Refused(status.into()),
            _ => Self::Transient(status.into()),
        }
    }
}

/// Reads the leader's address from a response of another node.
fn leader_endpoint(metadata: &MetadataMap) -> Option<Host> {
    let value = |name| metadata.get(name)?.to_str().ok();
    let name = value("leader-endpoint-host")?;
    // The server names an IPv6 address without brackets.
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    Some(Host { name, port: value("leader-endpoint-port")?.parse().ok()? })
}

impl CallError {
    /// Whether a retry may succeed, on another connection or another node.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Timeout(_)
                | Self::Transient(_)
                | Self::NoUsableNode(_)
                | Self::NotLeader(_)
                | Self::NotExecuted(_)
                | Self::CallEnded
        )
    }

    /// Whether KurrentDB may have stored an append whose call failed with this error.
    pub(super) fn leaves_outcome_unknown(&self) -> bool {
        match self {
            Self::Transient(status) => !is_connect_failure(status),
            // With `NotLeader` the server ends the call that carries all appends. An append that it has stored and not
            // yet answered then fails with `NotLeader` too.
            Self::Timeout(_) | Self::NotLeader(_) => true,
            _ => false,
        }
    }
}

/// Whether no connection could be made, so that nothing was sent.
fn is_connect_failure(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.downcast_ref().is_some_and(TransportError::is_connect) {
            return true;
        }
        source = error.source();
    }
    false
}

impl From<CallError> for EventStoreError {
    fn from(failure: CallError) -> Self {
        match failure {
            CallError::Timeout(_)
            | CallError::Transient(_)
            | CallError::NoUsableNode(_)
            | CallError::NotLeader(_)
            | CallError::NotExecuted(_)
            | CallError::CallEnded => Self::Unavailable(failure.into()),
            CallError::StreamTruncated(stream) => Self::StreamTruncated(stream),
            CallError::Damaged(_) | CallError::StreamDeleted | CallError::WrongExpectedRevision => {
                Self::Damaged(failure.into())
            }
            CallError::TransportSetup(_)
            | CallError::AccessDenied
            | CallError::Refused(_)
            | CallError::NoLog => Self::Refused(failure.into()),
        }
    }
}
