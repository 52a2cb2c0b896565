//! Operator actions on dead letters, on a real event store and in each engine.

use std::path::Path;
use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::operator_action::{DeadLetterDiscarded, DeadLettersRetried, DiscardAcknowledged, STREAM};
use chat_domain::projection::ProjectionName;
use chat_domain::{Event, ExpectedRevision, OperatorAction, Position, Revision, StreamId};
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{EventStore, NewEvent, RecordedEvent, StreamAppend};
use chat_ports::read_model::{MessageWindow, Missing, ReadModel};
use chat_postgres::{PostgresReadModel, PostgresReadModelStorage, PostgresUrl};
use chat_projector::dead_letters::{DeadLetterAction, RETRY_CHUNK_EVENTS, advance_projection, apply_action};
use chat_projector::projection::ProjectionStore;
use chat_projector::read_model::ReadModelStore;
use chat_projector::search::SearchIndexStore;
use chat_search::TantivyIndex;
use chat_sqlite::{SqliteEventStore, SqliteReadModel, SqliteReadModelStorage};
use chat_testing::Postgres;
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use crate::batch_independence::open_when_free;
use crate::log_builder::*;
use crate::scratch_build::compute_scratch_digests;

const READ_MODEL: ProjectionName = ProjectionName::ReadModel;
const SEARCH_INDEX: ProjectionName = ProjectionName::SearchIndex;

fn retry(projection: ProjectionName, stream: StreamId) -> OperatorAction {
    let (stream, reason) = (stream.to_string(), "the program can read it now".to_owned());
    DeadLettersRetried { projection, stream, reason }.into()
}

fn discard(projection: ProjectionName, position: u64) -> OperatorAction {
    let (position, reason) = (Position::new(position), "no program can read it".to_owned());
    DeadLetterDiscarded { projection, position, reason }.into()
}

fn acknowledge(projection: ProjectionName, position: u64) -> OperatorAction {
    let (position, reason) = (Position::new(position), "seen".to_owned());
    DiscardAcknowledged { projection, position, reason }.into()
}

trait RecordActions {
    fn append_action(&mut self, action: OperatorAction) -> &mut Self;
}

impl RecordActions for LogBuilder {
    fn append_action(&mut self, action: OperatorAction) -> &mut Self {
        self.append_raw(STREAM, action.event_type(), &action.payload())
    }
}

/// A log with folders for projections.
struct Fixture {
    folder: TempDir,
    log: Arc<dyn EventStore>,
}

impl Fixture {
    /// Writes a log of these events: the first is at position 1, and so on.
    async fn with_log(builder: &LogBuilder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        let fixture = Self { folder, log };
        fixture.write(&builder.events).await;
        fixture
    }

