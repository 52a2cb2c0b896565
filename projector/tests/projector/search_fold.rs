//! Tests of the search index's fold: the changes that a batch makes to stored documents.

use chat_domain::{Position, Timestamp, Version};
use chat_ports::search_index::{Document, IndexChanges, MessageKey};
use chat_projector::decoded_batch::DecodedBatch;
use chat_projector::search::{documents_to_load, fold};

use crate::log_builder::*;

fn fold_changes(documents: Vec<Document>, builder: &LogBuilder) -> IndexChanges {
    let batch = DecodedBatch::decode(LOG, Position::START, builder.head(), builder.events.clone());
    let now = Timestamp::from_millis(5);
    fold(batch, documents, now)
}

fn key(message: u64) -> MessageKey {
    MessageKey { app: token(1), chat: chat_number(1), message: message_number(message) }
}

fn document(message: u64, body: &str) -> Document {
    Document {
        key: key(message),
        created_position: Position::new(1),
        body: body.to_owned(),
        sender: None,
        data: None,
        version: Version::new(1),
        created_at: at(1),
        updated_at: at(1),
    }
}

#[test]
fn a_document_is_added_once_in_its_last_state() {
    let mut builder = LogBuilder::with_chat();
    builder.append(chat(1, 1), created(1, "hi")).append(chat(1, 1), edited(1, "hello"));
    let changes = fold_changes(Vec::new(), &builder);
    let expected = Document {
        key: key(1),
        created_position: Position::new(30),
        body: "hello".to_owned(),
        sender: None,
        data: None,
        version: Version::new(2),
        created_at: at(30),
        updated_at: at(40),
    };
    assert_eq!(changes.add, [expected]);
    assert_eq!((changes.upsert.len(), changes.delete.len(), changes.new_dead_letters.len()), (0, 0, 0));
}

#[test]
fn an_edit_keeps_the_position_and_time_of_the_creation() {
    let mut builder = LogBuilder::default();
    builder.append(chat(1, 1), edited(1, "new"));
    let changes = fold_changes(vec![document(1, "old")], &builder);
    assert!(changes.add.is_empty(), "an edit added a document: {changes:?}");
    let [upserted] = &changes.upsert[..] else { panic!("{changes:?}") };
    assert_eq!((upserted.body.as_str(), upserted.version.get()), ("new", 2));
    assert_eq!(
        (upserted.created_position, upserted.created_at, upserted.updated_at),
        (Position::new(1), at(1), at(10))
    );
}

#[test]
fn a_deleted_message_is_removed_once() {
    let mut builder = LogBuilder::default();
    builder.append(chat(1, 1), edited(1, "in vain")).append(chat(1, 1), deleted(1));
    let changes = fold_changes(vec![document(1, "old")], &builder);
    assert!(changes.upsert.is_empty(), "the deleted message is still updated: {changes:?}");
    assert_eq!(changes.delete, [key(1)]);
}

#[test]
fn a_message_created_and_deleted_in_a_batch_changes_nothing() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(chat(1, 1), created(1, "hi"))
        .append(chat(1, 1), edited(1, "oh"))
        .append(chat(1, 1), deleted(1));
    let changes = fold_changes(Vec::new(), &builder);
    assert_eq!((changes.add.len(), changes.upsert.len(), changes.delete.len()), (0, 0, 0));
}

#[test]
fn documents_that_the_batch_creates_are_not_loaded() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(chat(1, 1), edited(1, "stored"))
        .append(chat(1, 1), created(2, "new"))
        .append(chat(1, 1), edited(2, "newer"));
    let batch = DecodedBatch::decode(LOG, Position::START, builder.head(), builder.events);
    assert_eq!(documents_to_load(&batch).into_iter().collect::<Vec<_>>(), [key(1)]);
}

#[test]
fn invalid_events_become_dead_letters_and_block_their_streams() {
    let mut builder = LogBuilder::default();
    builder
        .append(chat(1, 1), created(2, "beyond"))
        .append(chat(1, 1), created(1, "after"))
        .append(chat(1, 2), edited(1, "nothing"))
        .append_raw("weather", "Rained", "{}")
        .append_raw(&chat(1, 3).to_string(), "MessageCreated", "{")
        .append(chat(1, 4), app_renamed("misplaced"))
        .append(chat(1, 5), created(1, "fine"));
    let changes = fold_changes(Vec::new(), &builder);
    let reasons: Vec<_> =
        changes.new_dead_letters.iter().map(|dead_letter| dead_letter.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "its number is higher than revision 0 of its stream allows",
            "an earlier event of its stream is parked",
            "its message does not exist",
            "its stream is neither an app's nor a chat's",
            "its payload is not JSON (line 1, column 1)",
            "AppRenamed does not belong in a chat's stream",
        ]
    );
    assert_eq!(changes.add.len(), 1);
}

#[test]
fn streams_of_apps_are_ignored() {
    let mut builder = LogBuilder::default();
    builder.append_raw(&app(1).to_string(), "AppSold", "{").append(chat(1, 1), created(1, "found"));
    let changes = fold_changes(Vec::new(), &builder);
    assert_eq!((changes.add.len(), changes.new_dead_letters.len()), (1, 0));
}
