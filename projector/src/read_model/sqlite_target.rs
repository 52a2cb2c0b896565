//! The read model in a SQLite file, as a place for the projection.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_files::notice::FileNotices;
use chat_ports::checkpoint::Opened;
use chat_ports::read_model::ReadModelError;
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};

use super::{NAME, ReadModelProjection};
use crate::notices::Board;
use crate::projection::{Pace, ProjectionError, Target};

/// The read model in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteReadModelTarget {
    /// The file.
    pub path: PathBuf,
}

#[async_trait]
impl Target for SqliteReadModelTarget {
    type Projection = ReadModelProjection<SqliteReadModelWriter>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn pace(&self) -> Pace {
        // A commit writes a page for each chat that it touches, and one that holds few events costs each of them several
        // times as much. Under load they are gathered for as long as nobody notices.
        Pace { max_events: 32_768, max_bytes: 24 << 20, rest: 3.0, max_rest: Duration::from_millis(6) }
    }

    async fn open(&self) -> Result<(Self::Projection, Opened), ProjectionError> {
        let path = self.path.clone();
        let (writer, opened) = blocking(move || SqliteReadModelWriter::open(&path)).await?;
        Ok((ReadModelProjection::load(writer).await?, opened))
    }

    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(SqliteReadModel::new(&self.path).verify().await?)
    }

    fn board(&self) -> Option<Box<dyn Board>> {
        Some(Box::new(FileNotices::beside(&self.path)))
    }

    async fn open_fresh(&self) -> Result<Self::Projection, ProjectionError> {
        let path = self.path.clone();
        let writer = blocking(move || SqliteReadModelWriter::open_fresh(&path)).await?;
        Ok(ReadModelProjection::load(writer).await?)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadModelError> + Send + 'static,
) -> Result<T, ReadModelError> {
    let ended = |error| ReadModelError::Unavailable(Box::new(error));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}
