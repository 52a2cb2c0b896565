//! Operator commands for projections, beside running readers and writers.
//!
//! A rebuild ([`rebuild`]) builds a new generation in a location of its own, beside the live one. It is compared with the
//! live one ([`compare`]) and then promoted ([`switch_over`]), which is one event in the operators' stream: every process
//! switches over by itself. The previous generation stays, so that a rollback is one event, too. [`verify`] folds the log
//! again in a scratch build, without making a generation of it.

pub mod compare;
mod context;
mod drop_generations;
mod error;
mod explain;
mod handover;
pub mod list;
mod local_projectors;
pub mod rebuild;
mod scratch_build;
pub mod switch_over;
pub mod verify;

<<<<<<< HEAD
pub use context::{GenerationName, Projections};
=======
use std::sync::Arc;

use chat_domain::Position;
use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_projector::generations::{Generations, ProjectionLocations};
use chat_projector::projection::{ProjectionError, ProjectionStore};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::watch;

use crate::operator_actions::OperatorActionError;

>>>>>>> projector
pub use drop_generations::drop_generations;
pub use error::ProjectionsError;
pub(crate) use error::projection_error;
pub use explain::{DivergingEvent, ExplainedDifference};
pub use local_projectors::{Phase, Progress};
<<<<<<< HEAD
=======

/// The log and the places of the projections that are folded from it.
#[derive(Clone)]
pub struct Projections {
    /// The log.
    pub log: Arc<dyn EventStore>,
    /// Where the projections are.
    pub places: ProjectionLocations,
}

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum ProjectionsError {
    /// The log could not be read.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// A projection could not be read or written.
    #[error("{} {} in {location}", .generation_id.projection.as_str(), .generation_id.generation.0)]
    Projection {
        /// Which one.
        generation_id: ProjectionGeneration,
        /// Where it is.
        location: String,
        /// What was wrong.
        #[source]
        source: ProjectionError,
    },
    /// What was folded off to one side could not be.
    #[error("the log could not be folded off to one side")]
    ScratchBuild(#[source] ProjectionError),
    /// No place for what is folded off to one side.
    #[error("there is no room to fold the log off to one side")]
    ScratchFolder(#[source] std::io::Error),
    /// The act could not be recorded.
    #[error(transparent)]
    OperatorAction(#[from] OperatorActionError),
    /// There is nothing of the kind that was asked for.
    #[error("{0}")]
    NotFound(String),
    /// Somebody else is at work on it.
    #[error("{0}")]
    Busy(String),
    /// It does not get on.
    #[error("{} {} does not get on: {error}", .generation_id.projection.as_str(), .generation_id.generation.0)]
    Stalled {
        /// Which one.
        generation_id: ProjectionGeneration,
        /// What its projector says.
        error: String,
    },
    /// It was asked to stop.
    #[error("stopped as asked; what was built stays, and the same command goes on from there")]
    Interrupted,
}

impl Projections {
    /// Which generations there are.
    pub async fn generations(&self) -> Result<Generations, ProjectionsError> {
        Ok(Generations::load(&*self.log).await?)
    }

    pub(crate) fn location(&self, copy: ProjectionGeneration) -> Arc<dyn ProjectionStore> {
        self.places.store(copy)
    }

    pub(crate) async fn position(&self, copy: ProjectionGeneration) -> Result<Position, ProjectionsError> {
        let place = self.location(copy);
        place.position().await.map_err(|source| projection_error(copy, &place, source))
    }

    /// Whether nothing lies between two positions that a projection would fold.
    async fn has_no_events_between(
        &self,
        after: Position,
        up_to: Position,
    ) -> Result<bool, ProjectionsError> {
        if after >= up_to {
            return Ok(true);
        }
        let next = self.log.read_all(after, 1).await?;
        Ok(next.first().is_none_or(|event| event.position > up_to))
    }
}

pub(crate) fn projection_error(
    copy: ProjectionGeneration,
    place: &Arc<dyn ProjectionStore>,
    source: ProjectionError,
) -> ProjectionsError {
    ProjectionsError::Projection { generation_id: copy, location: place.to_string(), source }
}

/// Completes when it is asked to stop; never where nobody can ask any more.
async fn cancelled(cancel: &watch::Receiver<bool>) {
    let mut cancel = cancel.clone();
    if cancel.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A generation, as answers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GenerationName {
    /// The projection's name.
    pub name: ProjectionName,
    /// Which generation.
    pub generation: Generation,
}

impl From<ProjectionGeneration> for GenerationName {
    fn from(copy: ProjectionGeneration) -> Self {
        Self { name: copy.projection, generation: copy.generation }
    }
}
>>>>>>> projector
