//! Conversion between SQL rows, which hold integers and texts, and the types of the domain.

use std::error::Error as StdError;

use chat_domain::{
    AppName, AppToken, ChatNumber, DataChange, MessageData, MessageNumber, Position, Revision, Sender,
    SenderId, SenderName, Timestamp, Version,
};
use thiserror::Error;
use uuid::Uuid;

use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts, DiscardRecord};
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::read_model::{AppRow, ChatRow, MessageRow, MessageState, StoredChat, StoredMessage};

/// The value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// A signed integer.
    Int(i64),
    /// Text.
    Text(&'a str),
}

/// A row of an engine.
pub trait SqlRow {
    /// The engine's error.
    type Error;

    /// Returns the value of a column.
    fn value(&self, column: usize) -> Result<Value<'_>, Self::Error>;

    /// Creates the error for a column with an invalid value.
    fn decode_error(column: usize, cause: Box<dyn StdError + Send + Sync>) -> Self::Error;
}

/// A column holds a value of the wrong type or range.
#[derive(Debug, Error)]
#[error("the column holds {0}")]
struct UnexpectedValue(&'static str);

fn unexpected_value<R: SqlRow>(column: usize, value: Value<'_>) -> R::Error {
    let found = match value {
        Value::Null => "NULL",
        Value::Int(_) => "an unexpected number, or one out of range",
        Value::Text(_) => "unexpected text",
    };
    R::decode_error(column, Box::new(UnexpectedValue(found)))
}

/// Converts a number for storage or for a bound in a query. A number above `i64::MAX` becomes `i64::MAX`: stored
/// numbers stay far below it, so as a bound it selects the same rows as the number itself.
pub fn to_sql_int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Converts a row limit.
pub fn to_sql_limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The stored number of the last chat of an app, 0 for none.
pub fn last_chat_or_zero(app: &AppRow) -> i64 {
    app.last_chat.map_or(0, |number| to_sql_int(number.get()))
}

/// The stored number of the last message of a chat, 0 for none.
pub fn last_message_or_zero(chat: &StoredChat) -> i64 {
    chat.last_message.map_or(0, |number| to_sql_int(number.get()))
}

/// Whether a column is NULL.
pub fn is_null<R: SqlRow>(row: &R, column: usize) -> Result<bool, R::Error> {
    row.value(column).map(|value| value == Value::Null)
}

fn read_i64<R: SqlRow>(row: &R, column: usize) -> Result<i64, R::Error> {
    match row.value(column)? {
        Value::Int(value) => Ok(value),
        other => Err(unexpected_value::<R>(column, other)),
    }
}

/// Reads a non-negative number.
pub fn read_u64<R: SqlRow>(row: &R, column: usize) -> Result<u64, R::Error> {
    let value = read_i64(row, column)?;
    u64::try_from(value).map_err(|_| unexpected_value::<R>(column, Value::Int(value)))
}

/// Reads a text.
pub fn read_text<R: SqlRow>(row: &R, column: usize) -> Result<&str, R::Error> {
    match row.value(column)? {
        Value::Text(text) => Ok(text),
        other => Err(unexpected_value::<R>(column, other)),
    }
}

fn read_optional_text<R: SqlRow>(row: &R, column: usize) -> Result<Option<&str>, R::Error> {
    if is_null(row, column)? { Ok(None) } else { read_text(row, column).map(Some) }
}

/// Converts the error of parsing a column's value into an error of the engine.
fn or_decode_error<R: SqlRow, T, E: StdError + Send + Sync + 'static>(
    column: usize,
    value: Result<T, E>,
) -> Result<T, R::Error> {
    value.map_err(|error| R::decode_error(column, Box::new(error)))
}

/// Reads a position.
pub fn read_position<R: SqlRow>(row: &R, column: usize) -> Result<Position, R::Error> {
    read_u64(row, column).map(Position::new)
}

fn read_version<R: SqlRow>(row: &R, column: usize) -> Result<Version, R::Error> {
    read_u64(row, column).map(Version::new)
}

