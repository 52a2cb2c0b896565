//! What operators ask of projections and do to them, while readers and writers go on.
//!
//! A projection is rebuilt beside the one that readers see ([`rebuild`]): a new generation in a place of its own. It is
//! compared with the live one ([`compare`]) and then promoted ([`switch`]), which is one event in the operators' stream:
//! every process switches by itself. The generation before stays, so that a rollback is one event, too. [`verify`] folds
//! the log again without making a generation of it.

mod aside;
pub mod compare;
mod drop;
mod explain;
mod fold;
mod handover;
pub mod list;
pub mod rebuild;
pub mod switch;
pub mod verify;

use std::sync::Arc;

use chat_domain::Position;
use chat_domain::operation::{Copy, Generation, ProjectionName};
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_projector::generations::Generations;
use chat_projector::places::{Place, ProjectionPlaces};
use chat_projector::projection::ProjectionError;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::watch;

use crate::acts::ActError;

pub use drop::drop_generations;
pub use explain::{Explained, FirstEvent};
pub use fold::{Phase, Progress};

/// The log and the places of the projections that are folded from it.
#[derive(Clone)]
pub struct Projections {
    /// The log.
    pub log: Arc<dyn EventStore>,
    /// Where the projections are.
    pub places: ProjectionPlaces,
}

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum ProjectionsError {
    /// The log could not be read.
    #[error("the event log can't be read")]
    Log(#[from] EventStoreError),
    /// A projection could not be read or written.
    #[error("{} {} in {place}", .copy.projection.as_str(), .copy.generation.0)]
    Projection {
        /// Which one.
        copy: Copy,
        /// Where it is.
        place: String,
        /// What was wrong.
        #[source]
        source: ProjectionError,
    },
    /// What was folded off to one side could not be.
    #[error("the log could not be folded off to one side")]
    Aside(#[source] ProjectionError),
    /// No place for what is folded off to one side.
    #[error("there is no room to fold the log off to one side")]
    NoRoom(#[source] std::io::Error),
    /// The act could not be recorded.
    #[error(transparent)]
    Act(#[from] ActError),
    /// There is nothing of the kind that was asked for.
    #[error("{0}")]
    Nothing(String),
    /// Somebody else is at work on it.
    #[error("{0}")]
    Busy(String),
    /// It does not get on.
    #[error("{} {} does not get on: {error}", .copy.projection.as_str(), .copy.generation.0)]
    Stuck {
        /// Which one.
        copy: Copy,
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
        Ok(Generations::read(&*self.log).await?)
    }

    pub(crate) fn place(&self, copy: Copy) -> Place {
        self.places.of(copy)
    }

    pub(crate) async fn position(&self, copy: Copy) -> Result<Position, ProjectionsError> {
        let place = self.place(copy);
        place.position().await.map_err(|source| failed(copy, &place, source))
    }

    /// Whether nothing lies between two positions that a projection would fold.
    async fn nothing_between(&self, after: Position, up_to: Position) -> Result<bool, ProjectionsError> {
        if after >= up_to {
            return Ok(true);
        }
        let next = self.log.read_all(after, 1).await?;
        Ok(next.first().is_none_or(|event| event.position > up_to))
    }
}

pub(crate) fn failed(copy: Copy, place: &Place, source: ProjectionError) -> ProjectionsError {
    ProjectionsError::Projection { copy, place: place.to_string(), source }
}

/// Completes when it is asked to stop; never where nobody can ask any more.
async fn asked_to_stop(cancel: &watch::Receiver<bool>) {
    let mut cancel = cancel.clone();
    if cancel.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A generation, as answers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The projection's name.
    pub name: ProjectionName,
    /// Which generation.
    pub generation: Generation,
}

impl From<Copy> for Named {
    fn from(copy: Copy) -> Self {
        Self { name: copy.projection, generation: copy.generation }
    }
}
