//! Tests of projections of a log in KurrentDB, on a fake server.

use std::path::Path;
use std::sync::Arc;

use chat_domain::metadata::EventId;
use chat_domain::{Event, ExpectedRevision, Position, Revision, StreamId};
use chat_kurrentdb::{KurrentDbEventStore, KurrentDbUrl};
use chat_ports::event_store::{EventStore, NewEvent, RecordedEvent, StreamAppend};
use chat_ports::read_model::ReadModel;
use chat_projector::projection::ProjectionStore;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::search::SearchIndexStore;
use chat_projector::{ProjectorState, RecoveryPolicy, spawn_projector};
use chat_search::TantivyIndex;
use chat_sqlite::{SqliteEventStore, SqliteReadModel, SqliteReadModelStorage};
use chat_testing::kurrentdb::FakeKurrentDb;
use chat_testing::port;
use tokio::sync::watch;
use uuid::Uuid;

use crate::deadline::within;
use crate::log_builder::*;
use crate::retries::recreate_when_free;
use crate::scratch_build::compute_scratch_digests;

async fn open(server: &FakeKurrentDb) -> Arc<dyn EventStore> {
    let url = KurrentDbUrl::parse(&server.url()).unwrap();
    Arc::new(KurrentDbEventStore::open(&url).await.unwrap())
}

/// Appends each event to each of the logs, with the same id, in an append of its own. An event comes with its stream
/// and revision. Returns the position of the last event in the last log.
async fn append_to_all(logs: &[&Arc<dyn EventStore>], events: &[(StreamId, u64, Event)]) -> Position {
    let mut position = Position::START;
    for (stream, revision, event) in events {
        let append = StreamAppend {
            stream: stream.to_string().into(),
            expected_revision: ExpectedRevision::from_last_revision(
                revision.checked_sub(1).map(Revision::new),
            ),
            events: vec![NewEvent {
                id: EventId::new(Uuid::new_v4()),
                event_type: event.event_type(),
                schema_version: event.schema_version(),
                recorded_at: at(*revision),
                data: event.payload(),
                metadata: r#"{"command":"Test"}"#.into(),
            }],
        };
        for log in logs {
            position = log.append(vec![append.clone()]).await.remove(0).unwrap().position;
        }
    }
    position
}

/// Returns the events of an app with a chat of `message_count` messages, each event with its stream and revision. Some
/// messages are edited or deleted.
fn sample_events(app_number: u8, message_count: u64) -> Vec<(StreamId, u64, Event)> {
    let mut events = vec![(app(app_number), 0, app_created("an app")), (app(app_number), 1, chat_created(1))];
    let mut revision = 0;
    let mut push_chat_event = |event| {
        events.push((chat(app_number, 1), revision, event));
        revision += 1;
    };
    for message in 1..=message_count {
        push_chat_event(created(message, &format!("message {message}, Grüße 🦊")));
        if message % 3 == 0 {
            push_chat_event(edited(message - 1, &format!("edited {message}")));
        }
        // A message is deleted after its edit: an edit of a deleted message would be a dead letter.
        if message % 5 == 0 {
            push_chat_event(deleted(message - 2));
        }
    }
    events.push((app(app_number), 2, app_renamed("another name")));
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misses_no_event_of_a_server_that_disconnects() {
    let server = FakeKurrentDb::start_at(port::find_free_for_restarts().unwrap()).unwrap();
    let log = open(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    let (stop, stop_receiver) = watch::channel(false);
    let store = Arc::new(ReadModelProjectionStore::new(SqliteReadModelStorage::new(path.clone())));
    let running = spawn_projector(store, Arc::clone(&log), RecoveryPolicy::Rebuild, stop_receiver);
    let mut last = Position::START;
    for round in 1..=6 {
        last = append_to_all(&[&log], &sample_events(round, 20)).await;
        server.append_foreign_events("orders-1", 10);
        match round {
            2 => server.end_subscriptions(),
            3 => server.cut_connections(),
            4 => {
                server.go_down();
                server.come_up().unwrap();
            }
            _ => assert!(within("reaching the position", running.wait_for_position(last)).await),
        }
    }
    // Events of other programs follow the event at `last`. They must not keep the projector from being live.
    let mut status = running.status.clone();
    within("the state live", status.wait_for(|status| status.state == ProjectorState::Live)).await.unwrap();
    let rebuilt = compute_scratch_digests(&*log, tempfile::tempdir().unwrap().path()).await;
    let digest = SqliteReadModel::new(path).digest().await.unwrap();
    assert_eq!(digest.value, rebuilt.read_model);
    assert!(digest.position >= last);
    assert_eq!(running.status.borrow().dead_letters, 0);
    stop.send_replace(true);
    within("stopping", running.join).await.unwrap();
}

/// Reads events from a subscription.
async fn read_subscription(log: &Arc<dyn EventStore>, count: usize) -> Vec<RecordedEvent> {
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(within("the next event", subscription.next(64)).await.unwrap().events);
    }
    events
}

/// Folds events in small batches.
async fn fold(store: &dyn ProjectionStore, log: &Arc<dyn EventStore>, events: &[RecordedEvent]) {
    let log_id = log.log_id().await.unwrap();
    let mut projection = recreate_when_free(store).await;
    for batch in events.chunks(7) {
        projection.fold(log_id, batch.to_vec(), batch.last().unwrap().position).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_events_give_the_same_projections_from_either_event_store() {
    let server = FakeKurrentDb::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sqlite: Arc<dyn EventStore> =
        Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
    let kurrentdb = open(&server).await;
    for number in 1..=3 {
        append_to_all(&[&sqlite, &kurrentdb], &sample_events(number, 40)).await;
        server.append_foreign_events("orders-1", 5);
    }
    let expected = sqlite.read_all(Position::START, 10_000).await.unwrap();
    let mut events = read_subscription(&kurrentdb, expected.len()).await;
    // A row's id is the position of the event that created it, and an event's position differs between the logs. So
    // each event from KurrentDB gets the position that it has in SQLite.
    for (event, expected) in events.iter_mut().zip(&expected) {
        event.position = expected.position;
    }
    assert_eq!(events, expected);

    let (path, dir) = (folder.path().join("read-model.db"), folder.path().join("search"));
    fold(&ReadModelProjectionStore::new(SqliteReadModelStorage::new(path.clone())), &kurrentdb, &events)
        .await;
    fold(&SearchIndexStore { dir: dir.clone() }, &kurrentdb, &events).await;
    let rebuilt = compute_scratch_digests(&*sqlite, &create_folder(folder.path(), "rebuilt")).await;
    let read_model = SqliteReadModel::new(path);
    assert_eq!(read_model.dead_letters(1).await.unwrap(), (Vec::new(), 0));
    assert_eq!(read_model.digest().await.unwrap().value, rebuilt.read_model);
    assert_eq!(TantivyIndex::open(&dir).unwrap().digest().unwrap().1, rebuilt.search_index);
}

fn create_folder(parent: &Path, name: &str) -> std::path::PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}
