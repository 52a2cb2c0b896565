//! A store whose projection panics once.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::event_store::{LogId, RecordedEvent};
use chat_ports::heartbeat::HeartbeatStore;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::projection_contents::ProjectionContents;
use chat_projector::dead_letters::DeadLetterQueue;
use chat_projector::projection::{Projection, ProjectionError, ProjectionStore};
use chat_projector::read_model::ReadModelProjectionStore;

/// A store whose first opened projection panics at its first batch.
#[derive(Debug)]
pub struct FragileStore {
    inner: ReadModelProjectionStore,
    is_fragile: AtomicBool,
}

impl FragileStore {
    pub fn new(inner: ReadModelProjectionStore) -> Self {
        Self { inner, is_fragile: AtomicBool::new(true) }
    }
}

impl fmt::Display for FragileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ProjectionStore for FragileStore {
    fn projection(&self) -> ProjectionName {
        self.inner.projection()
    }

    fn pacing(&self) -> BatchPacing {
        self.inner.pacing()
    }

    fn heartbeats(&self) -> Box<dyn HeartbeatStore> {
        self.inner.heartbeats()
    }

    async fn open(&self) -> Result<(Box<dyn Projection>, StorageOrigin), ProjectionError> {
        let (projection, origin) = self.inner.open().await?;
        if self.is_fragile.swap(false, Ordering::SeqCst) {
            return Ok((Box::new(PanickingProjection(projection)), origin));
        }
        Ok((projection, origin))
    }

    async fn recreate(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        self.inner.recreate().await
    }

    async fn recreate_for_other_log(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        self.inner.recreate_for_other_log().await
    }

    async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        self.inner.open_dry_run().await
    }

    async fn remove(&self) -> Result<(), ProjectionError> {
        self.inner.remove().await
    }

    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ProjectionError> {
        self.inner.checkpoint().await
    }

    async fn position(&self) -> Result<Position, ProjectionError> {
        self.inner.position().await
    }

    async fn dead_letter_count(&self) -> Result<u64, ProjectionError> {
        self.inner.dead_letter_count().await
    }

    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ProjectionError> {
        self.inner.dead_letter_page(query).await
    }

    async fn contents(&self) -> Result<(Position, ProjectionContents), ProjectionError> {
        self.inner.contents().await
    }

    async fn size_in_bytes(&self) -> Option<u64> {
        self.inner.size_in_bytes().await
    }
}

struct PanickingProjection(Box<dyn Projection>);

#[async_trait]
impl Projection for PanickingProjection {
    fn checkpoint(&self) -> ProjectionCheckpoint {
        self.0.checkpoint()
    }

    fn dead_letter_count(&self) -> u64 {
        self.0.dead_letter_count()
    }

    fn discarded_count(&self) -> u64 {
        self.0.discarded_count()
    }

    fn dead_letter_queue(&mut self) -> &mut dyn DeadLetterQueue {
        self.0.dead_letter_queue()
    }

    async fn adopt_log(&mut self, log: LogId) -> Result<(), ProjectionError> {
        self.0.adopt_log(log).await
    }

    async fn fold(&mut self, _: LogId, _: Vec<RecordedEvent>, _: Position) -> Result<(), ProjectionError> {
        panic!("a defect in the fold")
    }
}
