//! Between rows of signed integers and texts and the domain's types.

use std::error::Error as StdError;

use chat_domain::{AppName, AppToken, ChatNumber, MessageNumber, Position, Revision, Timestamp, Version};
use thiserror::Error;
use uuid::Uuid;

use chat_ports::checkpoint::Checkpoint;
use chat_ports::dead_letter::{DeadLetter, Discarded, LetterCounts};
use chat_ports::event_store::LogId;
use chat_ports::read_model::{AppRow, ChatRow, MessageRow, MessageState, StoredChat, StoredMessage};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A signed integer.
    Int(i64),
    /// Text.
    Text(&'a str),
}

/// A row that an engine returned.
pub trait Row {
    /// The engine's error.
    type Error;

    /// What a column holds.
    fn value(&self, column: usize) -> Result<Value<'_>, Self::Error>;

    /// The error that says that a column holds what this program does not store.
    fn unreadable(column: usize, cause: Box<dyn StdError + Send + Sync>) -> Self::Error;
}

/// A column holds a value of another kind than it should.
#[derive(Debug, Error)]
#[error("the column holds {0}")]
struct Unexpected(&'static str);

fn unexpected<R: Row>(column: usize, value: Value<'_>) -> R::Error {
    let found = match value {
        Value::Null => "nothing",
        Value::Int(_) => "a number out of range or where none belongs",
        Value::Text(_) => "text where none belongs",
    };
    R::unreadable(column, Box::new(Unexpected(found)))
}

/// What an engine stores for a number. Positions and numbers stay far below the limit; a bound above it means "all".
pub fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit as an engine takes it.
pub fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The stored number of the last chat of an app, 0 for none.
pub fn last_chat(app: &AppRow) -> i64 {
    app.last_chat.map_or(0, |number| int(number.get()))
}

/// The stored number of the last message of a chat, 0 for none.
pub fn last_message(chat: &StoredChat) -> i64 {
    chat.last_message.map_or(0, |number| int(number.get()))
}

/// Whether a column holds nothing.
pub fn is_null<R: Row>(row: &R, column: usize) -> Result<bool, R::Error> {
    row.value(column).map(|value| value == Value::Null)
}

fn signed<R: Row>(row: &R, column: usize) -> Result<i64, R::Error> {
    match row.value(column)? {
        Value::Int(value) => Ok(value),
        other => Err(unexpected::<R>(column, other)),
    }
}

/// A column with a non-negative number.
pub fn uint<R: Row>(row: &R, column: usize) -> Result<u64, R::Error> {
    let value = signed(row, column)?;
    u64::try_from(value).map_err(|_| unexpected::<R>(column, Value::Int(value)))
}

/// A column with text.
pub fn text<R: Row>(row: &R, column: usize) -> Result<&str, R::Error> {
    match row.value(column)? {
        Value::Text(text) => Ok(text),
        other => Err(unexpected::<R>(column, other)),
    }
}

fn parsed<R: Row, T, E: StdError + Send + Sync + 'static>(
    column: usize,
    value: Result<T, E>,
) -> Result<T, R::Error> {
    value.map_err(|error| R::unreadable(column, Box::new(error)))
}

/// A column with a position of the log.
pub fn position<R: Row>(row: &R, column: usize) -> Result<Position, R::Error> {
    uint(row, column).map(Position::new)
}

fn version<R: Row>(row: &R, column: usize) -> Result<Version, R::Error> {
    uint(row, column).map(Version::new)
}

fn time<R: Row>(row: &R, column: usize) -> Result<Timestamp, R::Error> {
    signed(row, column).map(Timestamp::from_millis)
}

fn token<R: Row>(row: &R, column: usize) -> Result<AppToken, R::Error> {
    parsed::<R, _, _>(column, AppToken::parse(text(row, column)?))
}

fn chat_number<R: Row>(row: &R, column: usize) -> Result<ChatNumber, R::Error> {
    parsed::<R, _, _>(column, ChatNumber::try_from(uint(row, column)?))
}

fn message_number<R: Row>(row: &R, column: usize) -> Result<MessageNumber, R::Error> {
    parsed::<R, _, _>(column, MessageNumber::try_from(uint(row, column)?))
}

/// Reads `log, position`.
pub fn checkpoint<R: Row>(row: &R) -> Result<Checkpoint, R::Error> {
    let log = match row.value(0)? {
        Value::Null => None,
        _ => Some(LogId(parsed::<R, _, _>(0, Uuid::parse_str(text(row, 0)?))?)),
    };
    Ok(Checkpoint { log, position: position(row, 1)? })
}

