//! Contract cases of queries of apps, chats and messages.

use chat_domain::{ChatNumber, Position, Version};

use super::rows::{
    Beyond, LOG, WriterAndReader, app, changes, chat, chat_number, commit_chat_with_messages, delete,
    message, message_number, read_page, timestamp, token, tombstone,
};
use crate::projection_checkpoint::ProjectionCheckpoint;
use crate::read_model::{
    MessageRow, MessageState, MessageWindow, Missing, NewMessage, ReadModelChanges, Tombstone,
};

pub async fn a_new_read_model_is_empty_and_at_the_start(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    assert_eq!(read_model.writer.checkpoint().await.unwrap(), ProjectionCheckpoint::default());
    assert_eq!(read_model.reader.position().await.unwrap(), Position::START);
    let apps = read_model.reader.apps(Position::START, 10).await.unwrap();
    assert_eq!((apps.position, apps.value), (Position::START, Vec::new()));
    assert_eq!(read_model.reader.dead_letters(10).await.unwrap(), (Vec::new(), 0));
    assert_eq!(read_model.reader.digest().await.unwrap().value.entity_count(), 0);
}

pub async fn rows_are_read_back_as_they_were_written(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (app, chat, messages) = commit_chat_with_messages(&read_model, 2).await;
    let reader = &read_model.reader;
    let position = Position::new(1_000);
    assert_eq!(
        read_model.writer.checkpoint().await.unwrap(),
        ProjectionCheckpoint { log: Some(LOG), position }
    );

    let found = reader.app(app.token).await.unwrap();
    assert_eq!((found.position, found.value), (position, Ok(app.clone())));
    assert_eq!(reader.chat(app.token, chat.row.number).await.unwrap().value, Ok(chat.row.clone()));
    let row = MessageRow {
        number: message_number(2),
        body: "message 2".to_owned(),
        sender: None,
        data: None,
        version: Version::new(1),
        created_at: timestamp(5),
        updated_at: timestamp(6),
    };
    let found = reader.message(app.token, chat.row.number, message_number(2)).await.unwrap();
    assert_eq!(found.value, Ok(row));

    assert_eq!(read_model.writer.apps(vec![app.token]).await.unwrap(), [app]);
    assert_eq!(read_model.writer.chats(vec![chat.key()]).await.unwrap(), std::slice::from_ref(&chat));
    let loaded = read_model.writer.messages(vec![(chat.id, message_number(1))]).await.unwrap();
    let state =
        MessageState::Present { id: messages[0].id, version: Version::new(1), created_at: timestamp(5) };
    assert_eq!((loaded.len(), loaded[0].state), (1, state));
}

pub async fn the_error_says_whether_the_app_the_chat_or_the_message_is_missing(
    open: impl Fn() -> WriterAndReader,
) {
    let read_model = open();
    commit_chat_with_messages(&read_model, 1).await;
    let reader = &read_model.reader;
    let (a, b) = (token('a'), token('b'));
    let (one, two) = (chat_number(1), chat_number(2));
    let first = message_number(1);
    assert_eq!(reader.app(b).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.chat(b, one).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.chat(a, two).await.unwrap().value, Err(Missing::Chat));
    assert_eq!(reader.chats(b, None, 10).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.message(b, one, first).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.message(a, two, first).await.unwrap().value, Err(Missing::Chat));
    assert_eq!(reader.message(a, one, message_number(2)).await.unwrap().value, Err(Missing::Message));
    assert_eq!(reader.messages(b, one, MessageWindow::Newest, 10).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.messages(a, two, MessageWindow::Newest, 10).await.unwrap().value, Err(Missing::Chat));
    let largest = ChatNumber::try_from(i64::MAX as u64).unwrap();
    assert_eq!(reader.chat(a, largest).await.unwrap().value, Err(Missing::Chat));
}

pub async fn a_deleted_message_is_absent_from_pages_and_reported_as_deleted(
    open: impl Fn() -> WriterAndReader,
) {
    let read_model = open();
    let (app, chat, messages) = commit_chat_with_messages(&read_model, 3).await;
    delete(&read_model, &messages, [2]).await;
    let found = read_model.reader.message(app.token, chat_number(1), message_number(2)).await.unwrap();
    assert_eq!(found.value, Err(Missing::Deleted));
    assert_eq!(read_page(&read_model, MessageWindow::Newest, 10).await, (vec![1, 3], Beyond::Nothing));
    let loaded = read_model.writer.messages(vec![(chat.id, message_number(2))]).await.unwrap();
    assert_eq!(loaded[0].state, MessageState::Deleted);
}

