//! Dead letters of a read model.

use std::path::Path;

use chat_ports::dead_letter::DeadLetter;
use chat_ports::read_model::{Missing, ReadModel};
use chat_projector::projection::Projection;
use chat_projector::read_model::ReadModelProjection;
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};

use crate::log_builder::*;

async fn open(folder: &Path) -> ReadModelProjection<SqliteReadModelWriter> {
    let (writer, _) = SqliteReadModelWriter::open(&folder.join("read-model.db")).unwrap();
    ReadModelProjection::load(writer).await.unwrap()
}

async fn apply(projection: &mut impl Projection, story: &LogBuilder) {
    let from = projection.checkpoint().position;
    let events: Vec<_> = story.events.iter().filter(|event| event.position > from).cloned().collect();
    projection.fold(LOG, events, story.head()).await.unwrap();
}

async fn dead_letters(folder: &Path) -> Vec<DeadLetter> {
    let model = SqliteReadModel::new(folder.join("read-model.db"));
    let (letters, count) = model.dead_letters(100).await.unwrap();
    assert_eq!(letters.len() as u64, count);
    letters
}

fn positions(letters: &[DeadLetter]) -> Vec<u64> {
    letters.iter().map(|letter| letter.position.get()).collect()
}

#[tokio::test]
async fn an_unreadable_event_blocks_its_stream_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut projection = open(folder.path()).await;
    let mut story = LogBuilder::with_chat();
    story
        .tell(app(1), chat_created(2))
        .tell_raw(&chat(1, 1).to_string(), "MessageCreated", "not json")
        .tell(chat(1, 1), created(2, "held back"))
        .tell(chat(1, 2), created(1, "goes on"));
    apply(&mut projection, &story).await;

    let letters = dead_letters(folder.path()).await;
    assert_eq!(positions(&letters), [40, 50]);
    assert_eq!(
        (letters[0].stream.as_str(), letters[0].event_type.as_str()),
        (&*chat(1, 1).to_string(), "MessageCreated")
    );
    assert_eq!(projection.dead_letter_count(), 2);
    let model = SqliteReadModel::new(folder.path().join("read-model.db"));
    let message = |chat| model.message(token(1), chat_number(chat), message_number(1));
    assert_eq!(message(1).await.unwrap().value, Err(Missing::Message));
    assert_eq!(message(2).await.unwrap().value.unwrap().body, "goes on");
    assert_eq!(model.position().await.unwrap(), story.head());
}

#[tokio::test]
async fn a_blocked_stream_stays_blocked_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut projection = open(folder.path()).await;
    let mut story = LogBuilder::with_chat();
    story.tell(chat(1, 1), created(2, "a gap"));
    apply(&mut projection, &story).await;
    drop(projection);

    let mut projection = open(folder.path()).await;
    assert_eq!(projection.dead_letter_count(), 1);
    story.tell(chat(1, 1), created(1, "too late"));
    apply(&mut projection, &story).await;
    let letters = dead_letters(folder.path()).await;
    assert_eq!(positions(&letters), [30, 40]);
    assert_eq!(letters[1].reason, "an earlier event of its stream is parked");
}

#[tokio::test]
async fn events_that_depend_on_a_blocked_stream_become_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let mut projection = open(folder.path()).await;
    let mut story = LogBuilder::with_chat();
    story
        .tell_raw(&app(1).to_string(), "AppRenamed", "{}")
        .tell(app(1), chat_created(2))
        .tell(chat(1, 2), created(1, "no chat"))
        .tell(chat(1, 1), created(1, "has its chat"));
    apply(&mut projection, &story).await;
    let letters = dead_letters(folder.path()).await;
    assert_eq!(positions(&letters), [30, 40, 50]);
    assert!(letters[2].reason.contains("the event that created it is missing or parked"));
}
