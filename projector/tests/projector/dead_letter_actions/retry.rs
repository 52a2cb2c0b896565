//! Tests of retries of dead letters.

use chat_projector::dead_letters::{DeadLetterAction, RETRY_CHUNK_EVENTS, apply_action};

use super::test_log::*;
use crate::log_builder::*;
use crate::retries::open_when_free;

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

    let written = builder.events.len();
    builder
        .append_action(retry(READ_MODEL, chat(1, 1)))
        .append_action(retry(SEARCH_INDEX, chat(1, 1)))
        .append(chat(1, 1), created(3, "after it"));
    fixture.write(&builder.events[written..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    assert_eq!(fixture.pending_dead_letters().await, []);
    assert_eq!(numbers(&fixture.model()).await, [1, 3]);
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

    let written = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1))).append_action(retry(READ_MODEL, app(1)));
    fixture.write(&builder.events[written..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    assert_eq!(
        positions(&fixture.pending_dead_letters().await),
        [3],
        "the chat's event was applied before its chat, or another event is pending"
    );
    let written = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1)));
    fixture.write(&builder.events[written..]).await;
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
    let written = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1))).append(chat(1, 1), created(3, "three"));
    fixture.write(&builder.events[written..]).await;
    fixture.project(&fixture.read_model_store(), &[]).await;
    let dead_letters = fixture.pending_dead_letters().await;
    assert_eq!(positions(&dead_letters), [4, 5, 7]);
    assert_eq!(dead_letters[0].reason, "its payload is not of its version's shape (line 1, column 2)");
    assert!(dead_letters[1].is_waiting() && dead_letters[2].is_waiting());
    fixture.project(&fixture.search_index_store(), &[]).await;
    fixture.assert_equals_a_rebuild().await;
}

#[tokio::test]
async fn a_retry_applies_the_intact_events_before_a_damaged_one() {
    let mut builder = LogBuilder::with_chat();
    for number in 1..=4 {
        builder.append(chat(1, 1), created(number, &format!("message {number}")));
    }
    let fixture = Fixture::with_log(&builder).await;
    fixture.project_unable_to_read(&fixture.read_model_store(), &[3]).await;
    let written = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1)));
    fixture.write(&builder.events[written..]).await;
    let log_id = fixture.log.log_id().await.unwrap();
    let action = fixture.events().await.into_iter().nth(written).unwrap();
    let action = DeadLetterAction::from_event(&action, READ_MODEL).unwrap();
    // Damages the third message, so that the log can't be read there.
    let file = rusqlite::Connection::open(fixture.path("events.db")).unwrap();
    file.execute("UPDATE events SET id = x'00' WHERE position = 5", []).unwrap();

    let mut projection = open_when_free(&fixture.read_model_store()).await;
    let queue = projection.dead_letter_queue();
    let outcome = apply_action(queue, &*fixture.log, log_id, &action, usize::MAX).await.unwrap();
    assert_eq!(outcome.applied, 2);
    assert_eq!(outcome.first_failure.map(|dead_letter| dead_letter.position.get()), Some(5));
    drop(projection);
    assert_eq!(numbers(&fixture.model()).await, [1, 2]);
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
    let written = builder.events.len();
    builder.append_action(retry(READ_MODEL, chat(1, 1))).append_action(retry(SEARCH_INDEX, chat(1, 1)));
    fixture.write(&builder.events[written..]).await;

    // Simulates a crash after the first chunk is committed.
    let log_id = fixture.log.log_id().await.unwrap();
    let action = fixture.events().await.into_iter().nth(written).unwrap();
    let action = DeadLetterAction::from_event(&action, READ_MODEL).unwrap();
    let mut projection = open_when_free(&fixture.read_model_store()).await;
    let position = projection.checkpoint().position;
    let outcome =
        apply_action(projection.dead_letter_queue(), &*fixture.log, log_id, &action, 1).await.unwrap();
    assert_eq!((outcome.applied, outcome.is_complete), (RETRY_CHUNK_EVENTS as u64, false));
    assert_eq!(
        projection.checkpoint().position,
        position,
        "the checkpoint is past an action that is not complete"
    );
    drop(projection);

    fixture.project(&fixture.read_model_store(), &[]).await;
    fixture.project(&fixture.search_index_store(), &[]).await;
    assert_eq!(fixture.pending_dead_letters().await, []);
    fixture.assert_equals_a_rebuild().await;
}