    async fn write(&self, events: &[RecordedEvent]) {
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
                    schema_version: SchemaVersion::CURRENT,
                    recorded_at: event.recorded_at,
                    data: String::from_utf8(event.data.clone()).unwrap(),
                    metadata: "{}".into(),
                }],
            };
            let appended = self.log.append(vec![append]).await.remove(0).unwrap();
            assert_eq!(appended.position.get() * 10, event.position.get(), "built logs count in tens");
        }
    }

    fn read_model_store(&self) -> ReadModelStore {
        ReadModelStore::new(SqliteReadModelStorage::new(self.path("read-model.db")))
    }

    fn search_index_store(&self) -> SearchIndexStore {
        SearchIndexStore { dir: self.path("search") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    async fn events(&self) -> Vec<RecordedEvent> {
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

    /// Folds the log in batches of these sizes; after a batch with `true`, the projection is opened again.
    async fn project(&self, store: &dyn ProjectionStore, cuts: &[(usize, bool)]) {
        let id = self.log.log_id().await.unwrap();
        let mut projection = open_when_free(store).await;
        let events = self.events().await;
        let from = projection.checkpoint().position;
        let mut rest: Vec<_> = events.into_iter().filter(|event| event.position > from).collect();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (size, restart) = cuts.next().copied().unwrap_or((rest.len(), false));
            let left = rest.split_off(size.min(rest.len()));
            let up_to = rest.last().unwrap().position;
            advance_projection(&mut *projection, &*self.log, id, rest, up_to).await.unwrap();
            rest = left;
            if restart {
                drop(projection);
                projection = open_when_free(store).await;
            }
        }
    }

    /// Folds the log as a program that can't decode these events.
    async fn project_unable_to_read(&self, store: &dyn ProjectionStore, unreadable: &[u64]) {
        let id = self.log.log_id().await.unwrap();
        let mut projection = open_when_free(store).await;
        let mut events = self.events().await;
        for event in events.iter_mut().filter(|event| unreadable.contains(&event.position.get())) {
            event.data = b"{".to_vec();
        }
        let up_to = events.last().unwrap().position;
        projection.fold(id, events, up_to).await.unwrap();
    }

    async fn row_digest(&self) -> ContentDigest {
        SqliteReadModel::new(self.read_model_store().path).digest().await.unwrap().value
    }

    fn index_digest(&self) -> ContentDigest {
        TantivyIndex::open(&self.search_index_store().dir).unwrap().digest().unwrap().1
    }

    /// Asserts that both projections equal a scratch build.
    async fn assert_equals_a_rebuild(&self) {
        let folder = tempfile::tempdir().unwrap();
        let rebuilt = compute_scratch_digests(&*self.log, folder.path()).await;
        assert_eq!(self.row_digest().await, rebuilt.read_model);
        assert_eq!(self.index_digest(), rebuilt.search_index);
    }

    async fn pending_dead_letters(&self) -> Vec<DeadLetter> {
        SqliteReadModel::new(self.read_model_store().path).dead_letters(100).await.unwrap().0
    }
}

/// Folds a log, and returns its read model.
async fn read_model_of(builder: &LogBuilder) -> (Fixture, SqliteReadModel) {
    let fixture = Fixture::with_log(builder).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    let model = SqliteReadModel::new(fixture.read_model_store().path);
    (fixture, model)
}

fn positions(dead_letters: &[DeadLetter]) -> Vec<u64> {
    dead_letters.iter().map(|dead_letter| dead_letter.position.get()).collect()
}

/// Numbers of the messages in the first chat.
async fn numbers(model: &SqliteReadModel) -> Vec<u64> {
    let page = model.messages(token(1), chat_number(1), MessageWindow::Newest, 100).await.unwrap();
    page.value.unwrap().messages.iter().map(|message| message.number.get()).collect()
}

#[tokio::test]
async fn a_retry_applies_events_that_this_program_can_decode() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(chat(1, 1), created(1, "one"))
        .append(chat(1, 1), created(2, "two"))
        .append(chat(1, 1), edited(1, "one again"))
        .append(chat(1, 1), deleted(2));
    let fixture = Fixture::with_log(&builder).await;
    fixture.project_unable_to_read(&fixture.read_model_store(), &[3]).await;
    fixture.project_unable_to_read(&fixture.search_index_store(), &[3]).await;
    assert_eq!(positions(&fixture.pending_dead_letters().await), [3, 4, 5, 6]);

    let before = builder.events.len();
    builder
        .append_action(retry(READ_MODEL, chat(1, 1)))
        .append_action(retry(SEARCH_INDEX, chat(1, 1)))
        .append(chat(1, 1), created(3, "after it"));
    fixture.write(&builder.events[before..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    assert_eq!(fixture.pending_dead_letters().await, []);
    assert_eq!(numbers(&SqliteReadModel::new(fixture.read_model_store().path)).await, [1, 3]);
    fixture.assert_equals_a_rebuild().await;
    let projection = open_when_free(&fixture.read_model_store()).await;
    assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 0));
}

