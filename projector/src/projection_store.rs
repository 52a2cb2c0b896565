//! Where each generation of the projections is kept. Nothing else knows how generations are told apart on disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chat_domain::Position;
use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_files::durable_fs::path_with_suffix;
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::event_store::EventStore;
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::ReadModel;
use chat_ports::search_index::SearchError;
use chat_postgres::{PostgresHeartbeats, PostgresReadModel, PostgresReadModelWriter, PostgresUrl};
use chat_search::{TantivyIndex, TantivyIndexWriter};
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};
use tokio::sync::watch;

use crate::projection::{Projection, ProjectionError, ProjectionStore};
use crate::projector::{Projector, ProjectorHandle};
use crate::read_model::{PostgresReadModelStore, ReadModelProjection, SqliteReadModelStore};
use crate::runner::RecoveryPolicy;
use crate::search::{SearchIndexStore, SearchProjection};

/// A place of the read model.
#[derive(Clone, Debug)]
pub enum ReadModelLocation {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A namespace of a Postgres database.
    Postgres(Box<PostgresUrl>),
}

impl ReadModelLocation {
    /// Where a generation is, told from where the first one is: `read-model.2.db` beside `read-model.db`, the namespace
    /// `chat_read_model_2` beside `chat_read_model`.
    #[must_use]
    pub fn of(&self, generation: Generation) -> Self {
        match self {
            place if generation == Generation::FIRST => place.clone(),
            Self::Sqlite(path) => Self::Sqlite(generation_path(path, generation)),
            Self::Postgres(url) => Self::Postgres(Box::new(url.for_generation(generation.0))),
        }
    }