/// Reads the columns `apps!` from `at` on.
pub fn app<R: Row>(row: &R, at: usize) -> Result<AppRow, R::Error> {
    Ok(AppRow {
        created_position: position(row, at)?,
        token: token(row, at + 1)?,
        name: parsed::<R, _, _>(at + 2, AppName::parse(text(row, at + 2)?.to_owned()))?,
        chat_count: uint(row, at + 3)?,
        last_chat: if uint(row, at + 4)? == 0 { None } else { Some(chat_number(row, at + 4)?) },
        version: version(row, at + 5)?,
        created_at: time(row, at + 6)?,
        updated_at: time(row, at + 7)?,
    })
}

/// Reads the columns `chat_row!` from `at` on.
pub fn chat<R: Row>(row: &R, at: usize) -> Result<ChatRow, R::Error> {
    Ok(ChatRow {
        number: chat_number(row, at)?,
        message_count: uint(row, at + 1)?,
        version: version(row, at + 2)?,
        created_at: time(row, at + 3)?,
        updated_at: time(row, at + 4)?,
    })
}

/// Reads the columns `chats!` and the app's token.
pub fn stored_chat<R: Row>(row: &R) -> Result<StoredChat, R::Error> {
    Ok(StoredChat {
        row: chat(row, 0)?,
        id: position(row, 5)?,
        app_id: position(row, 6)?,
        last_message: if uint(row, 7)? == 0 { None } else { Some(message_number(row, 7)?) },
        app: token(row, 8)?,
    })
}

/// Reads the columns `message_row!` from `at` on.
pub fn message<R: Row>(row: &R, at: usize) -> Result<MessageRow, R::Error> {
    Ok(MessageRow {
        number: message_number(row, at)?,
        body: text(row, at + 1)?.to_owned(),
        version: version(row, at + 2)?,
        created_at: time(row, at + 3)?,
        updated_at: time(row, at + 4)?,
    })
}

/// Reads what [`super::load`] finds for a message: chat and number, the message, the tombstone.
pub fn stored_message<R: Row>(row: &R) -> Result<Option<StoredMessage>, R::Error> {
    let state = if !is_null(row, 2)? {
        MessageState::Present { id: position(row, 2)?, version: version(row, 3)?, created_at: time(row, 4)? }
    } else if !is_null(row, 5)? {
        MessageState::Deleted
    } else {
        return Ok(None);
    };
    Ok(Some(StoredMessage { chat_id: position(row, 0)?, number: message_number(row, 1)?, state }))
}

/// Reads what `letter_counts!` counts, from `at` on.
pub fn letter_counts<R: Row>(row: &R, at: usize) -> Result<LetterCounts, R::Error> {
    Ok(LetterCounts { parked: uint(row, at)?, discarded: uint(row, at + 1)? })
}

fn discarded<R: Row>(row: &R, at: usize) -> Result<Option<Discarded>, R::Error> {
    if uint(row, at)? == 0 {
        return Ok(None);
    }
    Ok(Some(Discarded {
        by: position(row, at)?,
        at: time(row, at + 1)?,
        reason: text(row, at + 2)?.to_owned(),
        acknowledged: if uint(row, at + 3)? == 0 { None } else { Some(position(row, at + 3)?) },
    }))
}

/// What the columns of `dead_letters!` from `discarded` on hold for a letter.
pub fn of_discarded(letter: &DeadLetter) -> (i64, i64, &str, i64) {
    let Some(Discarded { by, at, reason, acknowledged }) = &letter.discarded else { return (0, 0, "", 0) };
    (int(by.get()), at.millis(), reason, acknowledged.map_or(0, |by| int(by.get())))
}

/// Reads the columns `dead_letters!` from `at` on.
pub fn dead_letter<R: Row>(row: &R, at: usize) -> Result<DeadLetter, R::Error> {
    Ok(DeadLetter {
        position: position(row, at)?,
        stream: text(row, at + 1)?.to_owned(),
        revision: Revision::new(uint(row, at + 2)?),
        event_type: text(row, at + 3)?.to_owned(),
        reason: text(row, at + 4)?.to_owned(),
        parked_at: time(row, at + 5)?,
        discarded: discarded(row, at + 6)?,
    })
}
