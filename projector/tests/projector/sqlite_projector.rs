//! The projector of a read model in SQLite, with failures of the log and of the file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::dead_letter::{DeadLetterPage, DeadLetterQuery};
use chat_ports::event_store::{EventStore, LogId, NewIncarnation, RecordedEvent};
use chat_ports::heartbeat::HeartbeatStore;
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::ReadModel;
use chat_projector::dead_letters::DeadLetterQueue;
use chat_projector::projection::{Projection, ProjectionError, ProjectionStore};
use chat_projector::read_model::ReadModelStore;
use chat_projector::{ProjectorHandle, ProjectorState, RecoveryPolicy, spawn_projector};
use chat_sqlite::{SqliteEventStore, SqliteReadModel, SqliteReadModelStorage};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::deadline::within;
use crate::log_builder::*;
use crate::scratch_build::compute_scratch_digests;

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

    fn start(&self) -> Running {
        let (stop, stopped) = watch::channel(false);
        Running {
            handle: self.spawn(ReadModelStore::new(SqliteReadModelStorage::new(self.path())), stopped),
            stop,
        }
    }

    fn spawn(&self, store: impl ProjectionStore, shutdown: watch::Receiver<bool>) -> ProjectorHandle {
        spawn_projector(Arc::new(store), Arc::clone(&self.log), RecoveryPolicy::Rebuild, shutdown)
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

struct Running {
    handle: ProjectorHandle,
    stop: watch::Sender<bool>,
}

impl Running {
    async fn wait_for_position(&self, position: Position) {
        assert!(within("reaching the position", self.handle.wait_for_position(position)).await);
    }

    async fn wait_for_state(&self, state: ProjectorState) {
        let mut status = self.handle.status.clone();
        within(state.as_str(), status.wait_for(|status| status.state == state)).await.unwrap();
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        within("stopping", self.handle.join).await.unwrap();
    }
}

#[tokio::test]
async fn catches_up_and_then_follows() {
    let fixture = Fixture::new();
    let backlog = append_chat(&fixture.log, 1, 6_000).await;
    let running = fixture.start();
    running.wait_for_position(backlog).await;
    running.wait_for_state(ProjectorState::Live).await;
    fixture.assert_equals_a_rebuild(backlog).await;

    let next = append(&fixture.log, chat(1, 1), 6_000, &created(6_001, "live")).await;
    running.wait_for_position(next).await;
    fixture.assert_equals_a_rebuild(next).await;
    let status = running.handle.status.borrow().clone();
    assert_eq!((status.position, status.head, status.lag_events()), (next, next, 0));
    assert_eq!((status.behind_since, status.dead_letters, status.last_error), (None, 0, None));
    running.stop().await;
}

#[tokio::test]
async fn resumes_where_it_was_stopped() {
    let fixture = Fixture::new();
    let first = append_chat(&fixture.log, 1, 100).await;
    let running = fixture.start();
    running.wait_for_position(first).await;
    let status = running.handle.status.clone();
    running.stop().await;
    assert_eq!(status.borrow().state, ProjectorState::Stopped);

    let second = append_chat(&fixture.log, 2, 100).await;
    let running = fixture.start();
    running.wait_for_position(second).await;
    fixture.assert_equals_a_rebuild(second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn can_be_killed_at_any_time() {
    let fixture = Fixture::new();
    // A few batches of several chunks each.
    let head = append_chat(&fixture.log, 1, 100_000).await;
    let mut position = Position::START;
    // Killed each time as soon as its position has moved.
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
    assert_eq!(quarantined.count(), 1, "one damaged file is kept");
}

#[tokio::test]
async fn the_stop_policy_leaves_a_damaged_file_as_it_is() {
    let fixture = Fixture::new();
    append_chat(&fixture.log, 1, 5).await;
    std::fs::write(fixture.path(), "not a database at all, ".repeat(1_000)).unwrap();
    let damaged = std::fs::read(fixture.path()).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let store = Arc::new(ReadModelStore::new(SqliteReadModelStorage::new(fixture.path())));
    let handle = spawn_projector(store, Arc::clone(&fixture.log), RecoveryPolicy::Stop, stopped);
    within("ending", handle.join).await.unwrap();
    let status = handle.status.borrow().clone();
    assert_eq!(status.state, ProjectorState::Stopped);
    assert!(status.last_error.is_some());
    assert_eq!(std::fs::read(fixture.path()).unwrap(), damaged);
}

#[tokio::test]
async fn damage_found_while_running_causes_a_rebuild() {
    let fixture = Fixture::new();
    let first = append_chat(&fixture.log, 1, 50).await;
    let running = fixture.start();
    running.wait_for_position(first).await;
    let reader = fixture.model();
    assert_eq!(reader.position().await.unwrap(), first);
    // Deletes a row that the projection has in its cache.
    rusqlite::Connection::open(fixture.path()).unwrap().execute("DELETE FROM chats", []).unwrap();

    let second = append(&fixture.log, chat(1, 1), 50, &created(51, "onto nothing")).await;
    running.wait_for_position(second).await;
    fixture.assert_equals_a_rebuild(second).await;
    assert_eq!(reader.position().await.unwrap(), second, "an open reader switches to the new file");
}

#[tokio::test]
async fn damage_in_unused_pages_is_found_and_causes_a_rebuild() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 5_000).await;
    let running = fixture.start();
    running.wait_for_position(head).await;
    running.stop().await;
    let mut bytes = std::fs::read(fixture.path()).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 8_192].fill(0xA5);
    std::fs::write(fixture.path(), bytes).unwrap();
    assert!(fixture.model().verify().await.is_err());

    let running = fixture.start();
    let mut status = running.handle.status.clone();
    within("finding the damage", status.wait_for(|status| status.last_error.is_some())).await.unwrap();
    running.wait_for_state(ProjectorState::Live).await;
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn a_moved_checkpoint_is_loaded_again() {
    let fixture = Fixture::new();
    let first = append_chat(&fixture.log, 1, 50).await;
    let running = fixture.start();
    running.wait_for_position(first).await;
    rusqlite::Connection::open(fixture.path())
        .unwrap()
        .execute_batch(
            "BEGIN; DELETE FROM apps; DELETE FROM chats; DELETE FROM messages;
             UPDATE checkpoint SET log = NULL, position = 0; COMMIT;",
        )
        .unwrap();

    let second = append(&fixture.log, chat(1, 1), 50, &created(51, "after the reset")).await;
    running.wait_for_position(second).await;
    fixture.assert_equals_a_rebuild(second).await;
}

#[tokio::test]
async fn a_reset_projection_is_folded_again_without_new_events() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 50).await;
    let running = fixture.start();
    running.wait_for_position(head).await;
    // As a remote engine that lost its last commits.
    rusqlite::Connection::open(fixture.path())
        .unwrap()
        .execute_batch(
            "BEGIN; DELETE FROM apps; DELETE FROM chats; DELETE FROM messages;
             UPDATE checkpoint SET log = NULL, position = 0; COMMIT;",
        )
        .unwrap();
    let mut status = running.handle.status.clone();
    within("finding the damage", status.wait_for(|status| status.last_error.is_some())).await.unwrap();
    running.wait_for_state(ProjectorState::Live).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn a_read_model_of_another_log_is_rebuilt() {
    let mut fixture = Fixture::new();
    let other = append_chat(&fixture.log, 1, 500).await;
    let running = fixture.start();
    running.wait_for_position(other).await;
    running.stop().await;

    fixture.log = open_log(fixture.folder.path(), "another.db");
    let head = append_chat(&fixture.log, 2, 5).await;
    let running = fixture.start();
    running.wait_for_state(ProjectorState::Live).await;
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn a_read_model_ahead_of_its_log_is_rebuilt() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 5).await;
    let running = fixture.start();
    running.wait_for_position(head).await;
    running.stop().await;
    // As if the log had been restored from an older backup.
    rusqlite::Connection::open(fixture.path())
        .unwrap()
        .execute("UPDATE checkpoint SET position = position + 100", [])
        .unwrap();

    let running = fixture.start();
    running.wait_for_state(ProjectorState::Live).await;
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn a_read_model_goes_on_with_a_new_incarnation_that_has_its_events() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 5).await;
    let running = fixture.start();
    running.wait_for_position(head).await;
    running.stop().await;
    mark(&fixture.path());
    begin_incarnation(&fixture.log, 8).await;

    let next = append(&fixture.log, chat(1, 1), 5, &created(6, "new")).await;
    let running = fixture.start();
    running.wait_for_position(next).await;
    // A second one begins while the projector runs.
    begin_incarnation(&fixture.log, 9).await;
    let next = append(&fixture.log, chat(1, 1), 6, &created(7, "newer")).await;
    running.wait_for_position(next).await;
    assert!(is_marked(&fixture.path()), "it was rebuilt");
    fixture.assert_equals_a_rebuild(next).await;
}

