//! A log with operator actions, and its projections.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chat_domain::metadata::EventId;
use chat_domain::operator_action::{DeadLetterDiscarded, DeadLettersRetried, DiscardAcknowledged, STREAM};
use chat_domain::projection::ProjectionName;
use chat_domain::{Event, ExpectedRevision, OperatorAction, Position, Revision, StreamId};
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{EventStore, NewEvent, RecordedEvent, StreamAppend};
use chat_ports::read_model::{MessageWindow, ReadModel};
use chat_projector::dead_letters::advance_projection;
use chat_projector::projection::ProjectionStore;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::search::SearchIndexStore;
use chat_search::TantivyIndex;
use chat_sqlite::{SqliteEventStore, SqliteReadModel, SqliteReadModelStorage};
use tempfile::TempDir;
use uuid::Uuid;

use crate::batch_independence::Cut;
use crate::log_builder::*;
use crate::retries::open_when_free;
use crate::scratch_build::compute_scratch_digests;

pub(super) const READ_MODEL: ProjectionName = ProjectionName::ReadModel;
pub(super) const SEARCH_INDEX: ProjectionName = ProjectionName::SearchIndex;

pub(super) fn retry(projection: ProjectionName, stream: StreamId) -> OperatorAction {
    let (stream, reason) = (stream.to_string(), "the program can read it now".to_owned());
    DeadLettersRetried { projection, stream, reason }.into()
}

pub(super) fn discard(projection: ProjectionName, position: u64) -> OperatorAction {
    let (position, reason) = (Position::new(position), "no program can read it".to_owned());
    DeadLetterDiscarded { projection, position, reason }.into()
}

pub(super) fn acknowledge(projection: ProjectionName, position: u64) -> OperatorAction {
    let (position, reason) = (Position::new(position), "seen".to_owned());
    DiscardAcknowledged { projection, position, reason }.into()
}

pub(super) trait RecordActions {
    fn append_action(&mut self, action: OperatorAction) -> &mut Self;
}

impl RecordActions for LogBuilder {
    fn append_action(&mut self, action: OperatorAction) -> &mut Self {
        self.append_raw(STREAM, action.event_type(), &action.payload())
    }
}

/// A log with folders for projections.
pub(super) struct Fixture {
    pub(super) folder: TempDir,
    pub(super) log: Arc<dyn EventStore>,
}

impl Fixture {
    /// Writes the events of `builder` to a new log. Their positions there are 1, 2, 3 …, not those in `builder`.
    pub(super) async fn with_log(builder: &LogBuilder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        let fixture = Self { folder, log };
        fixture.write(&builder.events).await;
        fixture
    }

    pub(super) async fn write(&self, events: &[RecordedEvent]) {
        // `NewEvent` needs names of static lifetime.
        let types = || Event::TYPES.iter().chain(OperatorAction::TYPES);
        for event in events {
            let append = StreamAppend {
                stream: Arc::clone(&event.stream),
                expected_revision: ExpectedRevision::from_last_revision(
                    event.revision.get().checked_sub(1).map(Revision::new),
                ),
                events: vec![NewEvent {
                    id: EventId::new(Uuid::new_v4()),
                    event_type: types().find(|known| **known == event.event_type).unwrap(),
                    schema_version: event.schema_version,
                    recorded_at: event.recorded_at,
                    data: String::from_utf8(event.data.clone()).unwrap(),
                    metadata: "{}".into(),
                }],
            };
            let appended = self.log.append(vec![append]).await.remove(0).unwrap();
            assert_eq!(
                appended.position.get() * 10,
                event.position.get(),
                "the position in the builder is not ten times the position in the log"
            );
        }
    }

    pub(super) fn read_model_store(&self) -> ReadModelProjectionStore {
        ReadModelProjectionStore::new(SqliteReadModelStorage::new(self.path("read-model.db")))
    }

    pub(super) fn search_index_store(&self) -> SearchIndexStore {
        SearchIndexStore { dir: self.path("search") }
    }

    pub(super) fn model(&self) -> SqliteReadModel {
        SqliteReadModel::new(self.path("read-model.db"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    pub(super) async fn events(&self) -> Vec<RecordedEvent> {
        let mut events: Vec<RecordedEvent> = Vec::new();
        loop {
            let after = events.last().map_or(Position::START, |event| event.position);
            let more = self.log.read_all(after, 10_000).await.unwrap();
            if more.is_empty() {
                return events;
            }
            events.extend(more);
        }
    }

    /// Folds the events after the checkpoint, in batches that end at the cuts. The cuts are repeated to the end of the
    /// log. Without cuts, the events are one batch.
    pub(super) async fn project(&self, store: &dyn ProjectionStore, cuts: &[Cut]) {
        let log_id = self.log.log_id().await.unwrap();
        let mut projection = open_when_free(store).await;
        let events = self.events().await;
        let from = projection.checkpoint().position;
        let mut rest: Vec<_> = events.into_iter().filter(|event| event.position > from).collect();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let Cut { batch_size, restart } =
                cuts.next().copied().unwrap_or(Cut { batch_size: rest.len(), restart: false });
            let remaining = rest.split_off(batch_size.min(rest.len()));
            let up_to = rest.last().unwrap().position;
            advance_projection(&mut *projection, &*self.log, log_id, rest, up_to).await.unwrap();
            rest = remaining;
            if restart {
                drop(projection);
                projection = open_when_free(store).await;
            }
        }
    }

    /// Folds the log as a program that can't decode the events at the positions `unreadable`.
    pub(super) async fn project_unable_to_read(&self, store: &dyn ProjectionStore, unreadable: &[u64]) {
        let log_id = self.log.log_id().await.unwrap();
        let mut projection = open_when_free(store).await;
        let mut events = self.events().await;
        for event in events.iter_mut().filter(|event| unreadable.contains(&event.position.get())) {
            event.data = b"{".to_vec();
        }
        let up_to = events.last().unwrap().position;
        projection.fold(log_id, events, up_to).await.unwrap();
    }

    pub(super) async fn row_digest(&self) -> ContentDigest {
        self.model().digest().await.unwrap().value
    }

    pub(super) fn index_digest(&self) -> ContentDigest {
        TantivyIndex::open(&self.search_index_store().dir).unwrap().digest().unwrap().1
    }

    /// Asserts that both projections are equal to scratch builds.
    pub(super) async fn assert_equals_a_rebuild(&self) {
        let folder = tempfile::tempdir().unwrap();
        let rebuilt = compute_scratch_digests(&*self.log, folder.path()).await;
        assert_eq!(self.row_digest().await, rebuilt.read_model);
        assert_eq!(self.index_digest(), rebuilt.search_index);
    }

    pub(super) async fn pending_dead_letters(&self) -> Vec<DeadLetter> {
        self.model().dead_letters(100).await.unwrap().0
    }
}

/// Folds a log. Returns the fixture, and the read model in it.
pub(super) async fn read_model_of(builder: &LogBuilder) -> (Fixture, SqliteReadModel) {
    let fixture = Fixture::with_log(builder).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    let model = fixture.model();
    (fixture, model)
}

pub(super) fn positions(dead_letters: &[DeadLetter]) -> Vec<u64> {
    dead_letters.iter().map(|dead_letter| dead_letter.position.get()).collect()
}

/// Returns the numbers of the messages in the first chat.
pub(super) async fn numbers(model: &SqliteReadModel) -> Vec<u64> {
    let page = model.messages(token(1), chat_number(1), MessageWindow::Newest, 100).await.unwrap();
    page.value.unwrap().messages.iter().map(|message| message.number.get()).collect()
}
