//! Tests of the states of apps, chats and messages, folded from the log, with the event that set each field.

use chat_domain::operator_action::DeadLetterDiscarded;
use chat_domain::projection::ProjectionName;
use chat_domain::{Position, operator_action};
use chat_operations::audit::Existence::{Absent, Deleted, Present};
use chat_operations::audit::{
    EventDiscard, Existence, FieldValue, NeighbouringChanges, Subject, SubjectState, difference,
    event_effects, neighbouring_changes, past_messages, state_at, subject_state,
};
use serde_json::json;

use crate::fixture::*;

/// A position beyond the head: the state there is the current one.
const NOW: Position = Position::new(u64::MAX >> 1);

/// A field's value, and the position of the event that set it.
fn field(state: &SubjectState, name: &str) -> (serde_json::Value, Position) {
    let field = state.field(name).unwrap();
    let value = match &field.value {
        FieldValue::Json(value) => value.clone(),
        FieldValue::Data(data) => json!(data.as_str()),
    };
    (value, field.set_by.position)
}

/// Appends an app with a chat of three messages, the second edited twice, the first deleted. Returns the positions of
/// the events.
async fn append_chat(log: &Log) -> Vec<Position> {
    let events = [
        (app(1), app_created("one")),
        (app(1), chat_created(1)),
        (chat(1, 1), created(1, "first")),
        (chat(1, 1), created(2, "second")),
        (chat(1, 1), edited(2, "second, edited")),
        (app(1), app_renamed("one, renamed")),
        (chat(1, 1), deleted(1)),
        (chat(1, 1), created(3, "third")),
        (chat(1, 1), edited(2, "second, edited again")),
    ];
    let test_event = |(second, (stream, event))| TestEvent::new(stream, event).at(second);
    log.append_all((0..).zip(events).map(test_event)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_has_the_event_that_set_it() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log).await;
        let one = subject_state(&*log.event_store, Subject::App(token(1)), NOW).await.unwrap();
        assert_eq!(field(&one, "name"), (json!("one, renamed"), positions[5]));
        assert_eq!(field(&one, "chat_count"), (json!(1), positions[1]));
        assert_eq!(field(&one, "created_at"), (json!(at_text(0)), positions[0]));
        assert_eq!(field(&one, "updated_at"), (json!(at_text(5)), positions[5]));

        let chat =
            subject_state(&*log.event_store, Subject::Chat(token(1), chat_number(1)), NOW).await.unwrap();
        assert_eq!(field(&chat, "message_count"), (json!(2), positions[7]));
        assert_eq!(field(&chat, "version"), (json!(6), positions[8]));

        let second = Subject::Message(token(1), chat_number(1), message_number(2));
        let second = subject_state(&*log.event_store, second, NOW).await.unwrap();
        assert_eq!(field(&second, "body"), (json!("second, edited again"), positions[8]));
        assert_eq!(field(&second, "version"), (json!(3), positions[8]));
        assert_eq!(field(&second, "created_at"), (json!(at_text(3)), positions[3]));
    }
}