#[tokio::test]
async fn a_read_model_of_given_up_events_is_rebuilt() {
    let mut fixture = Fixture::new();
    let lost = append_chat(&fixture.log, 1, 50).await;
    let running = fixture.start();
    running.wait_for_position(lost).await;
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
    // Longer again than what was lost.
    let head = append_chat(&fixture.log, 2, 60).await;
    let running = fixture.start();
    running.wait_for_position(head).await;
    fixture.assert_equals_a_rebuild(head).await;
}

async fn begin_incarnation(log: &Arc<dyn EventStore>, number: u128) {
    let incarnation = NewIncarnation {
        log: LogId(uuid::Uuid::from_u128(number)),
        began_at: chat_domain::Timestamp::from_millis(0),
        reason: "a test".to_owned(),
        replaces: Vec::new(),
    };
    log.begin_incarnation(incarnation).await.unwrap();
}

/// Adds a table that a rebuild does not create.
fn mark(path: &Path) {
    rusqlite::Connection::open(path).unwrap().execute_batch("CREATE TABLE mark (id INTEGER)").unwrap();
}

fn is_marked(path: &Path) -> bool {
    rusqlite::Connection::open(path).unwrap().execute_batch("SELECT id FROM mark").is_ok()
}

#[tokio::test]
async fn a_second_projector_stands_by_and_takes_over() {
    let fixture = Fixture::new();
    let first = append_chat(&fixture.log, 1, 5).await;
    let active = fixture.start();
    active.wait_for_position(first).await;
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
    let (_stop, stopped) = watch::channel(false);
    let store = ReadModelStore::new(SqliteReadModelStorage::new(fixture.folder.path().join("events.db")));
    let handle = fixture.spawn(store, stopped);
    let mut status = handle.status.clone();
    let waiting = status.wait_for(|status| status.state == ProjectorState::Waiting);
    let error = within("waiting", waiting).await.unwrap().last_error.clone().unwrap();
    assert_eq!(error, "its storage can't be reached now", "causes are only logged");
    assert_eq!(fixture.log.read_all(Position::START, 100).await.unwrap().len(), 7);
}

