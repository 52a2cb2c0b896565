//! Commits the changes of a batch in one transaction. Each statement takes a set of rows, as one array for each column;
//! only changed dead letters have a statement each.

use chat_domain::Position;
use sqlx::postgres::{PgBindIterExt as _, PgQueryResult};
use sqlx::{Connection, Error, PgConnection, Result, query};

use super::error::RowCountMismatch;
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

/// Commits the changes. Returns `false` and stores nothing if the checkpoint is not at [`ReadModelChanges::from`], or
/// is of another log.
pub(super) async fn commit(db: &mut PgConnection, changes: ReadModelChanges) -> Result<bool> {
    let mut transaction = db.begin().await?;
    let is_applied = apply_changes(&mut transaction, changes).await?;
    if is_applied {
        transaction.commit().await?;
    }
    Ok(is_applied)
}

/// Applies the changes within the current transaction. Returns `false` and changes nothing if the checkpoint is not at
/// [`ReadModelChanges::from`], or is of another log.
pub(super) async fn apply_changes(db: &mut PgConnection, changes: ReadModelChanges) -> Result<bool> {
    if !move_checkpoint(db, &changes).await? {
        return Ok(false);
    }
    insert_apps(db, &changes.new_apps).await?;
    update_apps(db, &changes.changed_apps).await?;
    insert_chats(db, &changes.new_chats).await?;
    update_chats(db, &changes.changed_chats).await?;
    insert_messages(db, &changes.new_messages).await?;
    edit_messages(db, &changes.edited_messages).await?;
    delete_messages(db, &changes.deleted_messages).await?;
    insert_dead_letters(db, &changes.new_dead_letters).await?;
    delete_dead_letters(db, &changes.resolved_dead_letters).await?;
    update_dead_letters(db, &changes.changed_dead_letters).await?;
    Ok(true)
}

/// Replaces the log id of the checkpoint. Returns `false` and changes nothing if the stored checkpoint is not `from`.
pub(super) async fn adopt_log(db: &mut PgConnection, from: ProjectionCheckpoint, log: LogId) -> Result<bool> {
    let adopted = query(ADOPT_LOG)
        .bind(log.0.to_string())
        .bind(from.log.map(|folded| folded.0.to_string()))
        .bind(to_sql_int(from.position.get()))
        .execute(db)
        .await?;
    Ok(adopted.rows_affected() == 1)
}

async fn move_checkpoint(db: &mut PgConnection, changes: &ReadModelChanges) -> Result<bool> {
    let moved = query(MOVE_CHECKPOINT)
        .bind(changes.log.0.to_string())
        .bind(to_sql_int(changes.to.get()))
        .bind(to_sql_int(changes.from.get()))
        .execute(db)
        .await?;
    Ok(moved.rows_affected() == 1)
}

async fn insert_apps(db: &mut PgConnection, apps: &[AppRow]) -> Result<()> {
    if apps.is_empty() {
        return Ok(());
    }
    query(concat!(
        "INSERT INTO apps (",
        app_columns!(""),
        ") SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
           $7::bigint[], $8::bigint[])"
    ))
    .bind(apps.iter().map(|app| to_sql_int(app.created_position.get())).bind_iter())
    .bind(apps.iter().map(|app| app.token.expose()).bind_iter())
    .bind(apps.iter().map(|app| app.name.as_str()).bind_iter())
    .bind(apps.iter().map(|app| to_sql_int(app.chat_count)).bind_iter())
    .bind(apps.iter().map(last_chat_or_zero).bind_iter())
    .bind(apps.iter().map(|app| to_sql_int(app.version.get())).bind_iter())
    .bind(apps.iter().map(|app| app.created_at.millis()).bind_iter())
    .bind(apps.iter().map(|app| app.updated_at.millis()).bind_iter())
    .execute(db)
    .await?;
    Ok(())
}

async fn update_apps(db: &mut PgConnection, apps: &[AppRow]) -> Result<()> {
    if apps.is_empty() {
        return Ok(());
    }
    let updated = query(
        "UPDATE apps a SET name = n.name, chat_count = n.chat_count, last_chat = n.last_chat, version = n.version,
         updated_at = n.updated_at
         FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
         AS n (id, name, chat_count, last_chat, version, updated_at) WHERE a.id = n.id",
    )
    .bind(apps.iter().map(|app| to_sql_int(app.created_position.get())).bind_iter())
    .bind(apps.iter().map(|app| app.name.as_str()).bind_iter())
    .bind(apps.iter().map(|app| to_sql_int(app.chat_count)).bind_iter())
    .bind(apps.iter().map(last_chat_or_zero).bind_iter())
    .bind(apps.iter().map(|app| to_sql_int(app.version.get())).bind_iter())
    .bind(apps.iter().map(|app| app.updated_at.millis()).bind_iter())
    .execute(db)
    .await?;
    expect_row_count("apps", &updated, apps.len())
}

