//! The storage of a search index in a folder.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::heartbeat::HeartbeatStore;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::search_index::SearchError;
use chat_search::{TantivyIndex, TantivyIndexWriter};

use super::projection::SearchProjection;
use crate::projection::blocking::run_blocking;
use crate::projection::{Projection, ProjectionError, ProjectionStore};

/// The search index in a folder.
#[derive(Clone, Debug)]
pub struct SearchIndexStore {
    /// The folder.
    pub dir: PathBuf,
}

impl SearchIndexStore {
    /// Reads from the index, opened for this call, on a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&TantivyIndex) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, ProjectionError> {
        let dir = self.dir.clone();
        run_blocking(move || read(&TantivyIndex::open(&dir)?)).await
    }
}

#[async_trait]
impl ProjectionStore for SearchIndexStore {
    fn projection(&self) -> ProjectionName {
        ProjectionName::SearchIndex
    }

    fn pacing(&self) -> BatchPacing {
        // Each commit, however small, writes and syncs a segment, and segments have to be merged later. Searches
        // find uncommitted messages in the tail, so commits can be seldom and large (decision 43). A message that
        // arrives after a pause is committed at once.
        BatchPacing {
            max_events: 65_536,
            max_bytes: 32 << 20,
            rest_factor: 0.5,
            max_rest: Duration::from_millis(100),
            min_live_rest: Duration::from_secs(1),
        }
    }

    fn heartbeats(&self) -> Box<dyn HeartbeatStore> {
        Box::new(FileHeartbeats::for_path(&self.dir))
    }

    async fn open(&self) -> Result<(Box<dyn Projection>, StorageOrigin), ProjectionError> {
        let dir = self.dir.clone();
        run_blocking(move || {
            let (writer, origin) = TantivyIndexWriter::open(&dir)?;
            Ok::<_, SearchError>((Box::new(SearchProjection::load(writer)?) as _, origin))
        })
        .await
    }

    async fn recreate(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let dir = self.dir.clone();
        let projection =
            run_blocking(move || SearchProjection::load(TantivyIndexWriter::recreate(&dir)?)).await?;
        Ok(Box::new(projection))
    }

    async fn recreate_for_other_log(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let dir = self.dir.clone();
        let recreate = move || SearchProjection::load(TantivyIndexWriter::recreate_for_other_log(&dir)?);
        Ok(Box::new(run_blocking(recreate).await?))
    }

    async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        let projection = self.read(|index| Ok(SearchProjection::dry_run(index.clone()))).await?;
        Ok(Box::new(projection))
    }

    async fn remove(&self) -> Result<(), ProjectionError> {
        let dir = self.dir.clone();
        run_blocking(move || TantivyIndexWriter::remove(&dir)).await
    }

    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ProjectionError> {
        self.read(|index| Ok(index.checkpoint())).await
    }

    async fn position(&self) -> Result<Position, ProjectionError> {
        self.read(|index| Ok(index.position())).await
    }

    async fn dead_letter_count(&self) -> Result<u64, ProjectionError> {
        self.read(|index| {
            let (_, count) = index.dead_letters(0)?;
            Ok(count)
        })
        .await
    }

    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ProjectionError> {
        self.read(move |index| index.dead_letter_page(&query)).await
    }

    async fn contents(&self) -> Result<(Position, ProjectionContents), ProjectionError> {
        self.read(TantivyIndex::contents).await
    }

    async fn size_in_bytes(&self) -> Option<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.dir).ok()? {
            // A merge may have removed the file in the meantime.
            bytes += entry.ok()?.metadata().map_or(0, |file| file.len());
        }
        Some(bytes)
    }
}

impl fmt::Display for SearchIndexStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dir.display().fmt(f)
    }
}
