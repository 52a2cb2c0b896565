//! Tests of the projector of a read model in SQLite, with failures of the log and of the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chat_domain::Position;
use chat_ports::event_store::{EventStore, LogId, NewIncarnation};
use chat_ports::read_model::ReadModel;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::{ProjectorState, RecoveryPolicy};
use chat_sqlite::{SqliteEventStore, SqliteReadModel, SqliteReadModelStorage};
use tempfile::TempDir;

use crate::deadline::within;
use crate::fragile_store::FragileStore;
use crate::log_builder::*;
use crate::running::RunningProjector;
use crate::scratch_build::compute_scratch_digests;

/// Empties a read model. Simulates a remote engine that has lost its commits.
const RESET: &str = "BEGIN; DELETE FROM apps; DELETE FROM chats; DELETE FROM messages;
    UPDATE checkpoint SET log = NULL, position = 0; COMMIT;";

struct Fixture {
    folder: TempDir,
    log: Arc<dyn EventStore>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = open_log(folder.path(), "events.db");
        Self { folder, log }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("read-model.db")
    }

    fn model(&self) -> SqliteReadModel {
        SqliteReadModel::new(self.path())
    }

    fn store(&self) -> ReadModelProjectionStore {
        ReadModelProjectionStore::new(SqliteReadModelStorage::new(self.path()))
    }

    fn start(&self) -> RunningProjector {
        RunningProjector::start(self.store(), &self.log)
    }

    /// Appends a chat with messages, starts a projector, and waits until it has folded them.
    async fn start_with_chat(&self, messages: u64) -> (RunningProjector, Position) {
        let head = append_chat(&self.log, 1, messages).await;
        let running = self.start();
        running.wait_for_position(head).await;
        (running, head)
    }

    /// Changes the read model without the projector.
    fn execute(&self, statements: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(statements).unwrap();
    }

    async fn assert_equals_a_rebuild(&self, position: Position) {
        let folder = tempfile::tempdir().unwrap();
        let rebuilt = compute_scratch_digests(&*self.log, folder.path()).await;
        let digest = self.model().digest().await.unwrap();
        assert_eq!((digest.position, digest.value), (position, rebuilt.read_model));
        assert_eq!(rebuilt.position, position);
    }
}

fn open_log(folder: &Path, name: &str) -> Arc<dyn EventStore> {
    Arc::new(SqliteEventStore::open(&folder.join(name)).unwrap())
}

#[tokio::test]
async fn catches_up_and_then_follows() {
    let fixture = Fixture::new();
    let (running, backlog) = fixture.start_with_chat(6_000).await;
    running.wait_for_state(ProjectorState::Live).await;
    fixture.assert_equals_a_rebuild(backlog).await;

    let next = append(&fixture.log, chat(1, 1), 6_000, &created(6_001, "live")).await;
    running.wait_for_position(next).await;
    fixture.assert_equals_a_rebuild(next).await;
    let status = running.status();
    assert_eq!((status.position, status.head, status.lag_events()), (next, next, 0));
    assert_eq!((status.behind_since, status.dead_letters, status.last_error), (None, 0, None));
    running.stop().await;
}

#[tokio::test]
async fn resumes_where_it_was_stopped() {
    let fixture = Fixture::new();
    let (running, _) = fixture.start_with_chat(100).await;
    let status = running.handle.status.clone();
    running.stop().await;
    assert_eq!(status.borrow().state, ProjectorState::Stopped);

    let second = append_chat(&fixture.log, 2, 100).await;
    let running = fixture.start();
    running.wait_for_position(second).await;
    fixture.assert_equals_a_rebuild(second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumes_after_kills() {
    let fixture = Fixture::new();
    // These are enough events for a few batches of several chunks each.
    let head = append_chat(&fixture.log, 1, 100_000).await;
    let mut position = Position::START;
    // Each projector is killed as soon as its position has moved.
    for _ in 0..5 {
        let running = fixture.start();
        let mut status = running.handle.status.clone();
        let moved = status.wait_for(|status| status.position > position);
        position = within("the next position", moved).await.unwrap().position;
        running.handle.join.abort();
        let _ = running.handle.join.await;
        if position == head {
            break;
        }
    }
    let running = fixture.start();
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn a_damaged_file_is_quarantined_and_rebuilt() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 50).await;
    for round in 0..2 {
        std::fs::write(fixture.path(), format!("not a database, {round}").repeat(1_000)).unwrap();
        let running = fixture.start();
        running.wait_for_position(head).await;
        fixture.assert_equals_a_rebuild(head).await;
        running.stop().await;
    }
    let files = std::fs::read_dir(fixture.folder.path()).unwrap();
    let quarantined = files.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("read-model.db.damaged-")
    });
    assert_eq!(quarantined.count(), 1, "not exactly one damaged file was kept");
}

