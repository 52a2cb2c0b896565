//! The context of projection commands: the log and the locations of the projections.

use std::fmt;
use std::sync::Arc;

use chat_domain::Position;
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::event_store::{EventStore, LogLineage, LogMismatch};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_projector::generations::{Generations, ProjectionLocations};
use chat_projector::projection::ProjectionStore;
use serde::{Deserialize, Serialize};

use super::error::{ProjectionsError, projection_error};
use crate::operator_actions::ensure_takes_appends;

/// The log, and the locations of the projections that are built from it.
#[derive(Clone)]
pub struct Projections {
    /// The log.
    pub log: Arc<dyn EventStore>,
    /// The locations of the projections.
    pub locations: ProjectionLocations,
}

impl Projections {
    /// Loads the generations that the log records.
    pub async fn generations(&self) -> Result<Generations, ProjectionsError> {
        Ok(Generations::load(&*self.log).await?)
    }

    /// The store of a generation.
    pub(crate) fn store(&self, generation_id: ProjectionGeneration) -> Arc<dyn ProjectionStore> {
        self.locations.store(generation_id)
    }

    /// The position up to which a generation is built.
    pub(crate) async fn position(
        &self,
        generation_id: ProjectionGeneration,
    ) -> Result<Position, ProjectionsError> {
        let store = self.store(generation_id);
        store.position().await.map_err(|source| projection_error(generation_id, &store, source))
    }

    /// The position up to which a generation is built; `None` if that can't be read.
    pub(crate) async fn stored_position(
        &self,
        projection: ProjectionName,
        generation: Generation,
    ) -> Option<Position> {
        self.store(ProjectionGeneration { projection, generation }).position().await.ok()
    }

    /// Removes the stored data of a generation.
    pub(crate) async fn remove_stored(
        &self,
        generation_id: ProjectionGeneration,
    ) -> Result<(), ProjectionsError> {
        let store = self.store(generation_id);
        let removed = store.remove().await;
        removed.map_err(|source| projection_error(generation_id, &store, source))
    }

    /// The live generation of a projection.
    pub(crate) async fn live_generation(
        &self,
        projection: ProjectionName,
    ) -> Result<ProjectionGeneration, ProjectionsError> {
        let generation = self.generations().await?.live().for_projection(projection);
        Ok(ProjectionGeneration { projection, generation })
    }

    /// Fails if the log takes no appends, as while it has lost events. A change of projections would wait for events
    /// that are lost, or remove what is left of them.
    pub(crate) fn ensure_log_takes_appends(&self) -> Result<(), ProjectionsError> {
        ensure_takes_appends(&*self.log).map_err(|closed| ProjectionsError::NotFound(closed.to_string()))
    }

    /// Fails if one of these generations is live.
    pub(super) async fn ensure_not_live(
        &self,
        generation_ids: &[ProjectionGeneration],
    ) -> Result<(), ProjectionsError> {
        let live = self.generations().await?.live();
        let is_live = |id: &&ProjectionGeneration| live.for_projection(id.projection) == id.generation;
        match generation_ids.iter().find(is_live) {
            Some(generation_id) => Err(ProjectionsError::already_live(*generation_id)),
            None => Ok(()),
        }
    }

    /// Fails if one of these generations has events that the log has lost. A generation that can't be read passes.
    pub(super) async fn ensure_within_log(
        &self,
        generation_ids: &[ProjectionGeneration],
    ) -> Result<(), ProjectionsError> {
        for generation_id in generation_ids {
            if let Some(mismatch) = self.mismatch_with_log(*generation_id).await? {
                self.ensure_log_takes_appends()?;
                let (name, number) = (generation_id.projection.as_str(), generation_id.generation.0);
                // Without the name, the command would drop the generation of each projection.
                return Err(ProjectionsError::NotFound(format!(
                    "generation {number} of {name} can't be used: {mismatch}; `projections drop {} --generation {number}` \
                     removes it, with the lost events in it",
                    name.replace('_', "-")
                )));
            }
        }
        Ok(())
    }

    /// Returns why a generation can't be used with the log; `None` if it can be, or can't be read.
    pub(super) async fn mismatch_with_log(
        &self,
        generation_id: ProjectionGeneration,
    ) -> Result<Option<LogMismatch>, ProjectionsError> {
        let lineage = self.log.lineage().await?;
        let Ok(checkpoint) = self.store(generation_id).checkpoint().await else { return Ok(None) };
        // After the checkpoint: a projector may have applied later events meanwhile.
        let head = self.log.head().await?;
        Ok(find_mismatch(&checkpoint, &lineage, head))
    }

    /// Whether the log has no event after the position `after`, up to and including `up_to`.
    pub(super) async fn has_no_events_between(
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

/// Returns why a generation with this checkpoint can't be used with the log: it has events that the log has not.
pub(crate) fn find_mismatch(
    checkpoint: &ProjectionCheckpoint,
    lineage: &LogLineage,
    head: Position,
) -> Option<LogMismatch> {
    lineage.check(checkpoint.log?, checkpoint.position, head).err()
}

/// A generation as reports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationName {
    /// The projection's name.
    pub projection: ProjectionName,
    /// The number of the generation.
    pub generation: Generation,
}

impl fmt::Display for GenerationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.projection.as_str(), self.generation.0)
    }
}

impl From<ProjectionGeneration> for GenerationName {
    fn from(id: ProjectionGeneration) -> Self {
        Self { projection: id.projection, generation: id.generation }
    }
}
