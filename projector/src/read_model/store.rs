//! The projection store of the read model: connects the projector with the storage of any engine.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::heartbeat::HeartbeatStore;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::ReadModelStorage;

use super::projection::ReadModelProjection;
use crate::projection::{Projection, ProjectionError, ProjectionStore};

/// The [`ProjectionStore`] of the read model, in the [`ReadModelStorage`] of any engine.
#[derive(Clone, Debug)]
pub struct ReadModelProjectionStore {
    storage: Arc<dyn ReadModelStorage>,
}

impl ReadModelProjectionStore {
    /// Creates the projection store for this storage.
    pub fn new(storage: impl ReadModelStorage) -> Self {
        Self { storage: Arc::new(storage) }
    }
}

impl From<Arc<dyn ReadModelStorage>> for ReadModelProjectionStore {
    fn from(storage: Arc<dyn ReadModelStorage>) -> Self {
        Self { storage }
    }
}

#[async_trait]
impl ProjectionStore for ReadModelProjectionStore {
    fn projection(&self) -> ProjectionName {
        ProjectionName::ReadModel
    }

    fn pacing(&self) -> BatchPacing {
        self.storage.pacing()
    }

    fn heartbeats(&self) -> Box<dyn HeartbeatStore> {
        self.storage.heartbeats()
    }

    async fn open(&self) -> Result<(Box<dyn Projection>, StorageOrigin), ProjectionError> {
        let (writer, origin) = self.storage.open().await?;
        Ok((Box::new(ReadModelProjection::load(writer).await?), origin))
    }

    async fn recreate(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let writer = self.storage.recreate().await?;
        Ok(Box::new(ReadModelProjection::load(writer).await?))
    }

    async fn recreate_for_other_log(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let writer = self.storage.recreate_for_other_log().await?;
        Ok(Box::new(ReadModelProjection::load(writer).await?))
    }

    async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let writer = self.storage.open_dry_run().await?;
        Ok(Box::new(ReadModelProjection::load(writer).await?))
    }

    async fn remove(&self) -> Result<(), ProjectionError> {
        Ok(self.storage.remove().await?)
    }

    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(self.storage.verify().await?)
    }

    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ProjectionError> {
        Ok(self.storage.checkpoint().await?)
    }

    async fn position(&self) -> Result<Position, ProjectionError> {
        Ok(self.storage.reader().position().await?)
    }

    async fn dead_letter_count(&self) -> Result<u64, ProjectionError> {
        let (_, count) = self.storage.reader().dead_letters(0).await?;
        Ok(count)
    }

    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ProjectionError> {
        Ok(self.storage.reader().dead_letter_page(query).await?)
    }

    async fn contents(&self) -> Result<(Position, ProjectionContents), ProjectionError> {
        let snapshot = self.storage.reader().contents().await?;
        Ok((snapshot.position, snapshot.value))
    }

    async fn size_in_bytes(&self) -> Option<u64> {
        self.storage.size_in_bytes().await
    }
}

impl fmt::Display for ReadModelProjectionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.storage.fmt(f)
    }
}