#[tokio::test]
async fn a_chats_events_apply_only_after_its_apps_stream_was_retried() {
    let mut builder = LogBuilder::default();
    builder
        .append(app(1), app_created("one"))
        .append(app(1), chat_created(1))
        .append(chat(1, 1), created(1, "one"))
        .append(app(1), app_renamed("two"));
    let fixture = Fixture::with_log(&builder).await;
    fixture.project_unable_to_read(&fixture.read_model_store(), &[2]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    assert_eq!(positions(&fixture.pending_dead_letters().await), [2, 3, 4]);

    let before = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1))).append_action(retry(READ_MODEL, app(1)));
    fixture.write(&builder.events[before..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    assert_eq!(positions(&fixture.pending_dead_letters().await), [3], "the chat did not exist yet");
    let before = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1)));
    fixture.write(&builder.events[before..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    fixture.assert_equals_a_rebuild().await;
}

#[tokio::test]
async fn a_retry_stops_at_the_first_event_that_still_fails() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(chat(1, 1), created(1, "one"))
        .append_raw(&chat(1, 1).to_string(), "MessageEdited", "{}")
        .append(chat(1, 1), created(2, "two"));
    let fixture = Fixture::with_log(&builder).await;
    fixture.project_unable_to_read(&fixture.read_model_store(), &[3]).await;
    let before = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1))).append(chat(1, 1), created(3, "three"));
    fixture.write(&builder.events[before..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    let dead_letters = fixture.pending_dead_letters().await;
    assert_eq!(positions(&dead_letters), [4, 5, 7]);
    assert_eq!(dead_letters[0].reason, "its payload is not of its version's shape (line 1, column 2)");
    assert!(dead_letters[1].is_waiting() && dead_letters[2].is_waiting());
    fixture.project(&fixture.search_index_store(), &[]).await;
    fixture.assert_equals_a_rebuild().await;
}

#[tokio::test]
async fn a_discarded_message_uses_up_its_number() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(chat(1, 1), created(1, "one"))
        .append_raw(&chat(1, 1).to_string(), "MessageCreated", "not json")
        .append(chat(1, 1), created(3, "three"))
        .append_action(discard(READ_MODEL, 4))
        .append(chat(1, 1), edited(2, "of no use"))
        .append(chat(1, 1), created(4, "four"))
        .append(chat(1, 1), deleted(2));
    let (fixture, model) = read_model_of(&builder).await;
    assert_eq!(fixture.pending_dead_letters().await, []);
    assert_eq!(numbers(&model).await, [1, 3, 4]);
    let two = model.message(token(1), chat_number(1), message_number(2)).await.unwrap().value;
    assert_eq!(two, Err(Missing::Message));
    let row = model.chat(token(1), chat_number(1)).await.unwrap().value.unwrap();
    assert_eq!((row.message_count, row.version.get()), (3, 6), "versions count all events of the log");

    let projection = open_when_free(&fixture.read_model_store()).await;
    assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 1));
}

#[tokio::test]
async fn a_discarded_chat_uses_up_its_number() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append_raw(&app(1).to_string(), "ChatCreated", "{}")
        .append(app(1), chat_created(3))
        .append(chat(1, 2), created(1, "nowhere"))
        .append(chat(1, 3), created(1, "here"))
        .append_action(discard(READ_MODEL, 3))
        .append_action(retry(READ_MODEL, chat(1, 3)))
        .append_action(retry(READ_MODEL, chat(1, 2)))
        .append(app(1), chat_created(4));
    let (fixture, model) = read_model_of(&builder).await;
    assert_eq!(positions(&fixture.pending_dead_letters().await), [5], "its chat is never created");
    let app = model.app(token(1)).await.unwrap().value.unwrap();
    assert_eq!((app.chat_count, app.last_chat, app.version.get()), (3, Some(chat_number(4)), 5));
    let chats = model.chats(token(1), None, 10).await.unwrap().value.unwrap();
    assert_eq!(chats.iter().map(|chat| chat.number.get()).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(chats[1].message_count, 1);
    fixture.project(&fixture.search_index_store(), &[]).await;
    fixture.assert_equals_a_rebuild().await;
}

#[tokio::test]
async fn only_the_first_dead_letter_of_a_stream_can_be_discarded() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append_raw(&chat(1, 1).to_string(), "MessageCreated", "{}")
        .append(chat(1, 1), created(2, "waits"))
        .append_action(discard(READ_MODEL, 4))
        .append_action(discard(READ_MODEL, 2))
        .append_action(discard(SEARCH_INDEX, 3))
        .append_action(acknowledge(READ_MODEL, 3));
    let (fixture, _) = read_model_of(&builder).await;
    assert_eq!(positions(&fixture.pending_dead_letters().await), [3, 4]);
    assert_eq!(open_when_free(&fixture.read_model_store()).await.discarded_count(), 0);
}

