//! The outcome of an action: its report, or the error.

use chat_domain::projection::ProjectionName;
use chat_ports::event_store::{AppendError, EventStoreError};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::action::InvalidOptions;
use super::registry::JobRecord;
use crate::envelope::{Diagnostic, Status};
use crate::operator_actions::OperatorActionError;
use crate::projections::ProjectionsError;
use crate::proof::ProofError;
use crate::proof::verify::CheckpointError;

/// The report of a dry run or of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionReport {
    /// The status.
    pub status: Status,
    /// The data.
    pub data: Value,
    /// Remarks on the data.
    pub diagnostics: Vec<Diagnostic>,
}

impl ActionReport {
    /// Creates a report without diagnostics.
    pub(super) fn new(status: Status, data: &impl Serialize) -> Result<Self, ActionError> {
        Ok(Self { status, data: serde_json::to_value(data)?, diagnostics: Vec::new() })
    }

    pub(super) fn with(mut self, diagnostic: Diagnostic) -> Self {
        self.diagnostics.push(diagnostic);
        self
    }

    pub(super) fn with_all(mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) -> Self {
        self.diagnostics.extend(diagnostics);
        self
    }
}

/// Why an action failed, or can't be executed.
#[derive(Debug, Error)]
pub enum ActionError {
    /// The options are invalid.
    #[error(transparent)]
    Options(#[from] InvalidOptions),
    /// The action is not possible: something that it needs is missing or malformed, or another process works on it.
    #[error("{0}")]
    NotPossible(String),
    /// The log could not be read or written.
    #[error("the event log can't be used")]
    EventStore(#[source] EventStoreError),
    /// A projection command failed.
    #[error(transparent)]
    Projections(ProjectionsError),
    /// A checkpoint could not be made, or the log could not be verified.
    #[error("the log could not be read, hashed or signed")]
    Proof(#[source] CheckpointError),
    /// A temporary file, or the folder of one, could not be written or read.
    #[error("temporary files can't be written or read")]
    TemporaryFiles(#[source] std::io::Error),
    /// The report can't be written as JSON.
    #[error("the report can't be written as JSON")]
    Report(#[from] serde_json::Error),
    /// The process stops.
    #[error("interrupted")]
    Interrupted,
}

impl ActionError {
    /// The error of an action that would switch the same projection as a job that has not ended.
    pub(super) fn conflict(job: &JobRecord, projection: ProjectionName) -> Self {
        let JobRecord { id, kind, .. } = job;
        let projection = projection.as_str();
        Self::NotPossible(format!(
            "the job {id} ({kind}) has not ended, and works on the generations of {projection}; try again after its end"
        ))
    }

    /// Whether a job with this error is attempted again.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::EventStore(error) => error.is_retryable(),
            Self::Projections(ProjectionsError::OperatorAction(OperatorActionError::Append(error)))
            | Self::Proof(CheckpointError::OperatorAction(OperatorActionError::Append(error))) => {
                matches!(error, AppendError::Unavailable(_))
            }
            Self::Interrupted => true,
            _ => false,
        }
    }
}

impl From<EventStoreError> for ActionError {
    fn from(error: EventStoreError) -> Self {
        Self::EventStore(error)
    }
}

impl From<ProjectionsError> for ActionError {
    fn from(error: ProjectionsError) -> Self {
        match error {
            ProjectionsError::NotFound(reason) | ProjectionsError::Busy(reason) => Self::NotPossible(reason),
            ProjectionsError::EventStore(error)
            | ProjectionsError::OperatorAction(OperatorActionError::EventStore(error)) => {
                Self::EventStore(error)
            }
            ProjectionsError::Interrupted => Self::Interrupted,
            error => Self::Projections(error),
        }
    }
}

impl From<CheckpointError> for ActionError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Proof(ProofError::EventStore(error))
            | CheckpointError::OperatorAction(OperatorActionError::EventStore(error)) => {
                Self::EventStore(error)
            }
            CheckpointError::Proof(ProofError::Malformed(reason) | ProofError::Key(reason)) => {
                Self::NotPossible(reason.to_owned())
            }
            CheckpointError::LogClosed(closed) => Self::NotPossible(closed.to_string()),
            error => Self::Proof(error),
        }
    }
}

impl From<ProofError> for ActionError {
    fn from(error: ProofError) -> Self {
        CheckpointError::from(error).into()
    }
}
