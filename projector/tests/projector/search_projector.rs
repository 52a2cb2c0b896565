//! Tests of the projector of a search index.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_projector::ProjectorState;
use chat_projector::search::SearchIndexStore;
use chat_search::TantivyIndex;
use chat_sqlite::SqliteEventStore;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::deadline::within;
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

    /// Starts a projector whose index no query is answered from.
    fn start_unused(&self) -> RunningProjector {
        let running = self.start();
        running.handle.set_in_use(false);
        running
    }

    fn segment_count(&self) -> usize {
        let meta = std::fs::read_to_string(self.store().dir.join("meta.json")).unwrap();
        let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
        meta["segments"].as_array().unwrap().len()
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

#[tokio::test]
async fn deferred_merges_start_once_the_index_is_in_use() {
    /// With as many segments of at least 1,000 messages, a merge of a live index is due.
    const SEGMENTS: u8 = 16;
    let fixture = Fixture::new();
    let mut head = Position::START;
    for chat in 1..=SEGMENTS {
        head = append_chat(&fixture.log, chat, 1_000).await;
        let running = fixture.start_unused();
        running.wait_for_position(head).await;
        running.stop().await;
    }
    let running = fixture.start_unused();
    running.wait_for_state(ProjectorState::Live).await;
    // Longer than the interval at which the projector looks whether it is in use.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(fixture.segment_count(), usize::from(SEGMENTS));

    running.handle.set_in_use(true);
    within("the merge", async {
        while fixture.segment_count() == usize::from(SEGMENTS) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    fixture.assert_equals_a_rebuild(head).await;
}
