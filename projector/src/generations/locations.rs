//! The locations of the generations.

use std::path::PathBuf;
use std::sync::Arc;

use chat_domain::Position;
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_files::{generation_path, stored_generations};
use chat_ports::read_model::ReadModelStorage;

use super::registry::GenerationHistory;
use crate::projection::{ProjectionError, ProjectionStore};
use crate::read_model::ReadModelProjectionStore;
use crate::search::SearchIndexStore;

/// The locations of the first generations. Later ones are stored beside them.
#[derive(Clone, Debug)]
pub struct ProjectionLocations {
    /// The read model.
    pub read_model: Arc<dyn ReadModelStorage>,
    /// The folder of the search index.
    pub search_index: PathBuf,
}

impl ProjectionLocations {
    /// Returns the storage of a generation of the read model.
    pub fn read_model(&self, generation: Generation) -> Arc<dyn ReadModelStorage> {
        self.read_model.for_generation(generation)
    }

    /// Returns the folder of a generation of the search index: `search-index.2` beside `search-index`.
    pub fn search_index(&self, generation: Generation) -> PathBuf {
        generation_path(&self.search_index, generation)
    }

    /// Lists the generations of a projection that are stored, whether the log knows them or not.
    pub async fn stored_generations(
        &self,
        projection: ProjectionName,
    ) -> Result<Vec<Generation>, ProjectionError> {
        match projection {
            ProjectionName::ReadModel => Ok(self.read_model.stored_generations().await?),
            ProjectionName::SearchIndex => stored_generations(&self.search_index)
                .map_err(|error| ProjectionError::Unavailable(Box::new(error))),
        }
    }

    /// Returns the storage of a generation.
    pub fn store(&self, id: ProjectionGeneration) -> Arc<dyn ProjectionStore> {
        match id.projection {
            ProjectionName::ReadModel => {
                Arc::new(ReadModelProjectionStore::from(self.read_model(id.generation)))
            }
            ProjectionName::SearchIndex => {
                Arc::new(SearchIndexStore { dir: self.search_index(id.generation) })
            }
        }
    }

    /// Returns the generation to start with. This is the live one, or the previous one if the live one is missing or
    /// behind it, for example after a promotion while this machine was off. A previous generation beyond `head`, the
    /// head of the log, is not used: it has events that the log has lost.
    pub(super) async fn initial_generation(
        &self,
        projection: ProjectionName,
        history: &GenerationHistory,
        head: Option<Position>,
    ) -> Generation {
        let Some(previous) = history.previous() else { return history.live };
        let position = async |generation| {
            self.store(ProjectionGeneration { projection, generation }).position().await.ok()
        };
        // A missing generation has no position: `None`, which is less than any position.
        match (position(history.live).await, position(previous).await) {
            (live_position, Some(previous_position))
                if live_position < Some(previous_position)
                    && head.is_none_or(|head| previous_position <= head) =>
            {
                previous
            }
            _ => history.live,
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_sqlite::SqliteReadModelStorage;

    use super::*;

    #[test]
    fn the_first_generation_has_no_number_and_the_others_are_beside_it() {
        let locations = ProjectionLocations {
            read_model: Arc::new(SqliteReadModelStorage::new("data/read-model.db")),
            search_index: "data/search-index".into(),
        };
        let location = |projection, number| {
            locations.store(ProjectionGeneration { projection, generation: Generation(number) }).to_string()
        };
        assert_eq!(location(ProjectionName::ReadModel, 1), "data/read-model.db");
        assert_eq!(location(ProjectionName::ReadModel, 2), "data/read-model.2.db");
        assert_eq!(location(ProjectionName::SearchIndex, 1), "data/search-index");
        assert_eq!(location(ProjectionName::SearchIndex, 12), "data/search-index.12");
    }
}
