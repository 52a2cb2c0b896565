//! Contract cases of commits, of loads by the projection, and of digests.

use chat_domain::{AppName, DataChange, Position, Version};
use uuid::Uuid;

use super::rows::{
    Beyond, LOG, WriterAndReader, app, changes, chat_number, commit_chat_with_messages, dead_letter,
    discard_record, message, message_number, read_page, timestamp, token, tombstone,
};
use crate::dead_letter::DeadLetter;
use crate::event_store::LogId;
use crate::projection_checkpoint::ProjectionCheckpoint;
use crate::read_model::{
    ChatKey, EditedMessage, MessageWindow, ReadModelChanges, ReadModelError, StoredChat,
};

pub async fn changed_rows_replace_the_old_ones(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (mut app, mut chat, messages) = commit_chat_with_messages(&read_model, 2).await;
    app.name = AppName::parse("renamed".to_owned()).unwrap();
    (app.chat_count, app.version, app.updated_at) = (7, Version::new(8), timestamp(20));
    chat.last_message = Some(message_number(9));
    (chat.row.message_count, chat.row.version, chat.row.updated_at) = (5, Version::new(6), timestamp(21));
    let edit = EditedMessage {
        id: messages[1].id,
        body: "edited".to_owned(),
        data: DataChange::Keep,
        version: Version::new(2),
        updated_at: timestamp(22),
    };
    let update = ReadModelChanges {
        changed_apps: vec![app.clone()],
        changed_chats: vec![chat.clone()],
        edited_messages: vec![edit],
        ..changes(1_000, 1_010)
    };
    read_model.writer.commit(update).await.unwrap();

    assert_eq!(read_model.writer.chats(vec![chat.key()]).await.unwrap(), std::slice::from_ref(&chat));
    let reader = &read_model.reader;
    assert_eq!(reader.chat(app.token, chat.row.number).await.unwrap().value, Ok(chat.row));
    assert_eq!(reader.app(app.token).await.unwrap().value, Ok(app.clone()));
    let found = reader.message(app.token, chat_number(1), message_number(2)).await.unwrap().value.unwrap();
    assert_eq!((found.body.as_str(), found.version.get()), ("edited", 2));
    assert_eq!((found.created_at, found.updated_at), (timestamp(5), timestamp(22)));
    let other = reader.message(app.token, chat_number(1), message_number(1)).await.unwrap().value.unwrap();
    assert_eq!(other.body, "message 1");
}

pub async fn changes_that_do_not_start_at_the_checkpoint_are_refused_and_change_nothing(
    open: impl Fn() -> WriterAndReader,
) {
    let read_model = open();
    commit_chat_with_messages(&read_model, 1).await;
    let digest = read_model.reader.digest().await.unwrap();
    for from in [0, 999, 1_001] {
        let update = ReadModelChanges { new_apps: vec![app(2_000, 'b')], ..changes(from, 2_000) };
        let refused = read_model.writer.commit(update).await;
        assert!(matches!(refused, Err(ReadModelError::CheckpointMoved)), "{refused:?}");
    }
    assert_eq!(read_model.reader.digest().await.unwrap(), digest);
}

pub async fn many_messages_at_once_are_stored_together_or_not_at_all(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (_, chat, messages) = commit_chat_with_messages(&read_model, 75).await;
    assert_eq!(
        read_page(&read_model, MessageWindow::Newest, 100).await,
        ((1..=75).collect(), Beyond::Nothing)
    );
    let digest = read_model.reader.digest().await.unwrap();
    let mut new_messages: Vec<_> = (76..=150).map(|n| message(1_000 + n, &chat, n)).collect();
    new_messages[40].number = messages[0].number;
    let refused = read_model.writer.commit(ReadModelChanges { new_messages, ..changes(1_000, 1_200) }).await;
    assert!(refused.is_err());
    assert_eq!(read_model.reader.digest().await.unwrap(), digest);
}

pub async fn changes_of_another_log_are_refused(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    commit_chat_with_messages(&read_model, 1).await;
    let other = ReadModelChanges { log: LogId(Uuid::from_u128(2)), ..changes(1_000, 1_001) };
    let refused = read_model.writer.commit(other).await;
    assert!(matches!(refused, Err(ReadModelError::CheckpointMoved)), "{refused:?}");
}

