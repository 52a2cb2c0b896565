//! Loads rows, dead letters and the checkpoint for the projection, with prepared statements.

use chat_domain::{AppToken, MessageNumber, Position};
use rusqlite::{Connection, OptionalExtension, Params, Result};

use super::row::SqliteRow;
use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::read_model::{AppRow, ChatKey, StoredChat, StoredMessage};
use chat_sql::load::{BLOCKED_STREAMS, CHECKPOINT, DEAD_LETTER, DEAD_LETTER_COUNTS, DEAD_LETTERS_OF_STREAM};
use chat_sql::row;
use chat_sql::row::to_sql_int;
use chat_sql::{load_apps, load_chats, load_messages};

pub(super) fn checkpoint(db: &Connection) -> Result<ProjectionCheckpoint> {
    db.prepare_cached(CHECKPOINT)?.query_row([], |row| row::read_checkpoint(&SqliteRow(row)))
}

pub(super) fn blocked_streams(db: &Connection) -> Result<Vec<String>> {
    db.prepare_cached(BLOCKED_STREAMS)?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn dead_letter_counts(db: &Connection) -> Result<DeadLetterCounts> {
    db.prepare_cached(DEAD_LETTER_COUNTS)?
        .query_row([], |row| row::read_dead_letter_counts(&SqliteRow(row), 0))
}

pub(super) fn dead_letter(db: &Connection, position: Position) -> Result<Option<DeadLetter>> {
    let mut select = db.prepare_cached(DEAD_LETTER)?;
    select.query_row([to_sql_int(position.get())], |row| row::read_dead_letter(&SqliteRow(row), 0)).optional()
}

pub(super) fn dead_letters_of_stream(db: &Connection, stream: &str, limit: usize) -> Result<Vec<DeadLetter>> {
    let mut select = db.prepare_cached(DEAD_LETTERS_OF_STREAM)?;
    select
        .query_map((stream, row::to_sql_limit(limit)), |row| row::read_dead_letter(&SqliteRow(row), 0))?
        .collect()
}

pub(super) fn apps(db: &Connection, tokens: &[AppToken]) -> Result<Vec<AppRow>> {
    let keys = tokens.iter().map(|token| [token.expose()]);
    query_existing(db, load_apps!("(SELECT $1 AS token) AS k"), keys, |row| row::read_app(&SqliteRow(row), 0))
}

pub(super) fn chats(db: &Connection, keys: &[ChatKey]) -> Result<Vec<StoredChat>> {
    let keys = keys.iter().map(|key| (key.app.expose(), to_sql_int(key.number.get())));
    query_existing(db, load_chats!("(SELECT $1 AS token, $2 AS number) AS k"), keys, |row| {
        row::read_stored_chat(&SqliteRow(row))
    })
}

pub(super) fn messages(db: &Connection, keys: &[(Position, MessageNumber)]) -> Result<Vec<StoredMessage>> {
    let keys = keys.iter().map(|(chat, number)| [to_sql_int(chat.get()), to_sql_int(number.get())]);
    let sql = load_messages!("(SELECT $1 AS chat_id, $2 AS number) AS k");
    // The query returns a row for each key. It is read as `None` if there is neither a message nor a tombstone.
    Ok(query_existing(db, sql, keys, |row| row::read_stored_message(&SqliteRow(row)))?
        .into_iter()
        .flatten()
        .collect())
}

/// Runs the query for each key, and returns the rows that exist.
fn query_existing<P: Params, T>(
    db: &Connection,
    sql: &str,
    keys: impl Iterator<Item = P>,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut select = db.prepare_cached(sql)?;
    keys.filter_map(|key| select.query_row(key, &read).optional().transpose()).collect()
}
