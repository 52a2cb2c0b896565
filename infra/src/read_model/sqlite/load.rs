//! What the projection loads before it folds.

use chat_domain::{AppToken, MessageNumber, Position};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Result};
use uuid::Uuid;

use super::{query, row};
use crate::checkpoint::Checkpoint;
use crate::event_store::LogId;
use crate::read_model::{AppRow, ChatKey, MessageState, StoredChat, StoredMessage};

pub(super) fn checkpoint(db: &Connection) -> Result<Checkpoint> {
    db.prepare_cached("SELECT log, position FROM checkpoint")?.query_row([], |row| {
        let log: Option<String> = row.get(0)?;
        let log = log
            .map(|id| Uuid::parse_str(&id).map(LogId))
            .transpose()
            .map_err(|error| Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
        Ok(Checkpoint { log, position: row::position(row, 1)? })
    })
}

pub(super) fn parked_streams(db: &Connection) -> Result<Vec<String>> {
    db.prepare_cached("SELECT DISTINCT stream FROM dead_letters")?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn apps(db: &Connection, tokens: &[AppToken]) -> Result<Vec<AppRow>> {
    tokens.iter().filter_map(|token| query::app(db, token).transpose()).collect()
}

pub(super) fn chats(db: &Connection, keys: &[ChatKey]) -> Result<Vec<StoredChat>> {
    let sql = format!(
        "SELECT {}, {} FROM apps a JOIN chats c ON c.app_id = a.id WHERE a.token = ?1 AND c.number = ?2",
        row::CHAT,
        row::STORED_CHAT
    );
    let mut select = db.prepare_cached(&sql)?;
    keys.iter()
        .filter_map(|key| {
            let named = (key.app.expose(), row::int(key.number.get()));
            select.query_row(named, |row| row::stored_chat(row, key.app)).optional().transpose()
        })
        .collect()
}

pub(super) fn messages(db: &Connection, keys: &[(Position, MessageNumber)]) -> Result<Vec<StoredMessage>> {
    let mut select =
        db.prepare_cached("SELECT id, version, created_at FROM messages WHERE chat_id = ?1 AND number = ?2")?;
    let mut messages = Vec::with_capacity(keys.len());
    for (chat_id, number) in keys {
        let key = [row::int(chat_id.get()), row::int(number.get())];
        let present = |row: &rusqlite::Row<'_>| {
            Ok(MessageState::Present {
                id: row::position(row, 0)?,
                version: row::version(row, 1)?,
                created_at: row::time(row, 2)?,
            })
        };
        let state = match select.query_row(key, present).optional()? {
            Some(present) => present,
            None if query::is_deleted(db, key)? => MessageState::Deleted,
            None => continue,
        };
        messages.push(StoredMessage { chat_id: *chat_id, number: *number, state });
    }
    Ok(messages)
}