#[tokio::test]
async fn a_discarded_event_is_counted_until_it_is_acknowledged() {
    let mut builder = LogBuilder::with_chat();
    builder.append_raw(&chat(1, 1).to_string(), "MessageCreated", "{}").append_action(discard(READ_MODEL, 3));
    builder.append_action(discard(READ_MODEL, 3));
    let (fixture, _) = read_model_of(&builder).await;
    let mut projection = open_when_free(&fixture.read_model_store()).await;
    assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 1));
    let dead_letter = projection.dead_letter_queue().dead_letter(Position::new(3)).await.unwrap().unwrap();
    let discarded = dead_letter.discarded.unwrap();
    assert_eq!((discarded.by.get(), discarded.at, discarded.acknowledged), (4, at(40), None));
    assert_eq!(discarded.reason, "no program can read it");
    drop(projection);

    let before = builder.events.len();
    builder.append_action(acknowledge(READ_MODEL, 3)).append_action(acknowledge(READ_MODEL, 3));
    fixture.write(&builder.events[before..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    let mut projection = open_when_free(&fixture.read_model_store()).await;
    assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 0));
    let dead_letter = projection.dead_letter_queue().dead_letter(Position::new(3)).await.unwrap().unwrap();
    assert_eq!(dead_letter.discarded.unwrap().acknowledged, Some(Position::new(6)));
}

#[tokio::test]
async fn a_long_stream_is_retried_in_chunks_and_survives_a_crash_between_them() {
    let messages = 2 * RETRY_CHUNK_EVENTS as u64 + 10;
    let mut builder = LogBuilder::with_chat();
    for number in 1..=messages {
        builder.append(chat(1, 1), created(number, &format!("message {number}")));
    }
    let fixture = Fixture::with_log(&builder).await;
    fixture.project_unable_to_read(&fixture.read_model_store(), &[3]).await;
    fixture.project_unable_to_read(&fixture.search_index_store(), &[3]).await;
    let before = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1))).append_action(retry(SEARCH_INDEX, chat(1, 1)));
    fixture.write(&builder.events[before..]).await;

    // A crash after the first chunk is committed.
    let id = fixture.log.log_id().await.unwrap();
    let action = fixture.events().await.into_iter().nth(before).unwrap();
    let action = DeadLetterAction::from_event(&action, READ_MODEL).unwrap();
    let mut projection = open_when_free(&fixture.read_model_store()).await;
    let at = projection.checkpoint().position;
    let outcome = apply_action(projection.dead_letter_queue(), &*fixture.log, id, &action, 1).await.unwrap();
    assert_eq!((outcome.applied, outcome.is_complete), (RETRY_CHUNK_EVENTS as u64, false));
    assert_eq!(projection.checkpoint().position, at, "the action is not complete");
    drop(projection);

    fixture.project(&fixture.read_model_store(), &[]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    assert_eq!(fixture.pending_dead_letters().await, []);
    fixture.assert_equals_a_rebuild().await;
}

#[tokio::test]
async fn a_discard_resumes_after_a_crash_between_its_chunks() {
    let messages = RETRY_CHUNK_EVENTS as u64 + 10;
    let mut builder = LogBuilder::with_chat();
    builder.append_raw(&chat(1, 1).to_string(), "MessageCreated", "not json");
    for number in 2..=messages {
        builder.append(chat(1, 1), created(number, &format!("message {number}")));
    }
    let fixture = Fixture::with_log(&builder).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    let before = builder.events.len();
    builder.append_action(discard(READ_MODEL, 3));
    fixture.write(&builder.events[before..]).await;

    // A crash after the first chunk is committed.
    let id = fixture.log.log_id().await.unwrap();
    let action = fixture.events().await.into_iter().nth(before).unwrap();
    let action = DeadLetterAction::from_event(&action, READ_MODEL).unwrap();
    let mut projection = open_when_free(&fixture.read_model_store()).await;
    let at = projection.checkpoint().position;
    let outcome = apply_action(projection.dead_letter_queue(), &*fixture.log, id, &action, 1).await.unwrap();
    assert_eq!(
        (outcome.applied, outcome.has_discarded_or_acknowledged, outcome.is_complete),
        (RETRY_CHUNK_EVENTS as u64 - 1, true, false)
    );
    assert_eq!(projection.checkpoint().position, at, "the action is not complete");
    drop(projection);

    fixture.project(&fixture.read_model_store(), &[]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    assert_eq!(fixture.pending_dead_letters().await, []);
    let projection = open_when_free(&fixture.read_model_store()).await;
    assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 1));
    drop(projection);
    fixture.assert_equals_a_rebuild().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_give_the_same_result_in_postgres() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(chat(1, 1), created(1, "one"))
        .append_raw(&chat(1, 1).to_string(), "MessageCreated", "not json")
        .append(chat(1, 1), created(3, "three"))
        .append_raw(&app(1).to_string(), "ChatCreated", "{}")
        .append(app(1), chat_created(3))
        .append_action(discard(READ_MODEL, 4))
        .append_action(discard(READ_MODEL, 6))
        .append_action(acknowledge(READ_MODEL, 4))
        .append_raw(&chat(1, 1).to_string(), "MessageEdited", "{}")
        .append_action(retry(READ_MODEL, chat(1, 1)))
        .append(chat(1, 3), created(1, "here"));
    let (fixture, sqlite) = read_model_of(&builder).await;
    let database = Postgres::shared().create_database();
    let url = PostgresUrl::parse(&database).unwrap();
    fixture
        .project(&ReadModelStore::new(PostgresReadModelStorage::new(url.clone())), &[(2, false), (3, false)])
        .await;
    let postgres = PostgresReadModel::new(url);
    assert_eq!(sqlite.digest().await.unwrap(), postgres.digest().await.unwrap());
    assert_eq!(positions(&postgres.dead_letters(10).await.unwrap().0), [11]);
    postgres.verify().await.unwrap();
}