fn read_timestamp<R: SqlRow>(row: &R, column: usize) -> Result<Timestamp, R::Error> {
    read_i64(row, column).map(Timestamp::from_millis)
}

fn read_token<R: SqlRow>(row: &R, column: usize) -> Result<AppToken, R::Error> {
    or_decode_error::<R, _, _>(column, AppToken::parse(read_text(row, column)?))
}

fn read_chat_number<R: SqlRow>(row: &R, column: usize) -> Result<ChatNumber, R::Error> {
    or_decode_error::<R, _, _>(column, ChatNumber::try_from(read_u64(row, column)?))
}

fn read_message_number<R: SqlRow>(row: &R, column: usize) -> Result<MessageNumber, R::Error> {
    or_decode_error::<R, _, _>(column, MessageNumber::try_from(read_u64(row, column)?))
}

/// Reads `log, position`.
pub fn read_checkpoint<R: SqlRow>(row: &R) -> Result<ProjectionCheckpoint, R::Error> {
    let log = match row.value(0)? {
        Value::Null => None,
        _ => Some(LogId(or_decode_error::<R, _, _>(0, Uuid::parse_str(read_text(row, 0)?))?)),
    };
    Ok(ProjectionCheckpoint { log, position: read_position(row, 1)? })
}

/// Reads the columns `app_columns!` from `first_column` on.
pub fn read_app<R: SqlRow>(row: &R, first_column: usize) -> Result<AppRow, R::Error> {
    Ok(AppRow {
        created_position: read_position(row, first_column)?,
        token: read_token(row, first_column + 1)?,
        name: or_decode_error::<R, _, _>(
            first_column + 2,
            AppName::parse(read_text(row, first_column + 2)?.to_owned()),
        )?,
        chat_count: read_u64(row, first_column + 3)?,
        last_chat: if read_u64(row, first_column + 4)? == 0 {
            None
        } else {
            Some(read_chat_number(row, first_column + 4)?)
        },
        version: read_version(row, first_column + 5)?,
        created_at: read_timestamp(row, first_column + 6)?,
        updated_at: read_timestamp(row, first_column + 7)?,
    })
}

/// Reads the columns `chat_row_columns!` from `first_column` on.
pub fn read_chat<R: SqlRow>(row: &R, first_column: usize) -> Result<ChatRow, R::Error> {
    Ok(ChatRow {
        number: read_chat_number(row, first_column)?,
        message_count: read_u64(row, first_column + 1)?,
        version: read_version(row, first_column + 2)?,
        created_at: read_timestamp(row, first_column + 3)?,
        updated_at: read_timestamp(row, first_column + 4)?,
    })
}

/// Reads the columns `chat_columns!` and the app's token.
pub fn read_stored_chat<R: SqlRow>(row: &R) -> Result<StoredChat, R::Error> {
    Ok(StoredChat {
        row: read_chat(row, 0)?,
        id: read_position(row, 5)?,
        app_id: read_position(row, 6)?,
        last_message: if read_u64(row, 7)? == 0 { None } else { Some(read_message_number(row, 7)?) },
        app: read_token(row, 8)?,
    })
}

/// Reads the columns `message_row_columns!` from `first_column` on.
pub fn read_message<R: SqlRow>(row: &R, first_column: usize) -> Result<MessageRow, R::Error> {
    Ok(MessageRow {
        number: read_message_number(row, first_column)?,
        body: read_text(row, first_column + 1)?.to_owned(),
        version: read_version(row, first_column + 2)?,
        created_at: read_timestamp(row, first_column + 3)?,
        updated_at: read_timestamp(row, first_column + 4)?,
        sender: read_sender(row, first_column + 5)?,
        data: match read_optional_text(row, first_column + 7)? {
            Some(json) => Some(or_decode_error::<R, _, _>(first_column + 7, json.parse::<MessageData>())?),
            None => None,
        },
    })
}

