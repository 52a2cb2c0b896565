//! Tests of discards of dead letters, and of their acknowledgement.

use chat_domain::Position;
use chat_ports::read_model::{Missing, ReadModel};
use chat_projector::dead_letters::{DeadLetterAction, RETRY_CHUNK_EVENTS, apply_action};

use super::test_log::*;
use crate::log_builder::*;
use crate::retries::open_when_free;

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
    assert_eq!(
        (row.message_count, row.version.get()),
        (3, 6),
        "the version does not count the discarded event, or the message count does"
    );

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
    assert_eq!(
        positions(&fixture.pending_dead_letters().await),
        [5],
        "the message was applied without its chat 2, or another event is pending"
    );
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
    // The actions are for a waiting dead letter, for an applied event, for another projection, and for a dead letter
    // that is not discarded.
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
    // The event at position 4 was built at position 40, which determines its time.
    assert_eq!((discarded.by.get(), discarded.at, discarded.acknowledged), (4, at(40), None));
    assert_eq!(discarded.reason, "no program can read it");
    drop(projection);

    let written = builder.events.len();
    builder.append_action(acknowledge(READ_MODEL, 3)).append_action(acknowledge(READ_MODEL, 3));
    fixture.write(&builder.events[written..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    let mut projection = open_when_free(&fixture.read_model_store()).await;
    assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 0));
    let dead_letter = projection.dead_letter_queue().dead_letter(Position::new(3)).await.unwrap().unwrap();
    assert_eq!(dead_letter.discarded.unwrap().acknowledged, Some(Position::new(6)));
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
    let written = builder.events.len();
    builder.append_action(discard(READ_MODEL, 3));
    fixture.write(&builder.events[written..]).await;

    // Simulates a crash after the first chunk is committed.
    let log_id = fixture.log.log_id().await.unwrap();
    let action = fixture.events().await.into_iter().nth(written).unwrap();
    let action = DeadLetterAction::from_event(&action, READ_MODEL).unwrap();
    let mut projection = open_when_free(&fixture.read_model_store()).await;
    let position = projection.checkpoint().position;
    let outcome =
        apply_action(projection.dead_letter_queue(), &*fixture.log, log_id, &action, 1).await.unwrap();
    assert_eq!(
        (outcome.applied, outcome.has_discarded_or_acknowledged, outcome.is_complete),
        (RETRY_CHUNK_EVENTS as u64 - 1, true, false)
    );
    assert_eq!(
        projection.checkpoint().position,
        position,
        "the checkpoint is past an action that is not complete"
    );
    drop(projection);

    fixture.project(&fixture.read_model_store(), &[]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    assert_eq!(fixture.pending_dead_letters().await, []);
    let projection = open_when_free(&fixture.read_model_store()).await;
    assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 1));
    drop(projection);
    fixture.assert_equals_a_rebuild().await;
}
