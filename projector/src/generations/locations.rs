//! The locations of the generations. Only this file knows how generations are named on disk and in a database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::read_model::ReadModel;
use chat_postgres::{PostgresReadModel, PostgresUrl};
use chat_sqlite::SqliteReadModel;

use super::registry::GenerationHistory;
use crate::projection::ProjectionStore;
use crate::read_model::{PostgresReadModelStore, SqliteReadModelStore};
use crate::search::SearchIndexStore;

/// The locations of the first generations. Later ones are stored beside them.
#[derive(Clone, Debug)]
pub struct ProjectionLocations {
    /// The read model.
    pub read_model: ReadModelLocation,
    /// The folder of the search index.
    pub search_index: PathBuf,
}

/// The location of a read model.
#[derive(Clone, Debug)]
pub enum ReadModelLocation {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A schema of a Postgres database.
    Postgres(Box<PostgresUrl>),
}

impl ProjectionLocations {
    /// Returns the location of a generation of the read model.
    pub fn read_model(&self, generation: Generation) -> ReadModelLocation {
        self.read_model.for_generation(generation)
    }

    /// Returns the folder of a generation of the search index: `search-index.2` beside `search-index`.
    pub fn search_index(&self, generation: Generation) -> PathBuf {
        generation_path(&self.search_index, generation)
    }

    /// Returns the storage of a generation.
    pub fn store(&self, id: ProjectionGeneration) -> Arc<dyn ProjectionStore> {
        match id.projection {
            ProjectionName::ReadModel => self.read_model(id.generation).store(),
            ProjectionName::SearchIndex => {
                Arc::new(SearchIndexStore { dir: self.search_index(id.generation) })
            }
        }
    }

    /// Returns the generation to start with: the live one, unless it does not exist yet or is behind the one before it, as
    /// after a promotion while this machine was off.
    pub(super) async fn initial_generation(
        &self,
        projection: ProjectionName,
        history: &GenerationHistory,
    ) -> Generation {
        let Some(previous) = history.previous() else { return history.live };
        let position = async |generation| {
            self.store(ProjectionGeneration { projection, generation }).position().await.ok()
        };
        match (position(history.live).await, position(previous).await) {
            (now, Some(before)) if now < Some(before) => previous,
            _ => history.live,
        }
    }
}

impl ReadModelLocation {
    /// Returns the location of a generation, given that of the first one: `read-model.2.db` beside `read-model.db`, the
    /// schema `chat_read_model_2` beside `chat_read_model`.
    fn for_generation(&self, generation: Generation) -> Self {
        match self {
            Self::Sqlite(path) => Self::Sqlite(generation_path(path, generation)),
            first if generation == Generation::FIRST => first.clone(),
            Self::Postgres(url) => Self::Postgres(Box::new(url.for_generation(generation.0))),
        }
    }

    /// Returns the read model for queries.
    pub fn reader(&self) -> Arc<dyn ReadModel> {
        match self {
            Self::Sqlite(path) => Arc::new(SqliteReadModel::new(path.clone())),
            Self::Postgres(url) => Arc::new(PostgresReadModel::new(PostgresUrl::clone(url))),
        }
    }

    fn store(self) -> Arc<dyn ProjectionStore> {
        match self {
            Self::Sqlite(path) => Arc::new(SqliteReadModelStore { path }),
            Self::Postgres(url) => Arc::new(PostgresReadModelStore { url: *url }),
        }
    }
}

impl fmt::Display for ReadModelLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// Returns the path of a generation: `read-model.2.db` for `read-model.db`, `search-index.2` for `search-index`. The first
/// generation has no number.
fn generation_path(first: &Path, generation: Generation) -> PathBuf {
    if generation == Generation::FIRST {
        return first.to_owned();
    }
    let mut name = first.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{}", generation.0));
    if let Some(extension) = first.extension() {
        name.push(".");
        name.push(extension);
    }
    first.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_generation_has_no_number_and_the_others_are_beside_it() {
        let locations = ProjectionLocations {
            read_model: ReadModelLocation::Sqlite("data/read-model.db".into()),
            search_index: "data/search-index".into(),
        };
        let location = |projection, number| {
            locations.store(ProjectionGeneration { projection, generation: Generation(number) }).to_string()
        };
        assert_eq!(location(ProjectionName::ReadModel, 1), "data/read-model.db");
        assert_eq!(location(ProjectionName::ReadModel, 2), "data/read-model.2.db");
        assert_eq!(location(ProjectionName::SearchIndex, 1), "data/search-index");
        assert_eq!(location(ProjectionName::SearchIndex, 12), "data/search-index.12");
        assert_eq!(generation_path(Path::new("rows"), Generation(3)), Path::new("rows.3"));
    }
}
