//! The storage of a read model in a Postgres schema.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::ReadModel;
use chat_postgres::{PostgresHeartbeats, PostgresReadModel, PostgresReadModelWriter, PostgresUrl};

use super::projection::ReadModelProjection;
use crate::generations::heartbeats::HeartbeatStore;
use crate::projection::{BatchPacing, Projection, ProjectionError, ProjectionStore};

/// The read model in a schema of a Postgres database.
#[derive(Clone, Debug)]
pub struct PostgresReadModelStore {
    /// The database and the schema.
    pub url: PostgresUrl,
}

impl PostgresReadModelStore {
    fn reader(&self) -> PostgresReadModel {
        PostgresReadModel::new(self.url.clone())
    }
}

#[async_trait]
impl ProjectionStore for PostgresReadModelStore {
    fn projection(&self) -> ProjectionName {
        ProjectionName::ReadModel
    }

    fn pacing(&self) -> BatchPacing {
        // A commit takes several round trips. Under load, more events share them.
        BatchPacing {
            max_events: 32_768,
            max_bytes: 24 << 20,
            rest_factor: 4.0,
            max_rest: Duration::from_millis(8),
        }
    }

    fn heartbeats(&self) -> Box<dyn HeartbeatStore> {
        Box::new(PostgresHeartbeats::new(self.url.clone()))
    }

    async fn open(&self) -> Result<(Box<dyn Projection>, StorageOrigin), ProjectionError> {
        let (writer, origin) = PostgresReadModelWriter::open(&self.url).await?;
        Ok((Box::new(ReadModelProjection::load(writer).await?), origin))
    }

    async fn recreate(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let writer = PostgresReadModelWriter::recreate(&self.url).await?;
        Ok(Box::new(ReadModelProjection::load(writer).await?))
    }

    async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let writer = PostgresReadModelWriter::open_dry_run(&self.url).await?;
        Ok(Box::new(ReadModelProjection::load(writer).await?))
    }

    async fn remove(&self) -> Result<(), ProjectionError> {
        Ok(PostgresReadModelWriter::remove(&self.url).await?)
    }

    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(self.reader().verify().await?)
    }

    async fn position(&self) -> Result<Position, ProjectionError> {
        Ok(self.reader().position().await?)
    }

    async fn dead_letter_count(&self) -> Result<u64, ProjectionError> {
        Ok(self.reader().dead_letters(0).await?.1)
    }

    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ProjectionError> {
        Ok(self.reader().dead_letter_page(query).await?)
    }

    async fn contents(&self) -> Result<(Position, ProjectionContents), ProjectionError> {
        let snapshot = self.reader().contents().await?;
        Ok((snapshot.position, snapshot.value))
    }

    async fn size_in_bytes(&self) -> Option<u64> {
        self.reader().disk_bytes().await.ok()?
    }
}

impl fmt::Display for PostgresReadModelStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, namespace {}", self.url, self.url.schema_name())
    }
}
