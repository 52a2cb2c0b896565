//! The storage of a read model in a Postgres schema.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::projection::Generation;
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::heartbeat::HeartbeatStore;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::read_model::{ReadModel, ReadModelError, ReadModelStorage, ReadModelWriter, StorageLock};

use super::heartbeats::PostgresHeartbeats;
use super::reader::PostgresReadModel;
use super::url::PostgresUrl;
use super::writer::{NamedLock, PostgresReadModelWriter};

/// The read model in a schema of a Postgres database.
#[derive(Clone, Debug)]
pub struct PostgresReadModelStorage {
    url: PostgresUrl,
}

impl PostgresReadModelStorage {
    /// Creates the storage in the schema of `url`. The schema need not exist.
    pub fn new(url: PostgresUrl) -> Self {
        Self { url }
    }
}

#[async_trait]
impl ReadModelStorage for PostgresReadModelStorage {
    fn for_generation(&self, generation: Generation) -> Arc<dyn ReadModelStorage> {
        Arc::new(Self { url: self.url.of_generation(generation) })
    }

    async fn stored_generations(&self) -> Result<Vec<Generation>, ReadModelError> {
        self.url.stored_generation_numbers().await
    }

    fn pacing(&self) -> BatchPacing {
        // A commit takes several round trips, whatever the size of its batch, so batches are large.
        BatchPacing {
            max_events: 32_768,
            max_bytes: 24 << 20,
            rest_factor: 4.0,
            max_rest: Duration::from_millis(8),
            min_live_rest: Duration::ZERO,
        }
    }

    fn heartbeats(&self) -> Box<dyn HeartbeatStore> {
        Box::new(PostgresHeartbeats::new(self.url.clone()))
    }

    fn reader(&self) -> Arc<dyn ReadModel> {
        Arc::new(PostgresReadModel::new(self.url.clone()))
    }

    async fn open(&self) -> Result<(Arc<dyn ReadModelWriter>, StorageOrigin), ReadModelError> {
        let (writer, origin) = PostgresReadModelWriter::open(&self.url).await?;
        Ok((Arc::new(writer), origin))
    }

    async fn recreate(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError> {
        Ok(Arc::new(PostgresReadModelWriter::recreate(&self.url).await?))
    }

    async fn recreate_for_other_log(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError> {
        Ok(Arc::new(PostgresReadModelWriter::recreate_for_other_log(&self.url).await?))
    }

    async fn open_dry_run(&self) -> Result<Arc<dyn ReadModelWriter>, ReadModelError> {
        Ok(Arc::new(PostgresReadModelWriter::open_dry_run(&self.url).await?))
    }

    async fn remove(&self) -> Result<(), ReadModelError> {
        PostgresReadModelWriter::remove(&self.url).await
    }

    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError> {
        PostgresReadModel::new(self.url.clone()).checkpoint().await
    }

    async fn verify(&self) -> Result<(), ReadModelError> {
        PostgresReadModel::new(self.url.clone()).verify().await
    }

    async fn size_in_bytes(&self) -> Option<u64> {
        PostgresReadModel::new(self.url.clone()).disk_bytes().await.ok()?
    }

    async fn lock(&self, name: &'static str) -> Result<Box<dyn StorageLock>, ReadModelError> {
        Ok(Box::new(NamedLock::acquire(&self.url, name).await?))
    }
}

impl fmt::Display for PostgresReadModelStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, schema {}", self.url, self.url.schema_name())
    }
}
