//! Errors of projection commands.

use std::sync::Arc;

use chat_domain::projection::ProjectionGeneration;
use chat_ports::event_store::EventStoreError;
use chat_projector::projection::{ProjectionError, ProjectionStore};
use thiserror::Error;

use crate::operator_actions::OperatorActionError;

/// Why a projection command failed.
#[derive(Debug, Error)]
pub enum ProjectionsError {
    /// The log could not be read.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// A projection could not be read or written.
    #[error("{} {} in {location}", .generation_id.projection.as_str(), .generation_id.generation.0)]
    Projection {
        /// The generation.
        generation_id: ProjectionGeneration,
        /// Its location.
        location: String,
        /// The underlying error.
        #[source]
        source: ProjectionError,
    },
    /// A scratch build failed.
    #[error("the scratch build failed")]
    ScratchBuild(#[source] ProjectionError),
    /// The folder of a scratch build could not be created.
    #[error("the folder of the scratch build can't be created")]
    ScratchFolder(#[source] std::io::Error),
    /// The operator action could not be recorded.
    #[error(transparent)]
    OperatorAction(#[from] OperatorActionError),
    /// The subject of the command does not exist, or is not in the state that the command needs.
    #[error("{0}")]
    NotFound(String),
    /// Another process works on the generation, or has made it live.
    #[error("{0}")]
    Busy(String),
    /// A projector stopped, or waited too long for a dependency.
    #[error("{} {} makes no progress: {error}", .generation_id.projection.as_str(), .generation_id.generation.0)]
    Stalled {
        /// The generation.
        generation_id: ProjectionGeneration,
        /// The last error of its projector.
        error: String,
    },
    /// The command was interrupted.
    #[error("interrupted; run the same command again: a rebuild continues where it was")]
    Interrupted,
}

impl ProjectionsError {
    /// Creates the error for a generation that another process works on.
    pub(super) fn in_use(generation_id: ProjectionGeneration) -> Self {
        Self::Busy(format!(
            "a projector still works on generation {} of {}; after a switch-over it continues for the time that --keep-previous sets",
            generation_id.generation.0,
            generation_id.projection.as_str()
        ))
    }

    /// Creates the error for a generation that another rebuild or switch-over has made live.
    pub(super) fn already_live(generation_id: ProjectionGeneration) -> Self {
        Self::Busy(format!(
            "generation {} of {} is live already: another rebuild, promotion or rollback made it live meanwhile",
            generation_id.generation.0,
            generation_id.projection.as_str()
        ))
    }
}

/// Adds the generation and its location to an error.
pub(crate) fn projection_error(
    generation_id: ProjectionGeneration,
    store: &Arc<dyn ProjectionStore>,
    source: ProjectionError,
) -> ProjectionsError {
    ProjectionsError::Projection { generation_id, location: store.to_string(), source }
}