    /// The side that queries read.
    pub fn reader(&self) -> Arc<dyn ReadModel> {
        match self {
            Self::Sqlite(path) => Arc::new(SqliteReadModel::new(path.clone())),
            Self::Postgres(url) => Arc::new(PostgresReadModel::new(PostgresUrl::clone(url))),
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

/// Where the first generations are. The others are beside them.
#[derive(Clone, Debug)]
pub struct ProjectionLocations {
    /// The read model.
    pub read_model: ReadModelLocation,
    /// The folder of the search index.
    pub search_index: PathBuf,
}

/// Where one generation of one projection is.
#[derive(Clone, Debug)]
pub enum ProjectionLocation {
    /// Of the read model.
    ReadModel(ReadModelLocation),
    /// Of the search index: a folder.
    SearchIndex(PathBuf),
}

impl ProjectionLocations {
    /// Where the read model's generation is.
    pub fn read_model(&self, generation: Generation) -> ReadModelLocation {
        self.read_model.of(generation)
    }

    /// Where the search index's generation is: `search-index.2` beside `search-index`.
    pub fn search_index(&self, generation: Generation) -> PathBuf {
        if generation == Generation::FIRST {
            return self.search_index.clone();
        }
        generation_path(&self.search_index, generation)
    }

    /// Where a copy is.
    pub fn of(&self, copy: ProjectionGeneration) -> ProjectionLocation {
        match copy.projection {
            ProjectionName::ReadModel => ProjectionLocation::ReadModel(self.read_model(copy.generation)),
            ProjectionName::SearchIndex => {
                ProjectionLocation::SearchIndex(self.search_index(copy.generation))
            }
        }
    }
}

impl ProjectionLocation {
    /// Up to where it has folded the log. Opens it anew.
    pub async fn position(&self) -> Result<Position, ProjectionError> {
        match self {
            Self::ReadModel(rows) => Ok(rows.reader().position().await?),
            Self::SearchIndex(dir) => {
                let dir = dir.clone();
                run_blocking(move || Ok(TantivyIndex::open(&dir)?.position())).await
            }
        }
    }

    /// How many events it has parked.
    pub async fn dead_letter_count(&self) -> Result<u64, ProjectionError> {
        match self {
            Self::ReadModel(rows) => Ok(rows.reader().dead_letters(0).await?.1),
            Self::SearchIndex(dir) => {
                let dir = dir.clone();
                run_blocking(move || Ok(TantivyIndex::open(&dir)?.dead_letters(0)?.1)).await
            }
        }
    }

    /// A page of events that it has parked or that were discarded, and how many of each there are.
    pub async fn letters(&self, list: DeadLetterQuery) -> Result<DeadLetterPage, ProjectionError> {
        match self {
            Self::ReadModel(rows) => Ok(rows.reader().letters(list).await?),
            Self::SearchIndex(dir) => {
                let dir = dir.clone();
                run_blocking(move || TantivyIndex::open(&dir)?.dead_letter_page(&list)).await
            }
        }
    }

    /// Opens it for writing, where it is. [`ProjectionError::InUse`] while a projector has it.
    pub async fn open(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        Ok(match self.clone() {
            Self::ReadModel(ReadModelLocation::Sqlite(path)) => {
                Box::new(SqliteReadModelStore { path }.open().await?.0)
            }
            Self::ReadModel(ReadModelLocation::Postgres(url)) => {
                Box::new(PostgresReadModelStore { url: *url }.open().await?.0)
            }
            Self::SearchIndex(dir) => Box::new(SearchIndexStore { dir }.open().await?.0),
        })
    }

    /// Opens it beside whoever writes it, to find out what acts would come to; nothing of it is stored. Of SQL engines the
    /// writer waits until it is dropped.
    pub async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        Ok(match self.clone() {
            Self::ReadModel(ReadModelLocation::Sqlite(path)) => {
                let opened = tokio::task::spawn_blocking(move || SqliteReadModelWriter::open_dry_run(&path));
                let writer =
                    opened.await.map_err(|ended| ProjectionError::Unavailable(Box::new(ended)))??;
                Box::new(ReadModelProjection::load(writer).await?)
            }
            Self::ReadModel(ReadModelLocation::Postgres(url)) => {
                let writer = PostgresReadModelWriter::open_dry_run(&url).await?;
                Box::new(ReadModelProjection::load(writer).await?)
            }
            Self::SearchIndex(dir) => Box::new(
                run_blocking(move || Ok(SearchProjection::dry_run(TantivyIndex::open(&dir)?))).await?,
            ),
        })
    }

    /// All that it holds, and as of which position. Reads everything.
    pub async fn contents(&self) -> Result<(Position, ProjectionContents), ProjectionError> {
        match self {
            Self::ReadModel(rows) => {
                let snapshot = rows.reader().contents().await?;
                Ok((snapshot.position, snapshot.value))
            }
            Self::SearchIndex(dir) => {
                let dir = dir.clone();
                run_blocking(move || TantivyIndex::open(&dir)?.contents()).await
            }
        }
    }

    /// How many bytes of disk it takes; `None` where that can't be told.
    pub async fn size_in_bytes(&self) -> Option<u64> {
        match self {
            Self::ReadModel(ReadModelLocation::Postgres(url)) => {
                PostgresReadModel::new(PostgresUrl::clone(url)).disk_bytes().await.ok()
            }
            Self::ReadModel(ReadModelLocation::Sqlite(path)) => {
                let wal = path_with_suffix(path, "-wal");
                Some(fs::metadata(path).ok()?.len() + fs::metadata(wal).map_or(0, |file| file.len()))
            }
            Self::SearchIndex(dir) => folder_size_in_bytes(dir).ok(),
        }
    }

    /// The notice of whoever is at work on it in a capacity.
    pub async fn heartbeat(&self, capacity: ProjectorRole) -> Option<Heartbeat> {
        match self {
            Self::ReadModel(ReadModelLocation::Postgres(url)) => {
                PostgresHeartbeats::new(PostgresUrl::clone(url)).read(capacity).await.ok()?
            }
            Self::ReadModel(ReadModelLocation::Sqlite(path)) | Self::SearchIndex(path) => {
                FileHeartbeats::for_path(path).read(capacity)
            }
        }
    }

    /// Starts a projector here.
    pub fn spawn_projector(
        &self,
        log: Arc<dyn EventStore>,
        shutdown: watch::Receiver<bool>,
    ) -> ProjectorHandle {
        self.spawn_projector_with(RecoveryPolicy::Rebuild, log, shutdown)
    }

    /// Like [`Place::project`], with a say in what becomes of a projection that is of no use any more.
    pub fn spawn_projector_with(
        &self,
        policy: RecoveryPolicy,
        log: Arc<dyn EventStore>,
        shutdown: watch::Receiver<bool>,
    ) -> ProjectorHandle {
        match self.clone() {
            Self::ReadModel(ReadModelLocation::Sqlite(path)) => {
                Projector::spawn_with(policy, log, SqliteReadModelStore { path }, shutdown)
            }
            Self::ReadModel(ReadModelLocation::Postgres(url)) => {
                Projector::spawn_with(policy, log, PostgresReadModelStore { url: *url }, shutdown)
            }
            Self::SearchIndex(dir) => Projector::spawn_with(policy, log, SearchIndexStore { dir }, shutdown),
        }
    }

    /// Removes it for good. [`ProjectionError::InUse`] while a projector has it.
    pub async fn remove(&self) -> Result<(), ProjectionError> {
        match self.clone() {
            Self::ReadModel(ReadModelLocation::Postgres(url)) => {
                Ok(PostgresReadModelWriter::remove(&url).await?)
            }
            Self::ReadModel(ReadModelLocation::Sqlite(path)) => {
                let removed = tokio::task::spawn_blocking(move || SqliteReadModelWriter::remove(&path));
                Ok(removed.await.map_err(|ended| ProjectionError::Unavailable(Box::new(ended)))??)
            }
            Self::SearchIndex(dir) => run_blocking(move || TantivyIndexWriter::remove(&dir)).await,
        }
    }
}

impl fmt::Display for ProjectionLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadModel(ReadModelLocation::Postgres(url)) => {
                write!(f, "{url}, namespace {}", url.schema_name())
            }
            Self::ReadModel(ReadModelLocation::Sqlite(path)) | Self::SearchIndex(path) => {
                path.display().fmt(f)
            }
        }
    }
}

/// `read-model.2.db` for `read-model.db`, `search-index.2` for `search-index`.
fn generation_path(path: &Path, generation: Generation) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{}", generation.0));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

fn folder_size_in_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        // A file that a merge has just removed counts nothing.
        bytes += entry?.metadata().map_or(0, |file| file.len());
    }
    Ok(bytes)
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SearchError> + Send + 'static,
) -> Result<T, ProjectionError> {
    let ended = |error| ProjectionError::Unavailable(Box::new(error));
    Ok(tokio::task::spawn_blocking(work).await.map_err(ended)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_generation_is_where_it_always_was_and_the_others_are_beside_it() {
        let places = ProjectionLocations {
            read_model: ReadModelLocation::Sqlite("data/read-model.db".into()),
            search_index: "data/search-index".into(),
        };
        let shown = |projection, number| {
            places.of(ProjectionGeneration { projection, generation: Generation(number) }).to_string()
        };
        assert_eq!(shown(ProjectionName::ReadModel, 1), "data/read-model.db");
        assert_eq!(shown(ProjectionName::ReadModel, 2), "data/read-model.2.db");
        assert_eq!(shown(ProjectionName::SearchIndex, 1), "data/search-index");
        assert_eq!(shown(ProjectionName::SearchIndex, 12), "data/search-index.12");
        assert_eq!(generation_path(Path::new("rows"), Generation(3)), Path::new("rows.3"));
    }
}
