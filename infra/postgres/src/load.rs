//! Queries of the projector: the checkpoint, dead letters, and rows by their keys, many rows with one statement.

use chat_domain::{AppToken, MessageNumber, Position};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Result, query, query_scalar};

use super::row::PostgresRow;
use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::read_model::{AppRow, ChatKey, StoredChat, StoredMessage};
use chat_sql::load::{BLOCKED_STREAMS, CHECKPOINT, DEAD_LETTER, DEAD_LETTER_COUNTS, DEAD_LETTERS_OF_STREAM};
use chat_sql::row;
use chat_sql::row::to_sql_int;
use chat_sql::{load_apps, load_chats, load_messages};

pub(super) async fn checkpoint(db: &mut PgConnection) -> Result<ProjectionCheckpoint> {
    row::read_checkpoint(&PostgresRow(&query(CHECKPOINT).fetch_one(db).await?))
}

pub(super) async fn blocked_streams(db: &mut PgConnection) -> Result<Vec<String>> {
    query_scalar(BLOCKED_STREAMS).fetch_all(db).await
}

pub(super) async fn dead_letter_counts(db: &mut PgConnection) -> Result<DeadLetterCounts> {
    row::read_dead_letter_counts(&PostgresRow(&query(DEAD_LETTER_COUNTS).fetch_one(db).await?), 0)
}

pub(super) async fn dead_letter(db: &mut PgConnection, position: Position) -> Result<Option<DeadLetter>> {
    let row = query(DEAD_LETTER).bind(to_sql_int(position.get())).fetch_optional(db).await?;
    row.map(|row| row::read_dead_letter(&PostgresRow(&row), 0)).transpose()
}

pub(super) async fn dead_letters_of_stream(
    db: &mut PgConnection,
    stream: String,
    limit: usize,
) -> Result<Vec<DeadLetter>> {
    let rows =
        query(DEAD_LETTERS_OF_STREAM).bind(stream).bind(row::to_sql_limit(limit)).fetch_all(db).await?;
    rows.iter().map(|row| row::read_dead_letter(&PostgresRow(row), 0)).collect()
}

pub(super) async fn apps(db: &mut PgConnection, tokens: Vec<AppToken>) -> Result<Vec<AppRow>> {
    let tokens: Vec<&str> = tokens.iter().map(AppToken::expose).collect();
    let rows = query(load_apps!("unnest($1::text[]) AS k (token)")).bind(tokens).fetch_all(db).await?;
    rows.iter().map(|row| row::read_app(&PostgresRow(row), 0)).collect()
}

pub(super) async fn chats(db: &mut PgConnection, keys: Vec<ChatKey>) -> Result<Vec<StoredChat>> {
    let tokens: Vec<&str> = keys.iter().map(|key| key.app.expose()).collect();
    let numbers: Vec<i64> = keys.iter().map(|key| to_sql_int(key.number.get())).collect();
    let sql = load_chats!("unnest($1::text[], $2::bigint[]) AS k (token, number)");
    let rows = query(sql).bind(tokens).bind(numbers).fetch_all(db).await?;
    rows.iter().map(|row| row::read_stored_chat(&PostgresRow(row))).collect()
}

pub(super) async fn messages(
    db: &mut PgConnection,
    keys: Vec<(Position, MessageNumber)>,
) -> Result<Vec<StoredMessage>> {
    let chats: Vec<i64> = keys.iter().map(|(chat, _)| to_sql_int(chat.get())).collect();
    let numbers: Vec<i64> = keys.iter().map(|(_, number)| to_sql_int(number.get())).collect();
    let sql = load_messages!("unnest($1::bigint[], $2::bigint[]) AS k (chat_id, number)");
    let rows: Vec<PgRow> = query(sql).bind(chats).bind(numbers).fetch_all(db).await?;
    rows.iter().filter_map(|row| row::read_stored_message(&PostgresRow(row)).transpose()).collect()
}