/// Reads `sender_id, sender_name`.
fn read_sender<R: SqlRow>(row: &R, first_column: usize) -> Result<Option<Sender>, R::Error> {
    let Some(id) = read_optional_text(row, first_column)? else { return Ok(None) };
    let name = read_optional_text(row, first_column + 1)?.map(|name| SenderName::parse(name.to_owned()));
    Ok(Some(Sender {
        id: or_decode_error::<R, _, _>(first_column, SenderId::parse(id.to_owned()))?,
        name: or_decode_error::<R, _, _>(first_column + 1, name.transpose())?,
    }))
}

/// The stored id and name of a sender.
pub fn sender_columns(sender: Option<&Sender>) -> (Option<&str>, Option<&str>) {
    (
        sender.map(|sender| sender.id.as_str()),
        sender.and_then(|sender| sender.name.as_ref()).map(SenderName::as_str),
    )
}

/// The stored data.
pub fn data_column(data: Option<&MessageData>) -> Option<&str> {
    data.map(MessageData::as_str)
}

/// Whether an edit changes the data (0 or 1), and the new data.
pub fn data_change_columns(change: &DataChange) -> (i64, Option<&str>) {
    match change {
        DataChange::Keep => (0, None),
        DataChange::Remove => (1, None),
        DataChange::Replace(data) => (1, Some(data.as_str())),
    }
}

/// Reads a row of [`load_messages!`](crate::load_messages): chat id and number, the message, the tombstone. Returns
/// `None` if there is neither a message nor a tombstone.
pub fn read_stored_message<R: SqlRow>(row: &R) -> Result<Option<StoredMessage>, R::Error> {
    let state = if !is_null(row, 2)? {
        MessageState::Present {
            id: read_position(row, 2)?,
            version: read_version(row, 3)?,
            created_at: read_timestamp(row, 4)?,
        }
    } else if !is_null(row, 5)? {
        MessageState::Deleted
    } else {
        return Ok(None);
    };
    Ok(Some(StoredMessage { chat_id: read_position(row, 0)?, number: read_message_number(row, 1)?, state }))
}

/// Reads the columns `dead_letter_counts!` from `first_column` on.
pub fn read_dead_letter_counts<R: SqlRow>(
    row: &R,
    first_column: usize,
) -> Result<DeadLetterCounts, R::Error> {
    Ok(DeadLetterCounts {
        pending: read_u64(row, first_column)?,
        unacknowledged_discards: read_u64(row, first_column + 1)?,
    })
}

/// Reads `discarded, discarded_at, discard_reason, acknowledged`.
fn read_discarded<R: SqlRow>(row: &R, first_column: usize) -> Result<Option<DiscardRecord>, R::Error> {
    if read_u64(row, first_column)? == 0 {
        return Ok(None);
    }
    Ok(Some(DiscardRecord {
        by: read_position(row, first_column)?,
        at: read_timestamp(row, first_column + 1)?,
        reason: read_text(row, first_column + 2)?.to_owned(),
        acknowledged: if read_u64(row, first_column + 3)? == 0 {
            None
        } else {
            Some(read_position(row, first_column + 3)?)
        },
    }))
}

/// The values of the columns of `dead_letter_columns!` from `discarded` on.
pub fn discarded_columns(dead_letter: &DeadLetter) -> (i64, i64, &str, i64) {
    let Some(DiscardRecord { by, at, reason, acknowledged }) = &dead_letter.discarded else {
        return (0, 0, "", 0);
    };
    (to_sql_int(by.get()), at.millis(), reason, acknowledged.map_or(0, |by| to_sql_int(by.get())))
}

/// Reads the columns `dead_letter_columns!` from `first_column` on.
pub fn read_dead_letter<R: SqlRow>(row: &R, first_column: usize) -> Result<DeadLetter, R::Error> {
    Ok(DeadLetter {
        position: read_position(row, first_column)?,
        stream: read_text(row, first_column + 1)?.to_owned(),
        revision: Revision::new(read_u64(row, first_column + 2)?),
        event_type: read_text(row, first_column + 3)?.to_owned(),
        reason: read_text(row, first_column + 4)?.to_owned(),
        dead_lettered_at: read_timestamp(row, first_column + 5)?,
        discarded: read_discarded(row, first_column + 6)?,
    })
}
