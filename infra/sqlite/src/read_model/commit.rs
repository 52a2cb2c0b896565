//! Commits a set of changes in one transaction.

use chat_domain::Position;
use rusqlite::{Connection, Error, Result, ToSql, TransactionBehavior, params};

use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::read_model::{AppRow, EditedMessage, NewMessage, ReadModelChanges, StoredChat, Tombstone};
use chat_sql::load::{ADOPT_LOG, MOVE_CHECKPOINT, UPDATE_DEAD_LETTER};
use chat_sql::row::{
    data_change_columns, data_column, discarded_columns, last_chat_or_zero, last_message_or_zero,
    sender_columns, to_sql_int,
};
use chat_sql::{app_columns, chat_columns, dead_letter_columns, deleted_message_columns, message_columns};

/// The number of messages that one statement inserts. The fixed cost of a statement is as high as the cost of one row.
const ROWS_PER_INSERT: usize = 32;

/// The number of columns in `message_columns!`.
const MESSAGE_COLUMNS: usize = 10;

/// Commits the changes. Returns `false` and stores nothing if the checkpoint is not at the start of the changes.
pub(super) fn commit(db: &mut Connection, changes: &ReadModelChanges) -> Result<bool> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let moved = apply_changes(&transaction, changes)?;
    if moved {
        transaction.commit()?;
    }
    Ok(moved)
}

/// Applies the changes within the current transaction. Returns `false` and changes nothing if the checkpoint is not at
/// the start of the changes.
pub(super) fn apply_changes(db: &Connection, changes: &ReadModelChanges) -> Result<bool> {
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
    insert_dead_letters(db, &changes.new_dead_letters)?;
    delete_dead_letters(db, &changes.resolved_dead_letters)?;
    update_dead_letters(db, &changes.changed_dead_letters)?;
    Ok(true)
}

/// Replaces the log id of the checkpoint. Returns `false` and changes nothing if the checkpoint is not `from`.
pub(super) fn adopt_log(db: &Connection, from: ProjectionCheckpoint, log: LogId) -> Result<bool> {
    let old_log = from.log.map(|log| log.0.to_string());
    let adopted =
        db.execute(ADOPT_LOG, params![log.0.to_string(), old_log, to_sql_int(from.position.get())])?;
    Ok(adopted == 1)
}

fn move_checkpoint(db: &Connection, changes: &ReadModelChanges) -> Result<bool> {
    let moved = db.prepare_cached(MOVE_CHECKPOINT)?.execute(params![
        changes.log.0.to_string(),
        to_sql_int(changes.to.get()),
        to_sql_int(changes.from.get())
    ])?;
    Ok(moved == 1)
}

fn insert_apps(db: &Connection, apps: &[AppRow]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO apps (",
        app_columns!(""),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    ))?;
    for app in apps {
        insert.execute(params![
            to_sql_int(app.created_position.get()),
            app.token.expose(),
            app.name.as_str(),
            to_sql_int(app.chat_count),
            last_chat_or_zero(app),
            to_sql_int(app.version.get()),
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
        expect_one_row(update.execute(params![
            app.name.as_str(),
            to_sql_int(app.chat_count),
            last_chat_or_zero(app),
            to_sql_int(app.version.get()),
            app.updated_at.millis(),
            to_sql_int(app.created_position.get()),
        ])?)?;
    }
    Ok(())
}

fn insert_chats(db: &Connection, chats: &[StoredChat]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO chats (",
        chat_columns!(""),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    ))?;
    for chat in chats {
        insert.execute(params![
            to_sql_int(chat.row.number.get()),
            to_sql_int(chat.row.message_count),
            to_sql_int(chat.row.version.get()),
            chat.row.created_at.millis(),
            chat.row.updated_at.millis(),
            to_sql_int(chat.id.get()),
            to_sql_int(chat.app_id.get()),
            last_message_or_zero(chat),
        ])?;
    }
    Ok(())
}

fn update_chats(db: &Connection, chats: &[StoredChat]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE chats SET message_count = $1, last_message = $2, version = $3, updated_at = $4 WHERE id = $5",
    )?;
    for chat in chats {
        expect_one_row(update.execute(params![
            to_sql_int(chat.row.message_count),
            last_message_or_zero(chat),
            to_sql_int(chat.row.version.get()),
            chat.row.updated_at.millis(),
            to_sql_int(chat.id.get()),
        ])?)?;
    }
    Ok(())
}

fn insert_messages(db: &Connection, messages: &[NewMessage]) -> Result<()> {
    let (many, rest) = messages.split_at(messages.len() - messages.len() % ROWS_PER_INSERT);
    insert_messages_in_chunks(db, many, ROWS_PER_INSERT)?;
    insert_messages_in_chunks(db, rest, 1)
}

