//! Tests of the read model's fold: the changes that a batch makes to stored rows.

use std::collections::HashMap;

use chat_domain::event::SchemaVersion;
use chat_domain::{DataChange, Position, Timestamp, Version};
use chat_ports::read_model::{AppRow, ChatRow, MessageState, ReadModelChanges, StoredChat, Tombstone};
use chat_projector::decoded_batch::DecodedBatch;
use chat_projector::read_model::{LoadedRows, RowsToLoad, fold};

use crate::log_builder::*;

const NOW: Timestamp = Timestamp::from_millis(5);

fn fold_changes(rows: LoadedRows, builder: &LogBuilder) -> ReadModelChanges {
    let batch = DecodedBatch::decode(LOG, Position::START, builder.head(), builder.events.clone());
    fold(batch, rows, NOW).changes
}

/// Returns an app at version 2 with a chat at version 3, whose message 1 is present and whose message 2 is deleted.
fn stored_rows() -> LoadedRows {
    let app = AppRow {
        created_position: Position::new(1),
        token: token(1),
        name: chat_domain::AppName::parse("one".to_owned()).unwrap(),
        chat_count: 1,
        last_chat: Some(chat_number(1)),
        version: Version::new(2),
        created_at: at(1),
        updated_at: at(2),
    };
    let chat = StoredChat {
        id: Position::new(2),
        app_id: Position::new(1),
        app: token(1),
        last_message: Some(message_number(2)),
        row: ChatRow {
            number: chat_number(1),
            message_count: 1,
            version: Version::new(3),
            created_at: at(2),
            updated_at: at(5),
        },
    };
    let present = MessageState::Present { id: Position::new(3), version: Version::new(1), created_at: at(3) };
    LoadedRows {
        apps: HashMap::from([(app.token, app)]),
        chats: HashMap::from([(chat.key(), chat)]),
        messages: HashMap::from([
            ((Position::new(2), message_number(1)), present),
            ((Position::new(2), message_number(2)), MessageState::Deleted),
        ]),
    }
}

/// Returns an empty log whose next events continue the streams of [`stored_rows`].
fn log_after_stored_rows() -> LogBuilder {
    let mut builder = LogBuilder::default();
    for _ in 0..2 {
        builder.skip_revision(app(1));
    }
    for _ in 0..3 {
        builder.skip_revision(chat(1, 1));
    }
    builder
}

#[test]
fn rows_that_a_batch_creates_and_changes_are_stored_once() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(app(1), app_renamed("two"))
        .append(chat(1, 1), created(1, "hi"))
        .append(chat(1, 1), edited(1, "hello"))
        .append(chat(1, 1), created(2, "gone"))
        .append(chat(1, 1), deleted(2));
    let changes = fold_changes(LoadedRows::default(), &builder);

    let [app] = &changes.new_apps[..] else { panic!("{changes:?}") };
    assert_eq!((app.name.as_str(), app.chat_count, app.version.get()), ("two", 1, 3));
    assert_eq!((app.created_at, app.updated_at), (at(10), at(30)));
    let [chat] = &changes.new_chats[..] else { panic!("{changes:?}") };
    assert_eq!((chat.id, chat.app_id), (Position::new(20), Position::new(10)));
    assert_eq!((chat.row.message_count, chat.last_message), (1, Some(message_number(2))));
    assert_eq!((chat.row.version.get(), chat.row.updated_at), (4, at(70)));
    let [message] = &changes.new_messages[..] else { panic!("{changes:?}") };
    assert_eq!((message.id, message.chat_id), (Position::new(40), Position::new(20)));
    assert_eq!((message.body.as_str(), message.version.get()), ("hello", 2));
    assert_eq!((message.created_at, message.updated_at), (at(40), at(50)));
    let tombstone = Tombstone {
        id: Position::new(60),
        chat_id: Position::new(20),
        number: message_number(2),
        message_is_stored: false,
        version: Version::new(2),
        created_at: at(60),
        deleted_at: at(70),
    };
    assert_eq!(changes.deleted_messages, [tombstone]);
    assert!(changes.changed_apps.is_empty() && changes.changed_chats.is_empty());
    assert!(changes.edited_messages.is_empty() && changes.new_dead_letters.is_empty(), "{changes:?}");
}

