//! The storage of a read model in a SQLite file.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_files::durable_fs::path_with_suffix;
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::ReadModel;
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};

use super::projection::ReadModelProjection;
use crate::generations::heartbeats::HeartbeatStore;
use crate::projection::blocking::run_blocking;
use crate::projection::{BatchPacing, Projection, ProjectionError, ProjectionStore};

/// The read model in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteReadModelStore {
    /// The file.
    pub path: PathBuf,
}

impl SqliteReadModelStore {
    fn reader(&self) -> SqliteReadModel {
        SqliteReadModel::new(&self.path)
    }
}

#[async_trait]
impl ProjectionStore for SqliteReadModelStore {
    fn projection(&self) -> ProjectionName {
        ProjectionName::ReadModel
    }

    fn pacing(&self) -> BatchPacing {
        // A commit writes a page for each chat that it changes, so small commits cost several times as much for each
        // event. Under load, events are gathered for a time too short for a client to notice.
        BatchPacing {
            max_events: 32_768,
            max_bytes: 24 << 20,
            rest_factor: 3.0,
            max_rest: Duration::from_millis(6),
        }
    }

    fn heartbeats(&self) -> Box<dyn HeartbeatStore> {
        Box::new(FileHeartbeats::for_path(&self.path))
    }

    async fn open(&self) -> Result<(Box<dyn Projection>, StorageOrigin), ProjectionError> {
        let path = self.path.clone();
        let (writer, origin) = run_blocking(move || SqliteReadModelWriter::open(&path)).await?;
        Ok((Box::new(ReadModelProjection::load(writer).await?), origin))
    }

    async fn recreate(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let path = self.path.clone();
        let writer = run_blocking(move || SqliteReadModelWriter::recreate(&path)).await?;
        Ok(Box::new(ReadModelProjection::load(writer).await?))
    }

    async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let path = self.path.clone();
        let writer = run_blocking(move || SqliteReadModelWriter::open_dry_run(&path)).await?;
        Ok(Box::new(ReadModelProjection::load(writer).await?))
    }

    async fn remove(&self) -> Result<(), ProjectionError> {
        let path = self.path.clone();
        run_blocking(move || SqliteReadModelWriter::remove(&path)).await
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
        let wal = path_with_suffix(&self.path, "-wal");
        Some(fs::metadata(&self.path).ok()?.len() + fs::metadata(wal).map_or(0, |file| file.len()))
    }
}

impl fmt::Display for SqliteReadModelStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
