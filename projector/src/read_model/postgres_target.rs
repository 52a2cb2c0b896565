//! The read model in Postgres, as a place for the projection.

use std::time::Duration;

use async_trait::async_trait;
use chat_ports::checkpoint::Opened;
use chat_postgres::{PostgresReadModel, PostgresReadModelWriter, PostgresUrl};

use super::{NAME, ReadModelProjection};
use crate::notices::{self, Board};
use crate::projection::{Pace, ProjectionError, Target};

/// The read model in a namespace of a Postgres database.
#[derive(Clone, Debug)]
pub struct PostgresReadModelTarget {
    /// The database and the namespace.
    pub url: PostgresUrl,
}

#[async_trait]
impl Target for PostgresReadModelTarget {
    type Projection = ReadModelProjection<PostgresReadModelWriter>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn pace(&self) -> Pace {
        // A commit is a handful of round trips: under load they are shared by more events.
        Pace { max_events: 32_768, max_bytes: 24 << 20, rest: 4.0, max_rest: Duration::from_millis(8) }
    }

    async fn open(&self) -> Result<(Self::Projection, Opened), ProjectionError> {
        let (writer, opened) = PostgresReadModelWriter::open(&self.url).await?;
        Ok((ReadModelProjection::load(writer).await?, opened))
    }

    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(PostgresReadModel::new(self.url.clone()).verify().await?)
    }

    fn board(&self) -> Option<Box<dyn Board>> {
        Some(notices::in_postgres(&self.url))
    }

    async fn open_fresh(&self) -> Result<Self::Projection, ProjectionError> {
        let writer = PostgresReadModelWriter::open_fresh(&self.url).await?;
        Ok(ReadModelProjection::load(writer).await?)
    }
}
