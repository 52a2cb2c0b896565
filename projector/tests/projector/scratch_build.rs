//! Scratch builds: projections folded from the start of a log, to compare other projections with.

use std::path::Path;

use chat_domain::Position;
use chat_ports::content_digest::ContentDigest;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_projector::dead_letters::advance_projection;
use chat_projector::projection::ProjectionStore;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::search::SearchIndexStore;
use chat_search::TantivyIndex;
use chat_sqlite::{SqliteReadModel, SqliteReadModelStorage};

use crate::retries::recreate_when_free;

const BATCH_EVENTS: usize = 4_096;

/// The digests of projections at the head of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectionDigests {
    pub position: Position,
    pub read_model: ContentDigest,
    pub search_index: ContentDigest,
}

/// Folds a log from its start to its head into new projections in `folder`, which must be empty, and returns their
/// digests. Any correct projection at the same position has the same digest.
pub async fn compute_scratch_digests(event_store: &dyn EventStore, folder: &Path) -> ProjectionDigests {
    let position = event_store.head().await.unwrap();
    let path = folder.join("read-model.db");
    fold_log(
        event_store,
        &ReadModelProjectionStore::new(SqliteReadModelStorage::new(path.clone())),
        position,
    )
    .await;
    let read_model = SqliteReadModel::new(path).digest().await.unwrap().value;

    let dir = folder.join("search");
    fold_log(event_store, &SearchIndexStore { dir: dir.clone() }, position).await;
    let search_index = TantivyIndex::open(&dir).unwrap().digest().unwrap().1;
    ProjectionDigests { position, read_model, search_index }
}

async fn fold_log(event_store: &dyn EventStore, store: &dyn ProjectionStore, head: Position) {
    let mut projection = recreate_when_free(store).await;
    let log_id = event_store.log_id().await.unwrap();
    loop {
        let after = projection.checkpoint().position;
        let mut events = event_store.read_all(after, BATCH_EVENTS).await.unwrap();
        events.retain(|event| event.position <= head);
        let Some(last) = events.last() else { return };
        let up_to = last.position;
        advance_projection(&mut *projection, event_store, log_id, events, up_to).await.unwrap();
    }
}