async fn insert_chats(db: &mut PgConnection, chats: &[StoredChat]) -> Result<()> {
    if chats.is_empty() {
        return Ok(());
    }
    query(concat!(
        "INSERT INTO chats (",
        chat_columns!(""),
        ") SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
           $7::bigint[], $8::bigint[])"
    ))
    .bind(chats.iter().map(|chat| to_sql_int(chat.row.number.get())).bind_iter())
    .bind(chats.iter().map(|chat| to_sql_int(chat.row.message_count)).bind_iter())
    .bind(chats.iter().map(|chat| to_sql_int(chat.row.version.get())).bind_iter())
    .bind(chats.iter().map(|chat| chat.row.created_at.millis()).bind_iter())
    .bind(chats.iter().map(|chat| chat.row.updated_at.millis()).bind_iter())
    .bind(chats.iter().map(|chat| to_sql_int(chat.id.get())).bind_iter())
    .bind(chats.iter().map(|chat| to_sql_int(chat.app_id.get())).bind_iter())
    .bind(chats.iter().map(last_message_or_zero).bind_iter())
    .execute(db)
    .await?;
    Ok(())
}

async fn update_chats(db: &mut PgConnection, chats: &[StoredChat]) -> Result<()> {
    if chats.is_empty() {
        return Ok(());
    }
    let updated = query(
        "UPDATE chats c SET message_count = n.message_count, last_message = n.last_message, version = n.version,
         updated_at = n.updated_at
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
         AS n (id, message_count, last_message, version, updated_at) WHERE c.id = n.id",
    )
    .bind(chats.iter().map(|chat| to_sql_int(chat.id.get())).bind_iter())
    .bind(chats.iter().map(|chat| to_sql_int(chat.row.message_count)).bind_iter())
    .bind(chats.iter().map(last_message_or_zero).bind_iter())
    .bind(chats.iter().map(|chat| to_sql_int(chat.row.version.get())).bind_iter())
    .bind(chats.iter().map(|chat| chat.row.updated_at.millis()).bind_iter())
    .execute(db)
    .await?;
    expect_row_count("chats", &updated, chats.len())
}

async fn insert_messages(db: &mut PgConnection, messages: &[NewMessage]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    query(concat!(
        "INSERT INTO messages (",
        message_columns!(),
        ") SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
           $7::bigint[], $8::text[], $9::text[], $10::text[])"
    ))
    .bind(messages.iter().map(|message| to_sql_int(message.number.get())).bind_iter())
    .bind(messages.iter().map(|message| message.body.as_str()).bind_iter())
    .bind(messages.iter().map(|message| to_sql_int(message.version.get())).bind_iter())
    .bind(messages.iter().map(|message| message.created_at.millis()).bind_iter())
    .bind(messages.iter().map(|message| message.updated_at.millis()).bind_iter())
    .bind(messages.iter().map(|message| to_sql_int(message.id.get())).bind_iter())
    .bind(messages.iter().map(|message| to_sql_int(message.chat_id.get())).bind_iter())
    // The sender's id, and the sender's name.
    .bind(messages.iter().map(|message| sender_columns(message.sender.as_ref()).0).bind_iter())
    .bind(messages.iter().map(|message| sender_columns(message.sender.as_ref()).1).bind_iter())
    .bind(messages.iter().map(|message| data_column(message.data.as_ref())).bind_iter())
    .execute(db)
    .await?;
    Ok(())
}

async fn edit_messages(db: &mut PgConnection, messages: &[EditedMessage]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let updated = query(
        "UPDATE messages m SET version = n.version, updated_at = n.updated_at, body = n.body,
         data = CASE WHEN n.changes_data <> 0 THEN n.data ELSE m.data END
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[])
         AS n (id, version, updated_at, body, changes_data, data) WHERE m.id = n.id",
    )
    .bind(messages.iter().map(|message| to_sql_int(message.id.get())).bind_iter())
    .bind(messages.iter().map(|message| to_sql_int(message.version.get())).bind_iter())
    .bind(messages.iter().map(|message| message.updated_at.millis()).bind_iter())
    .bind(messages.iter().map(|message| message.body.as_str()).bind_iter())
    // Whether the edit changes the data, and the new data.
    .bind(messages.iter().map(|message| data_change_columns(&message.data).0).bind_iter())
    .bind(messages.iter().map(|message| data_change_columns(&message.data).1).bind_iter())
    .execute(db)
    .await?;
    expect_row_count("messages", &updated, messages.len())
}