pub async fn a_new_incarnation_of_the_log_is_adopted_at_the_same_position(
    open: impl Fn() -> WriterAndReader,
) {
    let read_model = open();
    commit_chat_with_messages(&read_model, 1).await;
    let before = read_model.writer.checkpoint().await.unwrap();
    let log = LogId(Uuid::from_u128(2));
    let moved = ProjectionCheckpoint { position: Position::new(before.position.get() + 1), ..before };
    let refused = read_model.writer.adopt_log(moved, log).await;
    assert!(matches!(refused, Err(ReadModelError::CheckpointMoved)), "{refused:?}");

    read_model.writer.adopt_log(before, log).await.unwrap();
    assert_eq!(
        read_model.writer.checkpoint().await.unwrap(),
        ProjectionCheckpoint { log: Some(log), ..before }
    );
    let next = before.position.get();
    read_model.writer.commit(ReadModelChanges { log, ..changes(next, next + 1) }).await.unwrap();
}

pub async fn a_new_read_model_adopts_a_log(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let before = read_model.writer.checkpoint().await.unwrap();
    assert_eq!(before.log, None);
    let log = LogId(Uuid::from_u128(2));
    read_model.writer.adopt_log(before, log).await.unwrap();
    assert_eq!(read_model.writer.checkpoint().await.unwrap().log, Some(log));
}

pub async fn an_empty_commit_moves_the_checkpoint(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    read_model.writer.commit(changes(0, 5)).await.unwrap();
    read_model.writer.commit(changes(5, 9)).await.unwrap();
    assert_eq!(read_model.reader.position().await.unwrap(), Position::new(9));
}

pub async fn committed_rows_outlive_the_writer(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    commit_chat_with_messages(&read_model, 3).await;
    let digest = read_model.reader.digest().await.unwrap();
    drop(read_model);
    let read_model = open();
    assert_eq!(read_model.reader.digest().await.unwrap(), digest);
    let checkpoint = ProjectionCheckpoint { log: Some(LOG), position: Position::new(1_000) };
    assert_eq!(read_model.writer.checkpoint().await.unwrap(), checkpoint);
}

pub async fn loads_omit_missing_rows(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (app, chat, _) = commit_chat_with_messages(&read_model, 1).await;
    let apps = read_model.writer.apps(vec![token('b'), app.token]).await.unwrap();
    assert_eq!(apps.len(), 1);
    let keys = [(token('a'), 1), (token('a'), 2), (token('b'), 1)];
    let keys = keys.map(|(app, number)| ChatKey { app, number: chat_number(number) });
    assert_eq!(read_model.writer.chats(keys.to_vec()).await.unwrap().len(), 1);
    let keys = vec![(chat.id, message_number(1)), (chat.id, message_number(2))];
    assert_eq!(read_model.writer.messages(keys).await.unwrap().len(), 1);
    assert_eq!(read_model.writer.apps(Vec::new()).await.unwrap(), []);
}

pub async fn the_digest_differs_for_different_content(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (_, chat, messages) = commit_chat_with_messages(&read_model, 3).await;
    let mut digests = vec![read_model.reader.digest().await.unwrap()];
    assert_eq!((digests[0].position, digests[0].value.entity_count()), (Position::new(1_000), 5));
    let edit = EditedMessage {
        id: messages[0].id,
        body: "message 1!".to_owned(),
        data: DataChange::Keep,
        version: Version::new(1),
        updated_at: timestamp(6),
    };
    let with_other_last_message = StoredChat { last_message: Some(message_number(8)), ..chat };
    let steps = [
        ReadModelChanges { edited_messages: vec![edit], ..changes(1_000, 1_001) },
        ReadModelChanges { deleted_messages: vec![tombstone(&messages[1])], ..changes(1_001, 1_002) },
        ReadModelChanges { changed_chats: vec![with_other_last_message], ..changes(1_002, 1_003) },
        ReadModelChanges { new_dead_letters: vec![dead_letter(1_004, "x")], ..changes(1_003, 1_004) },
        ReadModelChanges {
            changed_dead_letters: vec![DeadLetter {
                discarded: Some(discard_record(1_005)),
                ..dead_letter(1_004, "x")
            }],
            ..changes(1_004, 1_005)
        },
    ];
    for step in steps {
        read_model.writer.commit(step).await.unwrap();
        let digest = read_model.reader.digest().await.unwrap();
        assert!(digests.iter().all(|other| other.value != digest.value), "{digest:?}");
        digests.push(digest);
    }
}
