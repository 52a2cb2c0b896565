//! Writing a set of changes, in one transaction.

use chat_domain::Position;
use rusqlite::{Connection, Error, Result, ToSql, TransactionBehavior, params};

use chat_ports::dead_letter::DeadLetter;
use chat_ports::read_model::{AppRow, Changes, EditedMessage, NewMessage, StoredChat, Tombstone};
use chat_sql::load::{MARK, MOVE_CHECKPOINT};
use chat_sql::row::{int, last_chat, last_message, of_discarded};
use chat_sql::{apps, chats, dead_letters, deleted_messages, messages};

/// Messages that one statement inserts where there are many of them: to start and end a statement costs as much as a row.
const ROWS_AT_ONCE: usize = 32;

/// How many columns `messages!` names.
const MESSAGE_COLUMNS: usize = 7;

/// Stores the changes; `false`, and nothing stored, where the checkpoint is not where they start.
pub(super) fn commit(db: &mut Connection, changes: &Changes) -> Result<bool> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let moved = write(&transaction, changes)?;
    if moved {
        transaction.commit()?;
    }
    Ok(moved)
}

/// Makes the changes in the transaction at hand; `false`, and nothing changed, where the checkpoint is not where they
/// start.
pub(super) fn write(db: &Connection, changes: &Changes) -> Result<bool> {
    if !move_checkpoint(db, changes)? {
        return Ok(false);
    }
    insert_apps(db, &changes.new_apps)?;
    update_apps(db, &changes.changed_apps)?;
    insert_chats(db, &changes.new_chats)?;
    update_chats(db, &changes.changed_chats)?;
    insert_messages(db, &changes.new_messages)?;
    edit_messages(db, &changes.edited_messages)?;
    delete_messages(db, &changes.deleted_messages)?;
    park(db, &changes.parked)?;
    unpark(db, &changes.unparked)?;
    mark(db, &changes.marked)?;
    Ok(true)
}

fn move_checkpoint(db: &Connection, changes: &Changes) -> Result<bool> {
    let moved = db.prepare_cached(MOVE_CHECKPOINT)?.execute(params![
        changes.log.0.to_string(),
        int(changes.to.get()),
        int(changes.from.get())
    ])?;
    Ok(moved == 1)
}

fn insert_apps(db: &Connection, apps: &[AppRow]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO apps (",
        apps!(""),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    ))?;
    for app in apps {
        insert.execute(params![
            int(app.created_position.get()),
            app.token.expose(),
            app.name.as_str(),
            int(app.chat_count),
            last_chat(app),
            int(app.version.get()),
            app.created_at.millis(),
            app.updated_at.millis(),
        ])?;
    }
    Ok(())
}

fn update_apps(db: &Connection, apps: &[AppRow]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE apps SET name = $1, chat_count = $2, last_chat = $3, version = $4, updated_at = $5 WHERE id = $6",
    )?;
    for app in apps {
        one(update.execute(params![
            app.name.as_str(),
            int(app.chat_count),
            last_chat(app),
            int(app.version.get()),
            app.updated_at.millis(),
            int(app.created_position.get()),
        ])?)?;
    }
    Ok(())
}

fn insert_chats(db: &Connection, chats: &[StoredChat]) -> Result<()> {
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

fn update_chats(db: &Connection, chats: &[StoredChat]) -> Result<()> {
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

fn insert_messages(db: &Connection, messages: &[NewMessage]) -> Result<()> {
    let (many, rest) = messages.split_at(messages.len() - messages.len() % ROWS_AT_ONCE);
    insert_by(db, many, ROWS_AT_ONCE)?;
    insert_by(db, rest, 1)
}

/// Inserts so many messages with each execution of the statement; their number is a multiple of that.
fn insert_by(db: &Connection, messages: &[NewMessage], rows: usize) -> Result<()> {
    let mut insert = db.prepare_cached(&inserting_messages(rows))?;
    for chunk in messages.chunks(rows) {
        let mut index = 0;
        for message in chunk {
            let columns: [&dyn ToSql; MESSAGE_COLUMNS] = [
                &int(message.number.get()),
                &message.body,
                &int(message.version.get()),
                &message.created_at.millis(),
                &message.updated_at.millis(),
                &int(message.id.get()),
                &int(message.chat_id.get()),
            ];
            for column in columns {
                index += 1;
                insert.raw_bind_parameter(index, column)?;
            }
        }
        insert.raw_execute()?;
    }
    Ok(())
}

/// The statement that inserts so many messages. Where one of them is there already it stops and fails, and what it did
/// stays: the transaction is given up anyway, and keeping pages to undo one statement would cost more than all else.
fn inserting_messages(rows: usize) -> String {
    let row = "(?, ?, ?, ?, ?, ?, ?)";
    let mut sql = format!(concat!("INSERT OR FAIL INTO messages (", messages!(""), ") VALUES {}"), row);
    for _ in 1..rows {
        sql.push_str(", ");
        sql.push_str(row);
    }
    sql
}

fn edit_messages(db: &Connection, messages: &[EditedMessage]) -> Result<()> {
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

fn delete_messages(db: &Connection, tombstones: &[Tombstone]) -> Result<()> {
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

fn park(db: &Connection, letters: &[DeadLetter]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO dead_letters (",
        dead_letters!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    ))?;
    for letter in letters {
        let (discarded, discarded_at, discard_reason, acknowledged) = of_discarded(letter);
        insert.execute(params![
            int(letter.position.get()),
            letter.stream,
            int(letter.revision.get()),
            letter.event_type,
            letter.reason,
            letter.parked_at.millis(),
            discarded,
            discarded_at,
            discard_reason,
            acknowledged,
        ])?;
    }
    Ok(())
}

fn unpark(db: &Connection, positions: &[Position]) -> Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM dead_letters WHERE position = $1")?;
    positions.iter().try_for_each(|position| one(delete.execute([int(position.get())])?))
}

fn mark(db: &Connection, letters: &[DeadLetter]) -> Result<()> {
    let mut update = db.prepare_cached(MARK)?;
    for letter in letters {
        let (discarded, discarded_at, discard_reason, acknowledged) = of_discarded(letter);
        one(update.execute(params![
            letter.reason,
            discarded,
            discarded_at,
            discard_reason,
            acknowledged,
            int(letter.position.get()),
        ])?)?;
    }
    Ok(())
}

/// A row that the projection loaded is gone, or was there more than once: not what this program wrote.
fn one(changed: usize) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(Error::StatementChangedRows(changed)) }
}