/// Inserts `rows` messages with each execution of the statement. The number of messages is a multiple of `rows`.
fn insert_messages_in_chunks(db: &Connection, messages: &[NewMessage], rows: usize) -> Result<()> {
    let mut insert = db.prepare_cached(&insert_messages_sql(rows))?;
    for chunk in messages.chunks(rows) {
        let mut index = 0;
        for message in chunk {
            let (sender_id, sender_name) = sender_columns(message.sender.as_ref());
            let columns: [&dyn ToSql; MESSAGE_COLUMNS] = [
                &to_sql_int(message.number.get()),
                &message.body,
                &to_sql_int(message.version.get()),
                &message.created_at.millis(),
                &message.updated_at.millis(),
                &to_sql_int(message.id.get()),
                &to_sql_int(message.chat_id.get()),
                &sender_id,
                &sender_name,
                &data_column(message.data.as_ref()),
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

/// The statement that inserts `rows` messages. With `OR FAIL`, a duplicate key fails the statement without undoing its
/// inserts. The whole transaction is rolled back anyway, and a statement journal would cost more than the inserts.
fn insert_messages_sql(rows: usize) -> String {
    let row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let mut sql = format!(concat!("INSERT OR FAIL INTO messages (", message_columns!(), ") VALUES {}"), row);
    for _ in 1..rows {
        sql.push_str(", ");
        sql.push_str(row);
    }
    sql
}

fn edit_messages(db: &Connection, messages: &[EditedMessage]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE messages SET version = $1, updated_at = $2, body = $3,
         data = CASE WHEN $4 <> 0 THEN $5 ELSE data END WHERE id = $6",
    )?;
    for message in messages {
        let (changes_data, data) = data_change_columns(&message.data);
        expect_one_row(update.execute(params![
            to_sql_int(message.version.get()),
            message.updated_at.millis(),
            message.body,
            changes_data,
            data,
            to_sql_int(message.id.get()),
        ])?)?;
    }
    Ok(())
}

fn delete_messages(db: &Connection, tombstones: &[Tombstone]) -> Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM messages WHERE id = $1")?;
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO deleted_messages (",
        deleted_message_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6)"
    ))?;
    for tombstone in tombstones {
        if tombstone.message_is_stored {
            expect_one_row(delete.execute([to_sql_int(tombstone.id.get())])?)?;
        }
        insert.execute(params![
            to_sql_int(tombstone.chat_id.get()),
            to_sql_int(tombstone.number.get()),
            to_sql_int(tombstone.id.get()),
            to_sql_int(tombstone.version.get()),
            tombstone.created_at.millis(),
            tombstone.deleted_at.millis(),
        ])?;
    }
    Ok(())
}

fn insert_dead_letters(db: &Connection, dead_letters: &[DeadLetter]) -> Result<()> {
    let mut insert = db.prepare_cached(concat!(
        "INSERT INTO dead_letters (",
        dead_letter_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    ))?;
    for dead_letter in dead_letters {
        let (discarded, discarded_at, discard_reason, acknowledged) = discarded_columns(dead_letter);
        insert.execute(params![
            to_sql_int(dead_letter.position.get()),
            dead_letter.stream,
            to_sql_int(dead_letter.revision.get()),
            dead_letter.event_type,
            dead_letter.reason,
            dead_letter.dead_lettered_at.millis(),
            discarded,
            discarded_at,
            discard_reason,
            acknowledged,
        ])?;
    }
    Ok(())
}

fn delete_dead_letters(db: &Connection, positions: &[Position]) -> Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM dead_letters WHERE position = $1")?;
    positions.iter().try_for_each(|position| expect_one_row(delete.execute([to_sql_int(position.get())])?))
}

fn update_dead_letters(db: &Connection, dead_letters: &[DeadLetter]) -> Result<()> {
    let mut update = db.prepare_cached(UPDATE_DEAD_LETTER)?;
    for dead_letter in dead_letters {
        let (discarded, discarded_at, discard_reason, acknowledged) = discarded_columns(dead_letter);
        expect_one_row(update.execute(params![
            dead_letter.reason,
            discarded,
            discarded_at,
            discard_reason,
            acknowledged,
            to_sql_int(dead_letter.position.get()),
        ])?)?;
    }
    Ok(())
}

/// Fails if a row that the projection loaded is missing or duplicate, which means damage.
fn expect_one_row(changed: usize) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(Error::StatementChangedRows(changed)) }
}
