//! Tests of the dead letters of a read model.

use std::path::Path;
use std::sync::Arc;

use chat_ports::dead_letter::DeadLetter;
use chat_ports::read_model::{Missing, ReadModel};
use chat_projector::projection::{Projection, ProjectionError};
use chat_projector::read_model::ReadModelProjection;
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};

use crate::log_builder::*;
use crate::retries::when_free;

/// Opens the read model when it is free.
async fn open(folder: &Path) -> ReadModelProjection {
    let path = folder.join("read-model.db");
    let open_writer = || async { SqliteReadModelWriter::open(&path).map_err(ProjectionError::from) };
    let (writer, _) = when_free(open_writer).await.unwrap();
    ReadModelProjection::load(Arc::new(writer)).await.unwrap()
}

/// Folds the events after the projection's checkpoint.
async fn apply(projection: &mut impl Projection, builder: &LogBuilder) {
    let from = projection.checkpoint().position;
    let events: Vec<_> = builder.events.iter().filter(|event| event.position > from).cloned().collect();
    projection.fold(LOG, events, builder.head()).await.unwrap();
}

async fn dead_letters(folder: &Path) -> Vec<DeadLetter> {
    let model = SqliteReadModel::new(folder.join("read-model.db"));
    let (dead_letters, count) = model.dead_letters(100).await.unwrap();
    assert_eq!(dead_letters.len() as u64, count);
    dead_letters
}

fn positions(dead_letters: &[DeadLetter]) -> Vec<u64> {
    dead_letters.iter().map(|dead_letter| dead_letter.position.get()).collect()
}

#[tokio::test]
async fn an_unreadable_event_blocks_its_stream_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut projection = open(folder.path()).await;
    let mut builder = LogBuilder::with_chat();
    builder
        .append(app(1), chat_created(2))
        .append_raw(&chat(1, 1).to_string(), "MessageCreated", "not json")
        .append(chat(1, 1), created(2, "held back"))
        .append(chat(1, 2), created(1, "goes on"));
    apply(&mut projection, &builder).await;

    let dead_letters = dead_letters(folder.path()).await;
    assert_eq!(positions(&dead_letters), [40, 50]);
    assert_eq!(
        (dead_letters[0].stream.as_str(), dead_letters[0].event_type.as_str()),
        (&*chat(1, 1).to_string(), "MessageCreated")
    );
    assert_eq!(projection.dead_letter_count(), 2);
    let model = SqliteReadModel::new(folder.path().join("read-model.db"));
    let message = |chat| model.message(token(1), chat_number(chat), message_number(1));
    assert_eq!(message(1).await.unwrap().value, Err(Missing::Message));
    assert_eq!(message(2).await.unwrap().value.unwrap().body, "goes on");
    assert_eq!(model.position().await.unwrap(), builder.head());
}

#[tokio::test]
async fn a_blocked_stream_stays_blocked_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut projection = open(folder.path()).await;
    let mut builder = LogBuilder::with_chat();
    builder.append(chat(1, 1), created(2, "a gap"));
    apply(&mut projection, &builder).await;
    drop(projection);

    let mut projection = open(folder.path()).await;
    assert_eq!(projection.dead_letter_count(), 1);
    builder.append(chat(1, 1), created(1, "too late"));
    apply(&mut projection, &builder).await;
    let dead_letters = dead_letters(folder.path()).await;
    assert_eq!(positions(&dead_letters), [30, 40]);
    assert_eq!(dead_letters[1].reason, "an earlier event of its stream is parked");
}

#[tokio::test]
async fn events_that_depend_on_a_blocked_stream_become_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let mut projection = open(folder.path()).await;
    let mut builder = LogBuilder::with_chat();
    builder
        .append_raw(&app(1).to_string(), "AppRenamed", "{}")
        .append(app(1), chat_created(2))
        .append(chat(1, 2), created(1, "no chat"))
        .append(chat(1, 1), created(1, "has its chat"));
    apply(&mut projection, &builder).await;
    let dead_letters = dead_letters(folder.path()).await;
    assert_eq!(positions(&dead_letters), [30, 40, 50]);
    assert!(dead_letters[2].reason.contains("the event that created it is missing or parked"));
}
