//! The queries, each run inside one read transaction.

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position};
use rusqlite::{Connection, OptionalExtension, Result};

use super::row;
use super::window::{Page, page};
use crate::dead_letter::DeadLetter;
use crate::read_model::{AppRow, ChatRow, MessagePage, MessageRow, Missing, Window};

pub(super) fn checkpoint_position(db: &Connection) -> Result<Position> {
    db.prepare_cached("SELECT position FROM checkpoint")?.query_row([], |row| row::position(row, 0))
}

pub(super) fn app(db: &Connection, token: &AppToken) -> Result<Option<AppRow>> {
    let sql = format!("SELECT {} FROM apps WHERE token = ?1", row::APP);
    db.prepare_cached(&sql)?.query_row([token.expose()], row::app).optional()
}

pub(super) fn apps(db: &Connection, after: Position, limit: usize) -> Result<Vec<AppRow>> {
    let sql = format!("SELECT {} FROM apps WHERE id > ?1 ORDER BY id LIMIT ?2", row::APP);
    db.prepare_cached(&sql)?.query_map([row::int(after.get()), row::limit(limit)], row::app)?.collect()
}

fn app_id(db: &Connection, token: &AppToken) -> Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM apps WHERE token = ?1")?
        .query_row([token.expose()], |row| row.get(0))
        .optional()
}

pub(super) fn chat(
    db: &Connection,
    token: &AppToken,
    number: ChatNumber,
) -> Result<std::result::Result<ChatRow, Missing>> {
    let Some(app) = app_id(db, token)? else { return Ok(Err(Missing::App)) };
    let sql = format!("SELECT {} FROM chats c WHERE c.app_id = ?1 AND c.number = ?2", row::CHAT);
    let chat = db.prepare_cached(&sql)?.query_row([app, row::int(number.get())], row::chat).optional()?;
    Ok(chat.ok_or(Missing::Chat))
}

pub(super) fn chats(
    db: &Connection,
    token: &AppToken,
    after: Option<ChatNumber>,
    limit: usize,
) -> Result<std::result::Result<Vec<ChatRow>, Missing>> {
    let Some(app) = app_id(db, token)? else { return Ok(Err(Missing::App)) };
    let sql = format!(
        "SELECT {} FROM chats c WHERE c.app_id = ?1 AND c.number > ?2 ORDER BY c.number LIMIT ?3",
        row::CHAT
    );
    let after = after.map_or(0, |number| row::int(number.get()));
    let chats: Result<_> =
        db.prepare_cached(&sql)?.query_map([app, after, row::limit(limit)], row::chat)?.collect();
    chats.map(Ok)
}

/// The id of a chat.
fn chat_id(
    db: &Connection,
    token: &AppToken,
    number: ChatNumber,
) -> Result<std::result::Result<i64, Missing>> {
    let Some(app) = app_id(db, token)? else { return Ok(Err(Missing::App)) };
    let chat = db
        .prepare_cached("SELECT id FROM chats WHERE app_id = ?1 AND number = ?2")?
        .query_row([app, row::int(number.get())], |row| row.get(0))
        .optional()?;
    Ok(chat.ok_or(Missing::Chat))
}

pub(super) fn message(
    db: &Connection,
    token: &AppToken,
    chat: ChatNumber,
    number: MessageNumber,
) -> Result<std::result::Result<MessageRow, Missing>> {
    let chat = match chat_id(db, token, chat)? {
        Ok(chat) => chat,
        Err(missing) => return Ok(Err(missing)),
    };
    let key = [chat, row::int(number.get())];
    let sql = format!("SELECT {} FROM messages WHERE chat_id = ?1 AND number = ?2", row::MESSAGE);
    if let Some(message) = db.prepare_cached(&sql)?.query_row(key, row::message).optional()? {
        return Ok(Ok(message));
    }
    Ok(Err(if is_deleted(db, key)? { Missing::Deleted } else { Missing::Message }))
}

/// Whether a tombstone stands for this chat id and message number.
pub(super) fn is_deleted(db: &Connection, key: [i64; 2]) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM deleted_messages WHERE chat_id = ?1 AND number = ?2")?.exists(key)
}

pub(super) fn messages(
    db: &Connection,
    token: &AppToken,
    chat: ChatNumber,
    window: Window,
    limit: usize,
) -> Result<std::result::Result<MessagePage, Missing>> {
    let chat = match chat_id(db, token, chat)? {
        Ok(chat) => chat,
        Err(missing) => return Ok(Err(missing)),
    };
    let Page { range, older, newer } = page(db, chat, window, limit)?;
    let messages = match range {
        Some((first, last)) => {
            let sql = format!(
                "SELECT {} FROM messages WHERE chat_id = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number",
                row::MESSAGE
            );
            db.prepare_cached(&sql)?.query_map([chat, first, last], row::message)?.collect::<Result<_>>()?
        }
        None => Vec::new(),
    };
    Ok(Ok(MessagePage { messages, older, newer }))
}

pub(super) fn dead_letters(db: &Connection, limit: usize) -> Result<(Vec<DeadLetter>, u64)> {
    let sql =
        "SELECT position, stream, event_type, reason, parked_at FROM dead_letters ORDER BY position LIMIT ?1";
    let letters =
        db.prepare_cached(sql)?.query_map([row::limit(limit)], row::dead_letter)?.collect::<Result<_>>()?;
    Ok((letters, dead_letter_count(db)?))
}

pub(super) fn dead_letter_count(db: &Connection) -> Result<u64> {
    db.prepare_cached("SELECT count(*) FROM dead_letters")?.query_row([], |row| row::uint(row, 0))
}
