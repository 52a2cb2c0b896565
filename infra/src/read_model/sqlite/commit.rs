//! Writing a set of changes, in one transaction.

use rusqlite::{Connection, Error, Result, Transaction, TransactionBehavior, params};

use crate::dead_letter::DeadLetter;
use crate::read_model::sql::load::MOVE_CHECKPOINT;
use crate::read_model::sql::row::{int, last_message};
use crate::read_model::sql::tables::{apps, chats, dead_letters, deleted_messages, messages};
use crate::read_model::{AppRow, Changes, EditedMessage, NewMessage, StoredChat, Tombstone};

/// Stores the changes; `false`, and nothing stored, where the checkpoint is not where they start.
pub(super) fn commit(db: &mut Connection, changes: &Changes) -> Result<bool> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !move_checkpoint(&transaction, changes)? {
        return Ok(false);
    }
    insert_apps(&transaction, &changes.new_apps)?;
    update_apps(&transaction, &changes.changed_apps)?;
    insert_chats(&transaction, &changes.new_chats)?;
    update_chats(&transaction, &changes.changed_chats)?;
    insert_messages(&transaction, &changes.new_messages)?;
    edit_messages(&transaction, &changes.edited_messages)?;
    delete_messages(&transaction, &changes.deleted_messages)?;
    park(&transaction, &changes.parked)?;
    transaction.commit()?;
    Ok(true)
}

fn move_checkpoint(db: &Transaction<'_>, changes: &Changes) -> Result<bool> {
    let moved = db.prepare_cached(MOVE_CHECKPOINT)?.execute(params![
        changes.log.0.to_string(),
        int(changes.to.get()),
        int(changes.from.get())
    ])?;
    Ok(moved == 1)
}

fn insert_apps(db: &Transaction<'_>, apps: &[AppRow]) -> Result<()> {
    let mut insert =
        db.prepare_cached(concat!("INSERT INTO apps (", apps!(""), ") VALUES ($1, $2, $3, $4, $5, $6, $7)"))?;
    for app in apps {
        insert.execute(params![
            int(app.created_position.get()),
            app.token.expose(),
            app.name.as_str(),
            int(app.chat_count),
            int(app.version.get()),
            app.created_at.millis(),
            app.updated_at.millis(),
        ])?;
    }
    Ok(())
}

fn update_apps(db: &Transaction<'_>, apps: &[AppRow]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE apps SET name = $1, chat_count = $2, version = $3, updated_at = $4 WHERE id = $5",
    )?;
    for app in apps {
        one(update.execute(params![
            app.name.as_str(),
            int(app.chat_count),
            int(app.version.get()),
            app.updated_at.millis(),
            int(app.created_position.get()),
        ])?)?;
    }
    Ok(())
}

fn insert_chats(db: &Transaction<'_>, chats: &[StoredChat]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO chats (",
        chats!(""),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    ))?;
    for chat in chats {
        insert.execute(params![
            int(chat.row.number.get()),
            int(chat.row.message_count),
            int(chat.row.version.get()),
            chat.row.created_at.millis(),
            chat.row.updated_at.millis(),
            int(chat.id.get()),
            int(chat.app_id.get()),
            last_message(chat),
        ])?;
    }
    Ok(())
}

fn update_chats(db: &Transaction<'_>, chats: &[StoredChat]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE chats SET message_count = $1, last_message = $2, version = $3, updated_at = $4 WHERE id = $5",
    )?;
    for chat in chats {
        one(update.execute(params![
            int(chat.row.message_count),
            last_message(chat),
            int(chat.row.version.get()),
            chat.row.updated_at.millis(),
            int(chat.id.get()),
        ])?)?;
    }
    Ok(())
}

fn insert_messages(db: &Transaction<'_>, messages: &[NewMessage]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO messages (",
        messages!(""),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7)"
    ))?;
    for message in messages {
        insert.execute(params![
            int(message.number.get()),
            message.body,
            int(message.version.get()),
            message.created_at.millis(),
            message.updated_at.millis(),
            int(message.id.get()),
            int(message.chat_id.get()),
        ])?;
    }
    Ok(())
}

fn edit_messages(db: &Transaction<'_>, messages: &[EditedMessage]) -> Result<()> {
    let mut update =
        db.prepare_cached("UPDATE messages SET version = $1, updated_at = $2, body = $3 WHERE id = $4")?;
    for message in messages {
        one(update.execute(params![
            int(message.version.get()),
            message.updated_at.millis(),
            message.body,
            int(message.id.get()),
        ])?)?;
    }
    Ok(())
}

fn delete_messages(db: &Transaction<'_>, tombstones: &[Tombstone]) -> Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM messages WHERE id = $1")?;
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO deleted_messages (",
        deleted_messages!(),
        ") VALUES ($1, $2, $3, $4, $5, $6)"
    ))?;
    for tombstone in tombstones {
        if tombstone.stored {
            one(delete.execute([int(tombstone.id.get())])?)?;
        }
        insert.execute(params![
            int(tombstone.chat_id.get()),
            int(tombstone.number.get()),
            int(tombstone.id.get()),
            int(tombstone.version.get()),
            tombstone.created_at.millis(),
            tombstone.deleted_at.millis(),
        ])?;
    }
    Ok(())
}

fn park(db: &Transaction<'_>, letters: &[DeadLetter]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO dead_letters (",
        dead_letters!(),
        ") VALUES ($1, $2, $3, $4, $5)"
    ))?;
    for letter in letters {
        insert.execute(params![
            int(letter.position.get()),
            letter.stream,
            letter.event_type,
            letter.reason,
            letter.parked_at.millis(),
        ])?;
    }
    Ok(())
}

/// A row that the projection loaded is gone, or was there more than once: not what this program wrote.
fn one(changed: usize) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(Error::StatementChangedRows(changed)) }
}