#[test]
fn stored_rows_are_changed_and_not_stored_again() {
    let mut builder = log_after_stored_rows();
    builder
        .append(app(1), chat_created(2))
        .append(chat(1, 1), edited(1, "first"))
        .append(chat(1, 1), edited(1, "second"))
        .append(chat(1, 1), created(3, "new"));
    let changes = fold_changes(stored_rows(), &builder);

    let [app] = &changes.changed_apps[..] else { panic!("{changes:?}") };
    assert_eq!((app.chat_count, app.version.get(), app.updated_at), (2, 3, at(10)));
    let [chat] = &changes.changed_chats[..] else { panic!("{changes:?}") };
    assert_eq!((chat.row.message_count, chat.row.version.get()), (2, 6));
    let [edit] = &changes.edited_messages[..] else { panic!("{changes:?}") };
    assert_eq!((edit.id, edit.body.as_str(), edit.version.get()), (Position::new(3), "second", 3));
    assert_eq!(changes.new_messages.len(), 1);
    assert_eq!(changes.new_chats.len(), 1);
    assert!(changes.new_apps.is_empty() && changes.new_dead_letters.is_empty(), "{changes:?}");
}

#[test]
fn a_stored_message_that_is_edited_and_deleted_leaves_only_a_tombstone() {
    let mut builder = log_after_stored_rows();
    builder.append(chat(1, 1), edited(1, "in vain")).append(chat(1, 1), deleted(1));
    let changes = fold_changes(stored_rows(), &builder);
    assert!(changes.edited_messages.is_empty());
    let [tombstone] = &changes.deleted_messages[..] else { panic!("{changes:?}") };
    assert!(tombstone.message_is_stored);
    assert_eq!((tombstone.version.get(), tombstone.created_at), (3, at(3)));
    assert_eq!(changes.changed_chats[0].row.message_count, 0);
}

#[test]
fn events_that_are_already_applied_are_ignored() {
    let mut builder = LogBuilder::with_chat();
    builder.append(chat(1, 1), created(1, "known")).append(app(1), app_renamed("next"));
    let changes = fold_changes(stored_rows(), &builder);
    assert!(changes.new_dead_letters.is_empty(), "{changes:?}");
    assert_eq!(changes.changed_apps.len(), 1);
    assert!(changes.new_messages.is_empty() && changes.changed_chats.is_empty());
}

#[test]
fn loads_only_the_rows_that_a_batch_concerns() {
    let mut builder = log_after_stored_rows();
    builder
        .append(chat(1, 1), created(3, "x"))
        .append(chat(1, 1), edited(1, "y"))
        .append(app(2), app_created("two"));
    let batch = DecodedBatch::decode(LOG, Position::START, builder.head(), builder.events);
    let keys = RowsToLoad::for_batch(&batch);
    assert_eq!(keys.apps, [token(2)]);
    assert_eq!(keys.chats.len(), 1);
    assert_eq!(keys.messages.len(), 1);
}

/// Folds a log onto [`stored_rows`], and returns the reasons of its dead letters.
fn dead_letter_reasons(builder: &LogBuilder) -> Vec<String> {
    fold_changes(stored_rows(), builder)
        .new_dead_letters
        .into_iter()
        .map(|dead_letter| dead_letter.reason)
        .collect()
}