pub async fn a_message_created_and_deleted_in_one_commit_leaves_a_tombstone(
    open: impl Fn() -> WriterAndReader,
) {
    let read_model = open();
    let (app, chat, _) = commit_chat_with_messages(&read_model, 1).await;
    let deleted = Tombstone { message_is_stored: false, ..tombstone(&message(1_001, &chat, 2)) };
    let update = ReadModelChanges { deleted_messages: vec![deleted], ..changes(1_000, 1_002) };
    read_model.writer.commit(update).await.unwrap();
    let found = read_model.reader.message(app.token, chat_number(1), message_number(2)).await.unwrap();
    assert_eq!(found.value, Err(Missing::Deleted));
}

pub async fn apps_are_listed_in_the_order_of_their_creation(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let rows = [app(10, 'c'), app(20, 'a'), app(30, 'b')];
    read_model.writer.commit(ReadModelChanges { new_apps: rows.to_vec(), ..changes(0, 30) }).await.unwrap();
    let list = |after, limit| read_model.reader.apps(Position::new(after), limit);
    assert_eq!(list(0, 10).await.unwrap().value, rows);
    assert_eq!(list(0, 2).await.unwrap().value, rows[..2]);
    assert_eq!(list(20, 2).await.unwrap().value, rows[2..]);
    assert_eq!(list(30, 2).await.unwrap().value, []);
}

pub async fn chats_are_listed_by_number(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (first, second) = (app(1, 'a'), app(2, 'b'));
    let chats: Vec<_> = (1..=3).map(|n| chat(10 + n, &first, n)).collect();
    let other = chat(20, &second, 1);
    let new_chats = chats.iter().cloned().chain([other.clone()]).collect();
    let new_apps = vec![first, second];
    read_model.writer.commit(ReadModelChanges { new_apps, new_chats, ..changes(0, 30) }).await.unwrap();
    let rows: Vec<_> = chats.into_iter().map(|chat| chat.row).collect();
    let list = |app, after, limit| read_model.reader.chats(token(app), after, limit);
    assert_eq!(list('a', None, 10).await.unwrap().value.unwrap(), rows);
    assert_eq!(list('a', None, 2).await.unwrap().value.unwrap(), rows[..2]);
    assert_eq!(list('a', Some(chat_number(2)), 2).await.unwrap().value.unwrap(), rows[2..]);
    assert_eq!(list('b', None, 2).await.unwrap().value.unwrap(), [other.row]);
}

/// Reads pages while another task commits messages one by one. The newest message of a page always matches the page's
/// position.
pub async fn a_query_sees_one_position(open: impl Fn() -> WriterAndReader) {
    let WriterAndReader { writer, reader } = open();
    let app = app(1, 'a');
    let chat = chat(2, &app, 1);
    let (token, number) = (app.token, chat.row.number);
    let first = ReadModelChanges { new_apps: vec![app], new_chats: vec![chat.clone()], ..changes(0, 10) };
    writer.commit(first).await.unwrap();
    let writer_task = tokio::spawn(async move {
        for n in 1..=300 {
            let new_messages = vec![message(10 + n, &chat, n)];
            writer.commit(ReadModelChanges { new_messages, ..changes(9 + n, 10 + n) }).await.unwrap();
        }
    });
    loop {
        let page = reader.messages(token, number, MessageWindow::Newest, 1).await.unwrap();
        let newest = page.value.unwrap().messages.first().map_or(0, |message| message.number.get());
        assert_eq!(newest, page.position.get() - 10);
        if newest == 300 {
            break;
        }
    }
    writer_task.await.unwrap();
}

pub async fn the_largest_body_and_odd_text_are_kept(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (app, chat, _) = commit_chat_with_messages(&read_model, 0).await;
    let bodies =
        ["x".repeat(65_536), " \u{202e}e\u{301}\u{1F468}\u{200D}\u{1F469}\u{feff}'\"\\%_\n".to_owned()];
    let new_messages = bodies
        .iter()
        .zip(1..)
        .map(|(body, n)| NewMessage { body: body.clone(), ..message(1_000 + n, &chat, n) })
        .collect();
    read_model.writer.commit(ReadModelChanges { new_messages, ..changes(1_000, 1_002) }).await.unwrap();
    for (body, n) in bodies.iter().zip(1..) {
        let found = read_model.reader.message(app.token, chat_number(1), message_number(n)).await.unwrap();
        assert_eq!(&found.value.unwrap().body, body);
    }
}