#[tokio::test]
async fn waits_for_a_folder_that_is_not_usable_yet() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 5).await;
    let blocked = fixture.folder.path().join("blocked");
    std::fs::write(&blocked, "a file where a folder should be").unwrap();
    let (_stop, stopped) = watch::channel(false);
    let handle = fixture
        .spawn(ReadModelStore::new(SqliteReadModelStorage::new(blocked.join("read-model.db"))), stopped);
    let mut status = handle.status.clone();
    within("waiting", status.wait_for(|status| status.state == ProjectorState::Waiting)).await.unwrap();
    assert!(status.borrow().last_error.is_some());

    std::fs::remove_file(&blocked).unwrap();
    assert!(within("recovering", handle.wait_for_position(head)).await);
    within("live", status.wait_for(|status| status.state == ProjectorState::Live)).await.unwrap();
    assert_eq!(status.borrow().last_error, None);
}

/// A store whose first opened projection panics at its first batch.
#[derive(Debug)]
struct FragileStore {
    inner: ReadModelStore,
    is_fragile: AtomicBool,
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

    async fn open_dry_run(&self) -> Result<Box<dyn Projection>, ProjectionError> {
        self.inner.open_dry_run().await
    }

    async fn remove(&self) -> Result<(), ProjectionError> {
        self.inner.remove().await
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

#[tokio::test]
async fn a_panic_shows_in_the_status_and_is_retried() {
    let fixture = Fixture::new();
    let head = append_chat(&fixture.log, 1, 5).await;
    let (_stop, stopped) = watch::channel(false);
    let inner = ReadModelStore::new(SqliteReadModelStorage::new(fixture.path()));
    let handle = fixture.spawn(FragileStore { inner, is_fragile: AtomicBool::new(true) }, stopped);
    let mut status = handle.status.clone();
    let waiting = status.wait_for(|status| status.state == ProjectorState::Waiting);
    let error = within("waiting", waiting).await.unwrap().last_error.clone();
    assert_eq!(error.as_deref(), Some("the projector panicked"));
    assert!(within("recovering", handle.wait_for_position(head)).await);
    fixture.assert_equals_a_rebuild(head).await;
}

#[tokio::test]
async fn dead_letters_show_in_the_status() {
    let fixture = Fixture::new();
    append_chat(&fixture.log, 1, 1).await;
    let bad = append_raw(&fixture.log, &chat(1, 1).to_string(), 1, "MessageCreated", "{}".to_owned()).await;
    let running = fixture.start();
    running.wait_for_position(bad).await;
    assert_eq!(running.handle.status.borrow().dead_letters, 1);
    running.stop().await;
    let running = fixture.start();
    running.wait_for_state(ProjectorState::Live).await;
    assert_eq!(running.handle.status.borrow().dead_letters, 1);
}
