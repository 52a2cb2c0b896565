//! What the projection loads before it folds: one statement a set.

use chat_domain::{AppToken, MessageNumber, Position};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Result, query, query_scalar};

use super::row::PostgresRow;
use chat_ports::checkpoint::Checkpoint;
use chat_ports::dead_letter::{DeadLetter, LetterCounts};
use chat_ports::read_model::{AppRow, ChatKey, StoredChat, StoredMessage};
use chat_sql::load::{CHECKPOINT, LETTER, LETTER_COUNTS, PARKED_OF, PARKED_STREAMS};
use chat_sql::row;
use chat_sql::row::int;
use chat_sql::{load_apps, load_chats, load_messages};

pub(super) async fn checkpoint(db: &mut PgConnection) -> Result<Checkpoint> {
    row::checkpoint(&PostgresRow(&query(CHECKPOINT).fetch_one(db).await?))
}

pub(super) async fn parked_streams(db: &mut PgConnection) -> Result<Vec<String>> {
    query_scalar(PARKED_STREAMS).fetch_all(db).await
}

pub(super) async fn letter_counts(db: &mut PgConnection) -> Result<LetterCounts> {
    row::letter_counts(&PostgresRow(&query(LETTER_COUNTS).fetch_one(db).await?), 0)
}

pub(super) async fn letter(db: &mut PgConnection, position: Position) -> Result<Option<DeadLetter>> {
    let row = query(LETTER).bind(int(position.get())).fetch_optional(db).await?;
    row.map(|row| row::dead_letter(&PostgresRow(&row), 0)).transpose()
}

pub(super) async fn parked_of(
    db: &mut PgConnection,
    stream: String,
    limit: usize,
) -> Result<Vec<DeadLetter>> {
    let rows = query(PARKED_OF).bind(stream).bind(row::limit(limit)).fetch_all(db).await?;
    rows.iter().map(|row| row::dead_letter(&PostgresRow(row), 0)).collect()
}

pub(super) async fn apps(db: &mut PgConnection, tokens: Vec<AppToken>) -> Result<Vec<AppRow>> {
    let tokens: Vec<&str> = tokens.iter().map(AppToken::expose).collect();
    let rows = query(load_apps!("unnest($1::text[]) AS k (token)")).bind(tokens).fetch_all(db).await?;
    rows.iter().map(|row| row::app(&PostgresRow(row), 0)).collect()
}

pub(super) async fn chats(db: &mut PgConnection, keys: Vec<ChatKey>) -> Result<Vec<StoredChat>> {
    let tokens: Vec<&str> = keys.iter().map(|key| key.app.expose()).collect();
    let numbers: Vec<i64> = keys.iter().map(|key| int(key.number.get())).collect();
    let sql = load_chats!("unnest($1::text[], $2::bigint[]) AS k (token, number)");
    let rows = query(sql).bind(tokens).bind(numbers).fetch_all(db).await?;
    rows.iter().map(|row| row::stored_chat(&PostgresRow(row))).collect()
}

pub(super) async fn messages(
    db: &mut PgConnection,
    keys: Vec<(Position, MessageNumber)>,
) -> Result<Vec<StoredMessage>> {
    let chats: Vec<i64> = keys.iter().map(|(chat, _)| int(chat.get())).collect();
    let numbers: Vec<i64> = keys.iter().map(|(_, number)| int(number.get())).collect();
    let sql = load_messages!("unnest($1::bigint[], $2::bigint[]) AS k (chat_id, number)");
    let rows: Vec<PgRow> = query(sql).bind(chats).bind(numbers).fetch_all(db).await?;
    rows.iter().filter_map(|row| row::stored_message(&PostgresRow(row)).transpose()).collect()
}