#[test]
fn invalid_events_become_dead_letters_with_a_reason() {
    let case = |extend: fn(&mut LogBuilder) -> &mut LogBuilder| {
        let mut builder = log_after_stored_rows();
        extend(&mut builder);
        dead_letter_reasons(&builder).join("; ")
    };
    let reasons = [
        case(|builder| builder.append(chat(1, 1), created(4, "a gap"))),
        case(|builder| builder.append(chat(1, 1), edited(9, "nowhere"))),
        case(|builder| builder.append(chat(1, 1), edited(2, "deleted"))),
        case(|builder| builder.append(chat(1, 1), deleted(2))),
        case(|builder| builder.skip_revision(chat(1, 1)).append(chat(1, 1), created(3, "late"))),
        case(|builder| builder.append(chat(1, 2), created(1, "no chat"))),
        case(|builder| builder.append(app(1), chat_created(3))),
        case(|builder| builder.append(app(1), app_created("again"))),
        case(|builder| builder.append(app(2), app_renamed("unborn"))),
        case(|builder| builder.append(app(1), created(3, "misplaced"))),
        case(|builder| builder.append(chat(1, 1), app_renamed("misplaced"))),
        case(|builder| builder.append_raw("weather", "Rained", "{}")),
        case(|builder| builder.append_raw(&app(3).to_string(), "AppSold", "{}")),
    ];
    let expected = [
        "its number is not the next one",
        "the message does not exist",
        "its message was deleted before",
        "its message was deleted before",
        "it is at revision 4 of its stream where 3 was expected",
        "its chat is not there: the event that created it is missing or parked",
        "its number is not the next one",
        "the app exists already",
        "the app was not created",
        "it belongs in a chat's stream",
        "it belongs in an app's stream",
        "its stream is neither an app's nor a chat's",
        "unknown event type",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_reason_does_not_quote_the_payload() {
    let mut builder = log_after_stored_rows();
    builder.append_raw(
        &chat(1, 1).to_string(),
        "MessageCreated",
        r#"{"message_number":"secret","body":"secret"}"#,
    );
    let reasons = dead_letter_reasons(&builder);
    assert_eq!(reasons, ["its payload is not of its version's shape (line 1, column 26)"]);
}

#[test]
fn changes_of_data_in_one_batch_add_up() {
    let mut builder = log_after_stored_rows();
    builder
        .append(chat(1, 1), edited_data(1, "first", DataChange::Remove))
        .append(chat(1, 1), edited(1, "second"))
        .append(chat(1, 1), created_by_sender(3, "new"))
        .append(chat(1, 1), edited(3, "newer"))
        .append(chat(1, 1), created_by_sender(4, "other"))
        .append(chat(1, 1), edited_data(4, "other", DataChange::Replace(data(9))));
    let changes = fold_changes(stored_rows(), &builder);
    let [edit] = &changes.edited_messages[..] else { panic!("{changes:?}") };
    assert_eq!((edit.body.as_str(), &edit.data), ("second", &DataChange::Remove));
    let [kept, replaced] = &changes.new_messages[..] else { panic!("{changes:?}") };
    assert_eq!((kept.body.as_str(), &kept.data), ("newer", &Some(data(3))));
    assert_eq!(replaced.data, Some(data(9)));
    assert_eq!(kept.sender.as_ref().map(|sender| sender.id.as_str()), Some("u-1"));
}

#[test]
fn an_event_of_a_newer_version_is_a_dead_letter_and_blocks_only_its_stream() {
    let mut builder = LogBuilder::with_chat();
    builder.append(app(1), chat_created(2)).append(chat(1, 1), created_by_sender(1, "newer"));
    builder.events.last_mut().unwrap().schema_version = SchemaVersion::NEWEST.next();
    builder.append(chat(1, 1), created(2, "behind it")).append(chat(1, 2), created_by_sender(1, "elsewhere"));
    let changes = fold_changes(LoadedRows::default(), &builder);
    let reasons: Vec<_> = changes
        .new_dead_letters
        .iter()
        .map(|dead_letter| (dead_letter.position.get(), dead_letter.reason.as_str()))
        .collect();
    let [newer, behind] = &reasons[..] else { panic!("{reasons:?}") };
    assert_eq!(*newer, (40, "schema version 3 is not known, the newest known is 2"));
    assert_eq!(behind.0, 50);
    let bodies: Vec<_> = changes.new_messages.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(bodies, ["elsewhere"]);
}