/// An operator action at some position of a log.
#[derive(Clone, Copy, Debug)]
enum Action {
    Retry(u64),
    Discard(prop::sample::Index),
    Acknowledge(prop::sample::Index),
}

fn actions() -> impl Strategy<Value = Vec<(prop::sample::Index, ProjectionName, Action)>> {
    let action = prop_oneof![
        (0..3_u64).prop_map(Action::Retry),
        any::<prop::sample::Index>().prop_map(Action::Discard),
        any::<prop::sample::Index>().prop_map(Action::Discard),
        any::<prop::sample::Index>().prop_map(Action::Acknowledge),
    ];
    vec((any::<prop::sample::Index>(), prop::sample::select(&ProjectionName::ALL[..]), action), 1..8)
}

/// Builds a log of two chats with messages, with some unreadable events and actions in between.
fn build_log(
    broken: &[prop::sample::Index],
    actions: &[(prop::sample::Index, ProjectionName, Action)],
) -> LogBuilder {
    let mut whole = LogBuilder::with_chat();
    whole.append(app(1), chat_created(2));
    for number in 1..=5 {
        whole.append(chat(1, 1), created(number, "a")).append(chat(1, 2), created(number, "b"));
        whole.append(chat(1, 1), edited(number, "c")).append(app(1), app_renamed("d"));
        if number % 2 == 0 {
            whole.append(chat(1, 2), deleted(number));
        }
    }
    let broken: Vec<usize> = broken.iter().map(|index| index.index(whole.events.len())).collect();
    let mut builder = LogBuilder::default();
    let mut bad = Vec::new();
    for (index, event) in whole.events.iter().enumerate() {
        let data = String::from_utf8(event.data.clone()).unwrap();
        if broken.contains(&index) {
            bad.push(builder.events.len() as u64 + 1);
        }
        let data = if broken.contains(&index) { "{".to_owned() } else { data };
        builder.append_raw(&event.stream, &event.event_type, &data);
        for (place, projection, action) in actions {
            if place.index(whole.events.len()) != index || bad.is_empty() {
                continue;
            }
            let at = |index: &prop::sample::Index| bad[index.index(bad.len())];
            match action {
                Action::Retry(0) => builder.append_action(retry(*projection, app(1))),
                Action::Retry(number) => builder.append_action(retry(*projection, chat(1, *number))),
                Action::Discard(of) => builder.append_action(discard(*projection, at(of))),
                Action::Acknowledge(of) => builder.append_action(acknowledge(*projection, at(of))),
            };
        }
    }
    builder
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn actions_give_the_same_result_whatever_the_batches_and_restarts(
        broken in vec(any::<prop::sample::Index>(), 1..5),
        actions in actions(),
        cuts in vec((1..12_usize, prop::bool::weighted(0.2)), 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::with_log(&build_log(&broken, &actions)).await;
            fixture.project(&fixture.read_model_store(), &cuts).await;
            fixture.project(&fixture.search_index_store(), &cuts).await;
            fixture.assert_equals_a_rebuild().await;
        });
    }
}
