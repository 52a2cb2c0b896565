//! The writer and the reader of a read model, and rows for the tests.

use std::sync::Arc;

use crate::dead_letter::{DeadLetter, DiscardRecord};
use crate::event_store::LogId;
use crate::read_model::{
    AppRow, ChatRow, MessagePage, MessageWindow, NewMessage, ReadModel, ReadModelChanges, ReadModelWriter,
    StoredChat, Tombstone,
};
use chat_domain::{AppName, AppToken, ChatNumber, MessageNumber, Position, Revision, Timestamp, Version};
use uuid::Uuid;

pub struct WriterAndReader {
    pub writer: Box<dyn ReadModelWriter>,
    pub reader: Arc<dyn ReadModel>,
}

pub const LOG: LogId = LogId(Uuid::from_u128(1));

/// The token that is one letter, repeated.
pub fn token(letter: char) -> AppToken {
    AppToken::parse(&letter.to_string().repeat(36)).unwrap()
}

pub fn chat_number(number: u64) -> ChatNumber {
    ChatNumber::try_from(number).unwrap()
}

pub fn message_number(number: u64) -> MessageNumber {
    MessageNumber::try_from(number).unwrap()
}

pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + millis)
}

/// An app that was created by the event at `position`, and whose token is `letter`, repeated.
pub fn app(position: u64, letter: char) -> AppRow {
    AppRow {
        created_position: Position::new(position),
        token: token(letter),
        name: AppName::parse(format!("app {letter}")).unwrap(),
        chat_count: 1,
        last_chat: Some(chat_number(1)),
        version: Version::new(2),
        created_at: timestamp(1),
        updated_at: timestamp(2),
    }
}

/// A chat that was created by the event at `position`.
pub fn chat(position: u64, app: &AppRow, number: u64) -> StoredChat {
    StoredChat {
        id: Position::new(position),
        app_id: app.created_position,
        app: app.token,
        last_message: None,
        row: ChatRow {
            number: chat_number(number),
            message_count: 0,
            version: Version::new(0),
            created_at: timestamp(3),
            updated_at: timestamp(4),
        },
    }
}

/// A message that was created by the event at `position`.
pub fn message(position: u64, chat: &StoredChat, number: u64) -> NewMessage {
    NewMessage {
        id: Position::new(position),
        chat_id: chat.id,
        number: message_number(number),
        body: format!("message {number}"),
        sender: None,
        data: None,
        version: Version::new(1),
        created_at: timestamp(5),
        updated_at: timestamp(6),
    }
}

/// The tombstone of `message`, for a message whose row a previous commit stored.
pub fn tombstone(message: &NewMessage) -> Tombstone {
    Tombstone {
        id: message.id,
        chat_id: message.chat_id,
        number: message.number,
        message_is_stored: true,
        version: Version::new(2),
        created_at: message.created_at,
        deleted_at: timestamp(9),
    }
}

pub fn dead_letter(position: u64, stream: &str) -> DeadLetter {
    DeadLetter {
        position: Position::new(position),
        stream: stream.to_owned(),
        event_type: "AppSold".to_owned(),
        reason: "unknown event type".to_owned(),
        dead_lettered_at: timestamp(10),
        revision: Revision::new(position),
        discarded: None,
    }
}

/// Changes that only move the checkpoint, from one position to another.
pub fn changes(from: u64, to: u64) -> ReadModelChanges {
    ReadModelChanges::empty(LOG, Position::new(from), Position::new(to))
}

/// Commits an app `a` at position 1, a chat at position 2, and `message_count` messages from position 11 on. The
/// checkpoint moves to 1000.
pub async fn commit_chat_with_messages(
    read_model: &WriterAndReader,
    message_count: u64,
) -> (AppRow, StoredChat, Vec<NewMessage>) {
    let app = app(1, 'a');
    let mut chat = chat(2, &app, 1);
    let messages: Vec<_> = (1..=message_count).map(|n| message(10 + n, &chat, n)).collect();
    chat.last_message = messages.last().map(|message| message.number);
    chat.row.message_count = messages.len() as u64;
    let update = ReadModelChanges {
        new_apps: vec![app.clone()],
        new_chats: vec![chat.clone()],
        new_messages: messages.clone(),
        ..changes(0, 1_000)
    };
    read_model.writer.commit(update).await.unwrap();
    (app, chat, messages)
}

/// Deletes messages by their numbers. `messages` are all that [`commit_chat_with_messages`] returned. The checkpoint
/// moves from 1000 to 1001.
pub async fn delete(
    read_model: &WriterAndReader,
    messages: &[NewMessage],
    numbers: impl IntoIterator<Item = usize>,
) {
    let deleted_messages = numbers.into_iter().map(|number| tombstone(&messages[number - 1])).collect();
    read_model.writer.commit(ReadModelChanges { deleted_messages, ..changes(1_000, 1_001) }).await.unwrap();
}

/// Which messages exist beyond a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    Nothing,
    Older,
    Newer,
    OlderAndNewer,
}

/// Returns the numbers of the messages on a page, and which messages exist beyond the page.
pub fn page_contents(page: &MessagePage) -> (Vec<u64>, Beyond) {
    let numbers = page.messages.iter().map(|message| message.number.get()).collect();
    let beyond = match (page.has_older, page.has_newer) {
        (false, false) => Beyond::Nothing,
        (true, false) => Beyond::Older,
        (false, true) => Beyond::Newer,
        (true, true) => Beyond::OlderAndNewer,
    };
    (numbers, beyond)
}

/// Reads a page, and returns its [`page_contents`].
pub async fn read_page(
    read_model: &WriterAndReader,
    window: MessageWindow,
    limit: usize,
) -> (Vec<u64>, Beyond) {
    let page =
        read_model.reader.messages(token('a'), chat_number(1), window, limit).await.unwrap().value.unwrap();
    page_contents(&page)
}

/// The record of a discard by an operator action at this position.
pub fn discard_record(action_position: u64) -> DiscardRecord {
    let reason = "it is \"broken\"".to_owned();
    DiscardRecord { by: Position::new(action_position), at: timestamp(11), reason, acknowledged: None }
}
