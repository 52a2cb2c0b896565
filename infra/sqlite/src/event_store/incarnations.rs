//! The log's id and its incarnations.
//!
//! The table `log` holds the current id. The table `incarnations` is created when the second incarnation begins. Its
//! first row holds the id that the log was created with.

use chat_domain::{Position, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, Result, Row, TransactionBehavior, params};
use uuid::Uuid;

use super::reader::read_head;
use chat_ports::event_store::{Incarnation, LogId, LogLineage, NewIncarnation};

/// `replaces` is a JSON array of log ids.
const CREATE_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS incarnations (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        began_after INTEGER NOT NULL,
        began_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        replaces TEXT NOT NULL
    ) STRICT;
";

/// Reads the current id.
pub(super) fn read_log_id(connection: &Connection) -> Result<LogId> {
    connection.prepare_cached("SELECT id FROM log")?.query_row([], |row| read_id(row, 0))
}

/// Reads all incarnations.
pub(super) fn read_lineage(connection: &Connection) -> Result<LogLineage> {
    let exists: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'incarnations')",
        [],
        |row| row.get(0),
    )?;
    if !exists {
        return Ok(LogLineage::new(read_log_id(connection)?, Vec::new()));
    }
    let mut select = connection
        .prepare("SELECT id, began_after, began_at, reason, replaces FROM incarnations ORDER BY number")?;
    let mut incarnations = select.query_map([], read_incarnation)?.collect::<Result<Vec<_>>>()?;
    let original =
        if incarnations.is_empty() { read_log_id(connection)? } else { incarnations.remove(0).log };
    Ok(LogLineage::new(original, incarnations))
}

/// Begins an incarnation in one transaction. If an incarnation with this id has begun already, returns it as it is
/// stored.
pub(super) fn begin(connection: &mut Connection, new: NewIncarnation) -> Result<Incarnation> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let lineage = read_lineage(&transaction)?;
    if let Some(begun) = lineage.later().iter().find(|begun| begun.log == new.log) {
        return Ok(begun.clone());
    }
    transaction.execute_batch(CREATE_TABLE)?;
    let mut insert = transaction.prepare(
        "INSERT INTO incarnations (id, began_after, began_at, reason, replaces) VALUES (?, ?, ?, ?, ?)",
    )?;
    if lineage.later().is_empty() {
        insert.execute(params![lineage.original().0.as_bytes(), 0, 0, "", "[]"])?;
    }
    let incarnation = new.begun_after(read_head(&transaction)?);
    let Incarnation { log, began_after, began_at, reason, replaces } = &incarnation;
    let replaces = serde_json::to_string(replaces)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    insert.execute(params![log.0.as_bytes(), began_after.get(), began_at.millis(), reason, replaces])?;
    drop(insert);
    transaction.execute("UPDATE log SET id = ?", [log.0.as_bytes()])?;
    transaction.commit()?;
    Ok(incarnation)
}

fn read_incarnation(row: &Row<'_>) -> Result<Incarnation> {
    let replaces: String = row.get(4)?;
    Ok(Incarnation {
        log: read_id(row, 0)?,
        began_after: Position::new(row.get(1)?),
        began_at: Timestamp::from_millis(row.get(2)?),
        reason: row.get(3)?,
        replaces: serde_json::from_str(&replaces).map_err(|error| invalid_column(4, Type::Text, error))?,
    })
}

fn read_id(row: &Row<'_>, column: usize) -> Result<LogId> {
    let id: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&id).map(LogId).map_err(|error| invalid_column(column, Type::Blob, error))
}

fn invalid_column(
    column: usize,
    stored_as: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, stored_as, Box::new(error))
}