#[tokio::test]
async fn the_stop_policy_leaves_a_damaged_file_as_it_is() {
    let fixture = Fixture::new();
    append_chat(&fixture.log, 1, 5).await;
    std::fs::write(fixture.path(), "not a database at all, ".repeat(1_000)).unwrap();
    let damaged = std::fs::read(fixture.path()).unwrap();
    let running = RunningProjector::start_with_policy(fixture.store(), &fixture.log, RecoveryPolicy::Stop);
    let status = running.wait_for_state(ProjectorState::Stopped).await;
    assert!(status.last_error.is_some(), "the status shows no error");
    within("ending", running.handle.join).await.unwrap();
    assert_eq!(std::fs::read(fixture.path()).unwrap(), damaged);
}

#[tokio::test]
async fn damage_found_while_running_causes_a_rebuild() {
    let fixture = Fixture::new();
    let (running, first) = fixture.start_with_chat(50).await;
    let reader = fixture.model();
    assert_eq!(reader.position().await.unwrap(), first);
    // Deletes a row that the projection has in its cache.
    fixture.execute("DELETE FROM chats");

    let second = append(&fixture.log, chat(1, 1), 50, &created(51, "onto nothing")).await;
    running.wait_for_position(second).await;
    fixture.assert_equals_a_rebuild(second).await;
    assert_eq!(reader.position().await.unwrap(), second, "the open reader did not switch to the new file");
}

#[tokio::test]
async fn damage_that_opening_did_not_show_is_found_and_causes_a_rebuild() {
    let fixture = Fixture::new();
    let (running, head) = fixture.start_with_chat(5_000).await;
    running.stop().await;
    let mut bytes = std::fs::read(fixture.path()).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 8_192].fill(0xA5);
    std::fs::write(fixture.path(), bytes).unwrap();
    assert!(fixture.model().verify().await.is_err(), "the file is not damaged");

    let running = fixture.start();
    running.wait_for_error().await;
    running.wait_for_state(ProjectorState::Live).await;
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn a_checkpoint_that_was_set_back_is_loaded_again() {
    let fixture = Fixture::new();
    let (running, _) = fixture.start_with_chat(50).await;
    fixture.execute(RESET);

    let second = append(&fixture.log, chat(1, 1), 50, &created(51, "after the reset")).await;
    running.wait_for_position(second).await;
    fixture.assert_equals_a_rebuild(second).await;
}

