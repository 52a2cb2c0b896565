//! Between SQLite's signed integers and texts and the domain's types.

use std::error::Error as StdError;

use chat_domain::{AppName, AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};

use crate::dead_letter::DeadLetter;
use crate::read_model::{AppRow, ChatRow, MessageRow, StoredChat};

/// What SQLite stores for a number. Positions and numbers stay far below the limit; a bound above it means "all".
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit as SQLite takes it.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

pub(super) fn uint(row: &Row<'_>, column: usize) -> Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

fn parsed<T, E: StdError + Send + Sync + 'static>(
    column: usize,
    kind: Type,
    value: std::result::Result<T, E>,
) -> Result<T> {
    value.map_err(|error| Error::FromSqlConversionFailure(column, kind, Box::new(error)))
}

pub(super) fn position(row: &Row<'_>, column: usize) -> Result<Position> {
    uint(row, column).map(Position::new)
}

pub(super) fn version(row: &Row<'_>, column: usize) -> Result<Version> {
    uint(row, column).map(Version::new)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

pub(super) fn token(row: &Row<'_>, column: usize) -> Result<AppToken> {
    parsed(column, Type::Text, AppToken::parse(row.get_ref(column)?.as_str()?))
}

pub(super) fn chat_number(row: &Row<'_>, column: usize) -> Result<ChatNumber> {
    parsed(column, Type::Integer, ChatNumber::try_from(uint(row, column)?))
}

pub(super) fn message_number(row: &Row<'_>, column: usize) -> Result<MessageNumber> {
    parsed(column, Type::Integer, MessageNumber::try_from(uint(row, column)?))
}

/// The columns that [`app`] reads.
pub(super) const APP: &str = "id, token, name, chat_count, version, created_at, updated_at";

pub(super) fn app(row: &Row<'_>) -> Result<AppRow> {
    Ok(AppRow {
        created_position: position(row, 0)?,
        token: token(row, 1)?,
        name: parsed(2, Type::Text, AppName::parse(row.get(2)?))?,
        chat_count: uint(row, 3)?,
        version: version(row, 4)?,
        created_at: time(row, 5)?,
        updated_at: time(row, 6)?,
    })
}

/// The columns that [`chat`] reads.
pub(super) const CHAT: &str = "c.number, c.message_count, c.version, c.created_at, c.updated_at";

pub(super) fn chat(row: &Row<'_>) -> Result<ChatRow> {
    Ok(ChatRow {
        number: chat_number(row, 0)?,
        message_count: uint(row, 1)?,
        version: version(row, 2)?,
        created_at: time(row, 3)?,
        updated_at: time(row, 4)?,
    })
}

/// The columns that [`stored_chat`] reads after those of [`chat`].
pub(super) const STORED_CHAT: &str = "c.id, c.app_id, c.last_message";

pub(super) fn stored_chat(row: &Row<'_>, app: AppToken) -> Result<StoredChat> {
    let last = uint(row, 7)?;
    Ok(StoredChat {
        id: position(row, 5)?,
        app_id: position(row, 6)?,
        app,
        last_message: if last == 0 { None } else { Some(message_number(row, 7)?) },
        row: chat(row)?,
    })
}

/// The columns that [`message`] reads.
pub(super) const MESSAGE: &str = "number, body, version, created_at, updated_at";

pub(super) fn message(row: &Row<'_>) -> Result<MessageRow> {
    Ok(MessageRow {
        number: message_number(row, 0)?,
        body: row.get(1)?,
        version: version(row, 2)?,
        created_at: time(row, 3)?,
        updated_at: time(row, 4)?,
    })
}

pub(super) fn dead_letter(row: &Row<'_>) -> Result<DeadLetter> {
    Ok(DeadLetter {
        position: position(row, 0)?,
        stream: row.get(1)?,
        event_type: row.get(2)?,
        reason: row.get(3)?,
        parked_at: time(row, 4)?,
    })
}