fn at_text(second: i64) -> String {
    crate::fixture::at(second).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn computes_the_state_after_each_event() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log).await;
        let message = |number| Subject::Message(token(1), chat_number(1), message_number(number));
        let mut bodies = Vec::new();
        let mut existences = Vec::new();
        let mut counts = Vec::new();
        for position in &positions {
            let second = subject_state(&*log.event_store, message(2), *position).await.unwrap();
            bodies.push(second.field("body").map(|_| field(&second, "body").0));
            existences.push(subject_state(&*log.event_store, message(1), *position).await.unwrap().existence);
            let chat = subject_state(&*log.event_store, Subject::Chat(token(1), chat_number(1)), *position)
                .await
                .unwrap();
            counts
                .push(chat.field("message_count").map(|_| field(&chat, "message_count").0.as_u64().unwrap()));
        }
        let (created_body, edited_body) = (json!("second"), json!("second, edited"));
        let last_body = json!("second, edited again");
        let expected = [None, None, None, Some(created_body)].into_iter();
        let expected = expected.chain(vec![Some(edited_body); 4]).chain([Some(last_body)]);
        assert_eq!(bodies, expected.collect::<Vec<_>>());
        assert_eq!(
            existences,
            [Absent, Absent, Present, Present, Present, Present, Deleted, Deleted, Deleted]
        );
        let expected_counts = [None, Some(0), Some(1), Some(2), Some(2), Some(2), Some(1), Some(2), Some(2)];
        assert_eq!(counts, expected_counts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_lists_changed_fields_and_events() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log).await;
        let second = Subject::Message(token(1), chat_number(1), message_number(2));
        let changed =
            difference(&*log.event_store, positions[4], positions[8], second, u64::MAX).await.unwrap();
        let names: Vec<_> = changed.changes.iter().map(|change| change.name).collect();
        assert_eq!(names, ["body", "updated_at", "version"]);
        let events: Vec<_> = changed.events.iter().map(|event| event.position).collect();
        assert_eq!(events, [positions[8]]);
        let first = Subject::Message(token(1), chat_number(1), message_number(1));
        let gone = difference(&*log.event_store, positions[4], positions[8], first, u64::MAX).await.unwrap();
        assert_eq!((gone.before, gone.after), (Existence::Present, Existence::Deleted));
        let before_all = state_at(&*log.event_store, Position::START, first).await.unwrap();
        assert_eq!(before_all.existence, Existence::Absent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_the_fields_that_no_later_event_has_set() {
    for log in on_sqlite_and_kurrentdb().await {
        let positions = append_chat(&log).await;
        let event = log.event_store.event_at(positions[3]).await.unwrap().unwrap();
        let effects = event_effects(&*log.event_store, &event).await.unwrap().effects;
        assert_eq!(
            effects[0].current_fields,
            [] as [&str; 0],
            "fields of the chat are listed that a later event has set"
        );
        assert_eq!(effects[1].current_fields, ["message_number", "created_at"]);
        let event = log.event_store.event_at(positions[8]).await.unwrap().unwrap();
        let effects = event_effects(&*log.event_store, &event).await.unwrap().effects;
        assert_eq!(effects[1].current_fields, ["body", "updated_at", "version"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_a_stream_of_the_other_kind_is_a_dead_letter() {
    for log in on_sqlite_and_kurrentdb().await {
        for (misplaced, reason) in [
            (TestEvent::new(chat(1, 1), app_renamed("one")), "it belongs in an app's stream"),
            (TestEvent::new(app(1), created(1, "one")), "it belongs in a chat's stream"),
        ] {
            let position = log.append(misplaced).await;
            let event = log.event_store.event_at(position).await.unwrap().unwrap();
            let effects = event_effects(&*log.event_store, &event).await.unwrap();
            assert_eq!(effects.dead_letter_reason.as_deref(), Some(reason));
            assert_eq!(effects.effects, []);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_only_a_few_events_of_a_huge_chat() {
    for log in on_sqlite_and_kurrentdb().await {
        log.append(TestEvent::new(app(1), app_created("one"))).await;
        log.append(TestEvent::new(app(1), chat_created(1))).await;
        log.append_in_chunks(chat(1, 1), (1..=20_000).map(|number| created(number, "Hi"))).await;
        log.append(TestEvent::new(chat(1, 1), edited(11_111, "Hello"))).await;
        let counting = CountingEventStore::new(&log);
        let message = Subject::Message(token(1), chat_number(1), message_number(11_111));
        for subject in [message, Subject::Chat(token(1), chat_number(1)), Subject::App(token(1))] {
            let state = subject_state(&counting, subject, NOW).await.unwrap();
            assert_eq!(state.existence, Existence::Present);
        }
        let read = counting.events_read();
        assert!(read < 200, "{read} events were read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_and_the_data_have_the_events_that_set_them() {
    for log in on_sqlite_and_kurrentdb().await {
        let replaced = chat_domain::DataChange::Replace(r#"{"b":1E400}"#.parse().unwrap());
        let events = [
            (app(1), app_created("one")),
            (app(1), chat_created(1)),
            (chat(1, 1), created_by(1, "first", "u-17", r#"{"a":1}"#)),
            (chat(1, 1), edited(1, "second")),
            (chat(1, 1), edited_data(1, "third", replaced)),
            (chat(1, 1), edited_data(1, "fourth", chat_domain::DataChange::Remove)),
        ];
        let test_event = |(second, (stream, event))| TestEvent::new(stream, event).at(second);
        let positions = log.append_all((0..).zip(events).map(test_event)).await;
        let message = Subject::Message(token(1), chat_number(1), message_number(1));
        let state =
            async |index: usize| subject_state(&*log.event_store, message, positions[index]).await.unwrap();
        for index in [2, 3] {
            assert_eq!(field(&state(index).await, "data"), (json!(r#"{"a":1}"#), positions[2]));
            assert_eq!(field(&state(index).await, "sender"), (json!({ "id": "u-17" }), positions[2]));
        }
        assert_eq!(field(&state(4).await, "data"), (json!(r#"{"b":1E400}"#), positions[4]));
        assert!(state(5).await.field("data").is_none());
        assert!(state(5).await.field("sender").is_some());

        let events = log.event_store.read_all(Position::START, 100).await.unwrap();
        let effects = event_effects(&*log.event_store, &events[2]).await.unwrap().effects;
        let row = effects.iter().find(|effect| effect.fields.contains(&"body")).unwrap();
        assert!(row.fields.ends_with(&["sender", "data"]), "{row:?}");
        assert!(row.current_fields.contains(&"sender") && !row.current_fields.contains(&"data"), "{row:?}");
        let kept = event_effects(&*log.event_store, &events[3]).await.unwrap().effects;
        assert!(kept.iter().all(|effect| !effect.fields.contains(&"data")), "{kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_messages_are_complete_if_only_creations_follow_the_last_change_that_is_read() {
    // The most changes that are read: 20,000, rounded up to whole batches of 128.
    const CHANGES: u64 = 20_096;
    let [log, _] = on_sqlite_and_kurrentdb().await;
    let changes = (1..=CHANGES).map(|_| edited(1, "Hello"));
    let events = std::iter::once(created(1, "Hi")).chain(changes).chain([created(2, "Hi")]);
    log.append_in_chunks(chat(1, 1), events).await;
    let past = async || past_messages(&*log.event_store, (token(1), chat_number(1)), NOW, 10).await.unwrap();
    let (before, versions) = (past().await, CHANGES + 1);
    assert_eq!((before.is_incomplete, before.messages[0].versions), (false, versions));
    log.append(TestEvent::new(chat(1, 1), edited(2, "Hello"))).await;
    assert!(past().await.is_incomplete);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_creation_of_a_chat_is_its_first_change() {
    for log in on_sqlite_and_kurrentdb().await {
        let event = |event| TestEvent::new(app(1), event);
        let [_, created_position, renamed_position] = log
            .append_all([event(app_created("one")), event(chat_created(1)), event(app_renamed("two"))])
            .await[..]
        else {
            panic!("expected three positions")
        };
        let message_position = log.append(TestEvent::new(chat(1, 1), created(1, "Hi"))).await;
        for (position, previous, next) in [
            (Position::START, None, Some(created_position)),
            (created_position, None, Some(message_position)),
            (renamed_position, Some(created_position), Some(message_position)),
            (message_position, Some(created_position), None),
            (NOW, Some(message_position), None),
        ] {
            let chat = Subject::Chat(token(1), chat_number(1));
            let neighbours = neighbouring_changes(&*log.event_store, chat, position).await.unwrap();
            assert_eq!(neighbours, NeighbouringChanges { previous, next }, "{position}");
        }
    }
}

/// An event with an empty payload, which no program can read.
fn unreadable(stream: chat_domain::StreamId, event: chat_domain::Event) -> TestEvent {
    TestEvent { data: "{}".to_owned(), ..TestEvent::new(stream, event) }
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_chats_and_messages_do_not_count_and_their_deletions_change_nothing() {
    for log in on_sqlite_and_kurrentdb().await {
        let discard = async |position: Position| {
            let reason = "no program can read it".to_owned();
            let discarded = DeadLetterDiscarded { projection: ProjectionName::ReadModel, position, reason };
            let payload = serde_json::to_string(&discarded).unwrap();
            let event_type = "DeadLetterDiscarded";
            let stream = operator_action::STREAM.to_owned();
            let event = TestEvent::new(app(1), app_created("one"));
            log.append(TestEvent { stream, event_type, data: payload, ..event }).await
        };
        let in_app = |event| TestEvent::new(app(1), event);
        let in_chat = |event| TestEvent::new(chat(1, 1), event);
        let positions = log
            .append_all([
                in_app(app_created("one")),
                in_app(chat_created(1)),
                unreadable(app(1), chat_created(2)),
                in_app(chat_created(3)),
                in_chat(created(1, "first")),
                unreadable(chat(1, 1), created(2, "second")),
                unreadable(chat(1, 1), created(3, "third")),
                in_chat(created(4, "fourth")),
            ])
            .await;
        let counts = async |until: Position| {
            let app = subject_state(&*log.event_store, Subject::App(token(1)), until).await.unwrap();
            let chat = Subject::Chat(token(1), chat_number(1));
            let chat = subject_state(&*log.event_store, chat, until).await.unwrap();
            (field(&app, "chat_count").0, field(&chat, "message_count").0)
        };
        let before = positions[7];
        assert_eq!(counts(before).await, (json!(3), json!(4)));
        discard(positions[2]).await;
        discard(positions[5]).await;
        let after = discard(positions[6]).await;
        assert_eq!(counts(after).await, (json!(2), json!(2)));
        assert_eq!(
            counts(before).await,
            (json!(3), json!(4)),
            "discards changed the counts at a position before them"
        );

        let event = log.event_store.event_at(positions[6]).await.unwrap().unwrap();
        let discards = event_effects(&*log.event_store, &event).await.unwrap().discards;
        let reason = "no program can read it".to_owned();
        let discard_of_third = EventDiscard { projection: ProjectionName::ReadModel, by: after, reason };
        assert_eq!(discards, [discard_of_third]);

        let chat = Subject::Chat(token(1), chat_number(1));
        let changes = difference(&*log.event_store, before, after, chat, 1_000).await.unwrap().changes;
        assert_eq!((changes.len(), &changes[0].after), (1, &json!(2).into()));

        // The read model applies the deletion of a message that it does not have, without effect.
        let second = log.append(in_chat(deleted(2))).await;
        assert_eq!(counts(second).await.1, json!(2));
        // The second deletion of a message is a dead letter.
        let once = log.append(in_chat(deleted(1))).await;
        assert_eq!(counts(once).await.1, json!(1));
        let twice = log.append(in_chat(deleted(1))).await;
        let last = discard(twice).await;
        assert_eq!(counts(last).await.1, json!(1));
        // A program that can read a discarded event applies it, also a deletion.
        let fourth = log.append(in_chat(deleted(4))).await;
        let last = discard(fourth).await;
        assert_eq!(counts(last).await.1, json!(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_compared_and_shown_as_its_exact_text() {
    for log in on_sqlite_and_kurrentdb().await {
        let [before, after] = [r#"{"n":0.10000000000000000001}"#, r#"{"n":0.10000000000000000002}"#];
        let replaced = chat_domain::DataChange::Replace(after.parse().unwrap());
        let positions = log
            .append_all([
                TestEvent::new(app(1), app_created("one")),
                TestEvent::new(app(1), chat_created(1)),
                TestEvent::new(chat(1, 1), created_by(1, "first", "u-17", before)),
                TestEvent::new(chat(1, 1), edited_data(1, "first", replaced)),
            ])
            .await;
        let message = Subject::Message(token(1), chat_number(1), message_number(1));
        let changed =
            difference(&*log.event_store, positions[2], positions[3], message, 1_000).await.unwrap();
        let data = changed.changes.iter().find(|change| change.name == "data").unwrap();
        let text = serde_json::to_string(data).unwrap();
        assert!(text.contains(before) && text.contains(after), "{text}");
    }
}