#[tokio::test]
async fn a_reset_projection_is_folded_again_without_new_events() {
    let fixture = Fixture::new();
    let (running, head) = fixture.start_with_chat(50).await;
    fixture.execute(RESET);
    running.wait_for_error().await;
    running.wait_for_state(ProjectorState::Live).await;
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn a_read_model_of_another_log_is_left_as_it_is() {
    let mut fixture = Fixture::new();
    let (running, head) = fixture.start_with_chat(500).await;
    running.stop().await;

    fixture.log = open_log(fixture.folder.path(), "another.db");
    append_chat(&fixture.log, 2, 600).await;
    let running = fixture.start();
    running.wait_until_decision_is_needed("another log").await;
    assert_eq!(fixture.model().position().await.unwrap(), head);
}

#[tokio::test]
async fn a_read_model_ahead_of_its_log_is_left_as_it_is() {
    let fixture = Fixture::new();
    let (running, head) = fixture.start_with_chat(5).await;
    running.stop().await;
    // As if the log had lost its last events.
    fixture.execute("UPDATE checkpoint SET position = position + 100");

    let running = fixture.start();
    running.wait_until_decision_is_needed("the log has lost events").await;
    assert_eq!(fixture.model().position().await.unwrap(), Position::new(head.get() + 100));
}

#[tokio::test]
async fn a_read_model_goes_on_with_a_new_incarnation_that_has_all_folded_events() {
    let fixture = Fixture::new();
    let (running, _) = fixture.start_with_chat(5).await;
    running.stop().await;
    // This table would not be in a rebuilt file.
    fixture.execute("CREATE TABLE mark (id INTEGER)");
    begin_incarnation(&fixture.log, 8).await;

    let next = append(&fixture.log, chat(1, 1), 5, &created(6, "new")).await;
    let running = fixture.start();
    running.wait_for_position(next).await;
    // Another incarnation begins while the projector runs.
    begin_incarnation(&fixture.log, 9).await;
    let next = append(&fixture.log, chat(1, 1), 6, &created(7, "newer")).await;
    running.wait_for_position(next).await;
    fixture.execute("SELECT id FROM mark");
    fixture.assert_equals_a_rebuild(next).await;
}

#[tokio::test]
async fn a_read_model_with_events_of_a_lost_future_is_rebuilt() {
    let mut fixture = Fixture::new();
    let (running, _) = fixture.start_with_chat(50).await;
    running.stop().await;

    // As if the log had been restored from a backup of its first events.
    let original = fixture.log.log_id().await.unwrap();
    drop(open_log(fixture.folder.path(), "restored.db"));
    rusqlite::Connection::open(fixture.folder.path().join("restored.db"))
        .unwrap()
        .execute("UPDATE log SET id = ?", [original.0.as_bytes()])
        .unwrap();
    fixture.log = open_log(fixture.folder.path(), "restored.db");
    append_chat(&fixture.log, 1, 5).await;
    begin_incarnation(&fixture.log, 8).await;
    // The log becomes longer than it was before the restore.
    let head = append_chat(&fixture.log, 2, 60).await;
    let running = fixture.start();
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

async fn begin_incarnation(log: &Arc<dyn EventStore>, log_id: u128) {
    let incarnation = NewIncarnation {
        log: LogId(uuid::Uuid::from_u128(log_id)),
        began_at: chat_domain::Timestamp::from_millis(0),
        reason: "a test".to_owned(),
        replaces: Vec::new(),
    };
    log.begin_incarnation(incarnation).await.unwrap();
}

#[tokio::test]
async fn a_second_projector_stands_by_and_takes_over() {
    let fixture = Fixture::new();
    let (active, _) = fixture.start_with_chat(5).await;
    let standby = fixture.start();
    standby.wait_for_state(ProjectorState::StandingBy).await;

    active.handle.join.abort();
    let second = append_chat(&fixture.log, 2, 5).await;
    standby.wait_for_position(second).await;
    fixture.assert_equals_a_rebuild(second).await;
}

#[tokio::test]
async fn a_database_of_another_kind_is_not_changed() {
    let fixture = Fixture::new();
    append_chat(&fixture.log, 1, 5).await;
    let store =
        ReadModelProjectionStore::new(SqliteReadModelStorage::new(fixture.folder.path().join("events.db")));
    let running = RunningProjector::start(store, &fixture.log);
    let error = running.wait_for_state(ProjectorState::Waiting).await.last_error.unwrap();
    assert!(error.contains("events.db: its storage can't be reached now: the file is a database"), "{error}");
    assert_eq!(fixture.log.read_all(Position::START, 100).await.unwrap().len(), 7);
}

#[tokio::test]
async fn waits_for_a_folder_that_is_not_usable_yet() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 5).await;
    let blocked = fixture.folder.path().join("blocked");
    std::fs::write(&blocked, "a file where a folder should be").unwrap();
    let store = ReadModelProjectionStore::new(SqliteReadModelStorage::new(blocked.join("read-model.db")));
    let running = RunningProjector::start(store, &fixture.log);
    let status = running.wait_for_state(ProjectorState::Waiting).await;
    assert!(status.last_error.is_some(), "the status shows no error");

    std::fs::remove_file(&blocked).unwrap();
    running.wait_for_position(head).await;
    assert_eq!(running.wait_for_state(ProjectorState::Live).await.last_error, None);
}

#[tokio::test]
async fn a_panic_shows_in_the_status_and_is_retried() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 5).await;
    let running = RunningProjector::start(FragileStore::new(fixture.store()), &fixture.log);
    let error = running.wait_for_state(ProjectorState::Waiting).await.last_error;
    assert_eq!(error.as_deref(), Some("the projector panicked"));
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn dead_letters_show_in_the_status() {
    let fixture = Fixture::new();
    append_chat(&fixture.log, 1, 1).await;
    let bad = append_raw(&fixture.log, &chat(1, 1).to_string(), 1, "MessageCreated", "{}".to_owned()).await;
    let running = fixture.start();
    running.wait_for_position(bad).await;
    assert_eq!(running.status().dead_letters, 1);
    running.stop().await;
    let running = fixture.start();
    running.wait_for_state(ProjectorState::Live).await;
    assert_eq!(running.status().dead_letters, 1);
}