async fn delete_messages(db: &mut PgConnection, tombstones: &[Tombstone]) -> Result<()> {
    if tombstones.is_empty() {
        return Ok(());
    }
    let stored: Vec<i64> = tombstones
        .iter()
        .filter(|tombstone| tombstone.message_is_stored)
        .map(|tombstone| to_sql_int(tombstone.id.get()))
        .collect();
    let expected = stored.len();
    let deleted = query("DELETE FROM messages WHERE id = ANY($1)").bind(stored).execute(&mut *db).await?;
    expect_row_count("messages", &deleted, expected)?;
    query(concat!(
        "INSERT INTO deleted_messages (",
        deleted_message_columns!(),
        ") SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])"
    ))
    .bind(tombstones.iter().map(|tombstone| to_sql_int(tombstone.chat_id.get())).bind_iter())
    .bind(tombstones.iter().map(|tombstone| to_sql_int(tombstone.number.get())).bind_iter())
    .bind(tombstones.iter().map(|tombstone| to_sql_int(tombstone.id.get())).bind_iter())
    .bind(tombstones.iter().map(|tombstone| to_sql_int(tombstone.version.get())).bind_iter())
    .bind(tombstones.iter().map(|tombstone| tombstone.created_at.millis()).bind_iter())
    .bind(tombstones.iter().map(|tombstone| tombstone.deleted_at.millis()).bind_iter())
    .execute(db)
    .await?;
    Ok(())
}

async fn insert_dead_letters(db: &mut PgConnection, dead_letters: &[DeadLetter]) -> Result<()> {
    if dead_letters.is_empty() {
        return Ok(());
    }
    query(concat!(
        "INSERT INTO dead_letters (",
        dead_letter_columns!(),
        ") SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
           $7::bigint[], $8::bigint[], $9::text[], $10::bigint[])"
    ))
    .bind(dead_letters.iter().map(|dead_letter| to_sql_int(dead_letter.position.get())).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| dead_letter.stream.as_str()).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| to_sql_int(dead_letter.revision.get())).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| dead_letter.event_type.as_str()).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| dead_letter.reason.as_str()).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| dead_letter.dead_lettered_at.millis()).bind_iter())
    // The position, the time and the reason of the discard, and the position of its acknowledgement.
    .bind(dead_letters.iter().map(|dead_letter| discarded_columns(dead_letter).0).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| discarded_columns(dead_letter).1).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| discarded_columns(dead_letter).2).bind_iter())
    .bind(dead_letters.iter().map(|dead_letter| discarded_columns(dead_letter).3).bind_iter())
    .execute(db)
    .await?;
    Ok(())
}

async fn delete_dead_letters(db: &mut PgConnection, positions: &[Position]) -> Result<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = positions.iter().map(|position| to_sql_int(position.get())).collect();
    let deleted = query("DELETE FROM dead_letters WHERE position = ANY($1)").bind(keys).execute(db).await?;
    expect_row_count("dead_letters", &deleted, positions.len())
}

/// Runs one statement for each dead letter, because an operator action changes at most two dead letters.
async fn update_dead_letters(db: &mut PgConnection, dead_letters: &[DeadLetter]) -> Result<()> {
    for dead_letter in dead_letters {
        let (discarded, discarded_at, discard_reason, acknowledged) = discarded_columns(dead_letter);
        let updated = query(UPDATE_DEAD_LETTER)
            .bind(&dead_letter.reason)
            .bind(discarded)
            .bind(discarded_at)
            .bind(discard_reason)
            .bind(acknowledged)
            .bind(to_sql_int(dead_letter.position.get()))
            .execute(&mut *db)
            .await?;
        expect_row_count("dead_letters", &updated, 1)?;
    }
    Ok(())
}

fn expect_row_count(table: &'static str, result: &PgQueryResult, expected: usize) -> Result<()> {
    let changed = result.rows_affected();
    if usize::try_from(changed) == Ok(expected) {
        return Ok(());
    }
    Err(Error::Decode(Box::new(RowCountMismatch { table, changed, expected })))
}
