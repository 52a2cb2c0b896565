//! Tests of the projector of a search index.

use std::sync::Arc;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_projector::search::SearchIndexStore;
use chat_search::TantivyIndex;
use chat_sqlite::SqliteEventStore;
use tempfile::TempDir;

use crate::log_builder::*;
use crate::running::RunningProjector;
use crate::scratch_build::compute_scratch_digests;

struct Fixture {
    folder: TempDir,
    log: Arc<dyn EventStore>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        Self { folder, log }
    }

    fn store(&self) -> SearchIndexStore {
        SearchIndexStore { dir: self.folder.path().join("search") }
    }

    fn start(&self) -> RunningProjector {
        RunningProjector::start(self.store(), &self.log)
    }

    async fn assert_equals_a_rebuild(&self, position: Position) {
        let folder = tempfile::tempdir().unwrap();
        let rebuilt = compute_scratch_digests(&*self.log, folder.path()).await;
        let digest = TantivyIndex::open(&self.store().dir).unwrap().digest().unwrap();
        assert_eq!(digest, (position, rebuilt.search_index));
    }
}

#[tokio::test]
async fn catches_up_follows_and_resumes_after_a_restart() {
    let fixture = Fixture::new();
    let backlog = append_chat(&fixture.log, 1, 3_000).await;
    let running = fixture.start();
    running.wait_for_position(backlog).await;
    fixture.assert_equals_a_rebuild(backlog).await;
    append(&fixture.log, chat(1, 1), 3_000, &edited(1, "another text")).await;
    let next = append(&fixture.log, chat(1, 1), 3_001, &deleted(2)).await;
    running.wait_for_position(next).await;
    fixture.assert_equals_a_rebuild(next).await;
    running.stop().await;

    let last =
        append_raw(&fixture.log, &chat(1, 1).to_string(), 3_002, "MessageEdited", "{}".to_owned()).await;
    let running = fixture.start();
    running.wait_for_position(last).await;
    assert_eq!(running.status().dead_letters, 1);
    fixture.assert_equals_a_rebuild(last).await;
}

#[tokio::test]
async fn a_damaged_index_is_rebuilt() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 100).await;
    let running = fixture.start();
    running.wait_for_position(head).await;
    running.stop().await;
    std::fs::write(fixture.store().dir.join("meta.json"), "not JSON").unwrap();

    let running = fixture.start();
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}
