//! The storage of a read model in a SQLite file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::projection::Generation;
use chat_files::durable_fs::path_with_suffix;
use chat_files::heartbeat::FileHeartbeats;
use chat_files::{generation_path, stored_generations};
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::heartbeat::HeartbeatStore;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::read_model::{ReadModel, ReadModelError, ReadModelStorage, ReadModelWriter, StorageLock};
use tokio::task::spawn_blocking;

use super::file::FileLock;
use super::reader::SqliteReadModel;
use super::writer::SqliteReadModelWriter;

/// The read model in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteReadModelStorage {
    path: PathBuf,
}

impl SqliteReadModelStorage {
    /// The read model in the file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Runs `work` on a thread for blocking work.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, ReadModelError> + Send + 'static,
    ) -> Result<T, ReadModelError> {
        let path = self.path.clone();
        let done = spawn_blocking(move || work(&path)).await;
        done.map_err(|error| ReadModelError::Unavailable(error.into()))?
    }
}

#[async_trait]
impl ReadModelStorage for SqliteReadModelStorage {
    fn for_generation(&self, generation: Generation) -> Arc<dyn ReadModelStorage> {
        Arc::new(Self { path: generation_path(&self.path, generation) })
    }

    async fn stored_generations(&self) -> Result<Vec<Generation>, ReadModelError> {
        let list =
            |path: &Path| stored_generations(path).map_err(|error| ReadModelError::Unavailable(error.into()));
        self.run(list).await
    }

    fn pacing(&self) -> BatchPacing {
        // A commit writes a page for each chat that it changes, so a small commit costs several times as much for each
        // event as a large one. Under load, events are gathered for a time too short for a client to notice.
        BatchPacing {
            max_events: 32_768,
            max_bytes: 24 << 20,
            rest_factor: 3.0,
            max_rest: Duration::from_millis(6),
            min_live_rest: Duration::ZERO,
        }
    }

    fn heartbeats(&self) -> Box<dyn HeartbeatStore> {
        Box::new(FileHeartbeats::for_path(&self.path))
    }

    fn reader(&self) -> Arc<dyn ReadModel> {
        Arc::new(SqliteReadModel::new(&self.path))
    }

    async fn open(&self) -> Result<(Arc<dyn ReadModelWriter>, StorageOrigin), ReadModelError> {
        let (writer, origin) = self.run(SqliteReadModelWriter::open).await?;
        Ok((Arc::new(writer), origin))
    }

    async fn recreate(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError> {
        Ok(Arc::new(self.run(SqliteReadModelWriter::recreate).await?))
    }

    async fn recreate_for_other_log(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError> {
        Ok(Arc::new(self.run(SqliteReadModelWriter::recreate_for_other_log).await?))
    }

    async fn open_dry_run(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError> {
        Ok(Arc::new(self.run(SqliteReadModelWriter::open_dry_run).await?))
    }

    async fn remove(&self) -> Result<(), ReadModelError> {
        self.run(SqliteReadModelWriter::remove).await
    }

    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError> {
        SqliteReadModel::new(&self.path).checkpoint().await
    }

    async fn verify(&self) -> Result<(), ReadModelError> {
        SqliteReadModel::new(&self.path).verify().await
    }

    async fn size_in_bytes(&self) -> Option<u64> {
        let wal = path_with_suffix(&self.path, "-wal");
        Some(fs::metadata(&self.path).ok()?.len() + fs::metadata(wal).map_or(0, |file| file.len()))
    }

    async fn lock(&self, name: &'static str) -> Result<Box<dyn StorageLock>, ReadModelError> {
        let lock = self.run(move |path| FileLock::acquire_named(path, name)).await?;
        Ok(Box::new(lock))
    }
}

#[async_trait]
impl StorageLock for FileLock {
    async fn is_held(&self) -> bool {
        // The operating system releases the lock only when the file is closed.
        true
    }
}

impl fmt::Display for SqliteReadModelStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
