//! The read model in a SQLite file, as a place for the projection.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::read_model::ReadModelError;
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};

use super::{NAME, ReadModelProjection};
use crate::heartbeats::HeartbeatPublisher;
use crate::projection::{BatchPacing, ProjectionError, ProjectionStore};

/// The read model in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteReadModelStore {
    /// The file.
    pub path: PathBuf,
}

#[async_trait]
impl ProjectionStore for SqliteReadModelStore {
    type Projection = ReadModelProjection<SqliteReadModelWriter>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn pacing(&self) -> BatchPacing {
        // A commit writes a page for each chat that it touches, and one that holds few events costs each of them several
        // times as much. Under load they are gathered for as long as nobody notices.
        BatchPacing {
            max_events: 32_768,
            max_bytes: 24 << 20,
            rest_factor: 3.0,
            max_rest: Duration::from_millis(6),
        }
    }

    async fn open(&self) -> Result<(Self::Projection, StorageOrigin), ProjectionError> {
        let path = self.path.clone();
        let (writer, opened) = run_blocking(move || SqliteReadModelWriter::open(&path)).await?;
        Ok((ReadModelProjection::load(writer).await?, opened))
    }

    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(SqliteReadModel::new(&self.path).verify().await?)
    }

    fn heartbeats(&self) -> Option<Box<dyn HeartbeatPublisher>> {
        Some(Box::new(FileHeartbeats::for_path(&self.path)))
    }

    async fn recreate(&self) -> Result<Self::Projection, ProjectionError> {
        let path = self.path.clone();
        let writer = run_blocking(move || SqliteReadModelWriter::recreate(&path)).await?;
        Ok(ReadModelProjection::load(writer).await?)
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadModelError> + Send + 'static,
) -> Result<T, ReadModelError> {
    let ended = |error| ReadModelError::Unavailable(Box::new(error));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}
