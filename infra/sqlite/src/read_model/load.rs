//! What the projection loads before it folds: row by row, each with a prepared statement.

use chat_domain::{AppToken, MessageNumber, Position};
use rusqlite::{Connection, OptionalExtension, Params, Result};

use super::row::SqliteRow;
use chat_ports::checkpoint::Checkpoint;
use chat_ports::dead_letter::{DeadLetter, LetterCounts};
use chat_ports::read_model::{AppRow, ChatKey, StoredChat, StoredMessage};
use chat_sql::load::{CHECKPOINT, LETTER, LETTER_COUNTS, PARKED_OF, PARKED_STREAMS};
use chat_sql::row;
use chat_sql::row::int;
use chat_sql::{load_apps, load_chats, load_messages};

pub(super) fn checkpoint(db: &Connection) -> Result<Checkpoint> {
    db.prepare_cached(CHECKPOINT)?.query_row([], |row| row::checkpoint(&SqliteRow(row)))
}

pub(super) fn parked_streams(db: &Connection) -> Result<Vec<String>> {
    db.prepare_cached(PARKED_STREAMS)?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn letter_counts(db: &Connection) -> Result<LetterCounts> {
    db.prepare_cached(LETTER_COUNTS)?.query_row([], |row| row::letter_counts(&SqliteRow(row), 0))
}

pub(super) fn letter(db: &Connection, position: Position) -> Result<Option<DeadLetter>> {
    let mut select = db.prepare_cached(LETTER)?;
    select.query_row([int(position.get())], |row| row::dead_letter(&SqliteRow(row), 0)).optional()
}

pub(super) fn parked_of(db: &Connection, stream: &str, limit: usize) -> Result<Vec<DeadLetter>> {
    let mut select = db.prepare_cached(PARKED_OF)?;
    select.query_map((stream, row::limit(limit)), |row| row::dead_letter(&SqliteRow(row), 0))?.collect()
}

pub(super) fn apps(db: &Connection, tokens: &[AppToken]) -> Result<Vec<AppRow>> {
    let keys = tokens.iter().map(|token| [token.expose()]);
    found(db, load_apps!("(SELECT $1 AS token) AS k"), keys, |row| row::app(&SqliteRow(row), 0))
}

pub(super) fn chats(db: &Connection, keys: &[ChatKey]) -> Result<Vec<StoredChat>> {
    let keys = keys.iter().map(|key| (key.app.expose(), int(key.number.get())));
    found(db, load_chats!("(SELECT $1 AS token, $2 AS number) AS k"), keys, |row| {
        row::stored_chat(&SqliteRow(row))
    })
}

pub(super) fn messages(db: &Connection, keys: &[(Position, MessageNumber)]) -> Result<Vec<StoredMessage>> {
    let keys = keys.iter().map(|(chat, number)| [int(chat.get()), int(number.get())]);
    let sql = load_messages!("(SELECT $1 AS chat_id, $2 AS number) AS k");
    Ok(found(db, sql, keys, |row| row::stored_message(&SqliteRow(row)))?.into_iter().flatten().collect())
}

/// The rows that there are for the keys.
fn found<P: Params, T>(
    db: &Connection,
    sql: &str,
    keys: impl Iterator<Item = P>,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut select = db.prepare_cached(sql)?;
    keys.filter_map(|key| select.query_row(key, &read).optional().transpose()).collect()
}
