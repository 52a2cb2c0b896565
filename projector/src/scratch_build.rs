//! Folding a whole log at once, into new storage: what a projection must have become, however it got there.

use std::path::Path;

use chat_domain::Position;
use chat_ports::content_digest::ContentDigest;
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_ports::read_model::ReadModel;
use chat_search::TantivyIndex;
use chat_sqlite::SqliteReadModel;
use thiserror::Error;

use crate::dead_letters::advance_projection;
use crate::projection::{Projection, ProjectionError, ProjectionStore};
use crate::read_model::SqliteReadModelStore;
use crate::search::SearchIndexStore;

/// Events that are read and applied at once.
const BATCH_EVENTS: usize = 4_096;

/// The digests of projections folded from the start of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectionDigests {
    /// Up to where the log was folded: its end when the fold began.
    pub position: Position,
    /// The read model's.
    pub read_model: ContentDigest,
    /// The search index's.
    pub search_index: ContentDigest,
}

/// Why a log could not be folded.
#[derive(Debug, Error)]
pub enum ScratchBuildError {
    /// The log could not be read.
    #[error("the event store")]
    EventStore(#[from] EventStoreError),
    /// The projection could not be written.
    #[error("the new projection")]
    Projection(#[from] ProjectionError),
}

/// Folds the log from its start to its end into new projections in `folder`, which should be empty, and returns their
/// digests. A live projection at the same position has the same digest, or it is wrong.
pub async fn compute_scratch_digests(
    event_store: &dyn EventStore,
    folder: &Path,
) -> Result<ProjectionDigests, ScratchBuildError> {
    let head = event_store.head().await?;
    let path = folder.join("read-model.db");
    let target = SqliteReadModelStore { path: path.clone() };
    fold_log(event_store, &mut target.recreate().await?, head).await?;
    let read_model = SqliteReadModel::new(path).digest().await.map_err(ProjectionError::from)?.value;

    let dir = folder.join("search");
    let target = SearchIndexStore { dir: dir.clone() };
    fold_log(event_store, &mut target.recreate().await?, head).await?;
    let digest = tokio::task::spawn_blocking(move || TantivyIndex::open(&dir)?.digest());
    let ended = |error| ProjectionError::Unavailable(Box::new(error));
    let (_, search_index) = digest.await.map_err(ended)?.map_err(ProjectionError::from)?;
    Ok(ProjectionDigests { position: head, read_model, search_index })
}

/// Folds the log up to `head` into a projection.
async fn fold_log(
    event_store: &dyn EventStore,
    projection: &mut impl Projection,
    head: Position,
) -> Result<(), ScratchBuildError> {
    let log = event_store.log_id().await?;
    loop {
        let from = projection.checkpoint().position;
        let mut events = event_store.read_all(from, BATCH_EVENTS).await?;
        events.retain(|event| event.position <= head);
        let Some(last) = events.last() else { return Ok(()) };
        let up_to = last.position;
        advance_projection(projection, event_store, log, events, up_to).await?;
    }
}
