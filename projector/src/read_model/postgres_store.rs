//! The read model in Postgres, as a place for the projection.

use std::time::Duration;

use async_trait::async_trait;
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_postgres::{PostgresReadModel, PostgresReadModelWriter, PostgresUrl};

use super::{NAME, ReadModelProjection};
use crate::heartbeats::{self, HeartbeatPublisher};
use crate::projection::{BatchPacing, ProjectionError, ProjectionStore};

/// The read model in a namespace of a Postgres database.
#[derive(Clone, Debug)]
pub struct PostgresReadModelStore {
    /// The database and the namespace.
    pub url: PostgresUrl,
}

#[async_trait]
impl ProjectionStore for PostgresReadModelStore {
    type Projection = ReadModelProjection<PostgresReadModelWriter>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn pacing(&self) -> BatchPacing {
        // A commit is a handful of round trips: under load they are shared by more events.
        BatchPacing {
            max_events: 32_768,
            max_bytes: 24 << 20,
            rest_factor: 4.0,
            max_rest: Duration::from_millis(8),
        }
    }

    async fn open(&self) -> Result<(Self::Projection, StorageOrigin), ProjectionError> {
        let (writer, opened) = PostgresReadModelWriter::open(&self.url).await?;
        Ok((ReadModelProjection::load(writer).await?, opened))
    }

    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(PostgresReadModel::new(self.url.clone()).verify().await?)
    }

    fn heartbeats(&self) -> Option<Box<dyn HeartbeatPublisher>> {
        Some(heartbeats::in_postgres(&self.url))
    }

    async fn recreate(&self) -> Result<Self::Projection, ProjectionError> {
        let writer = PostgresReadModelWriter::recreate(&self.url).await?;
        Ok(ReadModelProjection::load(writer).await?)
    }
}
