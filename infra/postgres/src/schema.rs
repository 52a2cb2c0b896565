//! The tables in their namespace: finding out what is there, laying them out, putting them aside.

use sqlx::{AssertSqlSafe, PgConnection, Result, Row as _, query, raw_sql};

use super::error::{ForeignTables, MissingTables, VersionMismatch, classify_error};
use super::url::SchemaName;
use chat_ports::read_model::ReadModelError;
use chat_sql::load::CHECKPOINT;
use chat_sql::tables::{SCHEMA, SCHEMA_VERSION, TABLES};

/// The comment on each table, by which they are told from those of something else.
const TABLE_COMMENT: &str = "chat-api read model";

/// Rows of these are written again and again, without changing a key: room beside them lets the new version of a row
/// stand on the page of the old one, which spares all indexes.
const FILL_FACTORS: &str = "ALTER TABLE chats SET (fillfactor = 70); ALTER TABLE apps SET (fillfactor = 70);
                    ALTER TABLE checkpoint SET (fillfactor = 10);";

/// What a namespace holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaState {
    /// There is no such namespace.
    Absent,
    /// It is empty; whoever administers the database has made it.
    Empty,
    /// Tables of something else.
    Foreign,
    /// Tables of a read model, but not all of them.
    Incomplete,
    /// A read model of some version.
    ReadModel,
}

pub(super) async fn inspect(db: &mut PgConnection, namespace: &SchemaName) -> Result<SchemaState> {
    let found = query(
        "SELECT count(c.oid), count(c.oid) FILTER (WHERE c.relname = ANY($2) AND obj_description(c.oid, 'pg_class') = $3)
         FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = $1 GROUP BY n.oid",
    )
    .bind(namespace.as_str())
    .bind(TABLES)
    .bind(TABLE_COMMENT)
    .fetch_optional(db)
    .await?;
    let Some(found) = found else { return Ok(SchemaState::Absent) };
    let (relations, ours): (i64, i64) = (found.try_get(0)?, found.try_get(1)?);
    Ok(match (relations, usize::try_from(ours)) {
        (0, _) => SchemaState::Empty,
        (_, Ok(0)) => SchemaState::Foreign,
        (_, Ok(tables)) if tables == TABLES.len() => SchemaState::ReadModel,
        _ => SchemaState::Incomplete,
    })
}

/// Refuses what is not a read model of this version. One that is damaged is put aside and folded anew; what belongs to
/// something else is left alone: the namespace was given by mistake.
pub(super) async fn check(
    db: &mut PgConnection,
    namespace: &SchemaName,
    found: SchemaState,
) -> Result<(), ReadModelError> {
    match found {
        SchemaState::Absent | SchemaState::Empty => return Ok(()),
        SchemaState::Foreign => {
            return Err(ReadModelError::Unavailable(Box::new(ForeignTables(namespace.as_str().to_owned()))));
        }
        SchemaState::Incomplete => return Err(ReadModelError::Damaged(Box::new(MissingTables))),
        SchemaState::ReadModel => {}
    }
    match query(CHECKPOINT).fetch_optional(db).await.map_err(classify_error)? {
        Some(_) => Ok(()),
        None => Err(ReadModelError::Damaged(Box::new(VersionMismatch(SCHEMA_VERSION)))),
    }
}

/// Makes the tables. Belongs in a transaction, so that others see all of them or none.
pub(super) async fn create_tables(
    db: &mut PgConnection,
    namespace: &SchemaName,
    found: SchemaState,
) -> Result<()> {
    let name = namespace.as_str();
    if found == SchemaState::Absent {
        raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {name}"))).execute(&mut *db).await?;
    }
    let first = format!("INSERT INTO checkpoint (layout, position) VALUES ({SCHEMA_VERSION}, 0);");
    let marks = TABLES.iter().map(|table| format!("COMMENT ON TABLE {table} IS '{TABLE_COMMENT}';"));
    let statements: String =
        [SCHEMA.to_owned(), FILL_FACTORS.to_owned(), first].into_iter().chain(marks).collect();
    raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

/// Gives the namespace another name, in place of the one that was put aside before. Belongs in a transaction.
pub(super) async fn quarantine(db: &mut PgConnection, namespace: &SchemaName) -> Result<()> {
    let (name, aside) = (namespace.as_str(), namespace.quarantine_name());
    let statements = format!("DROP SCHEMA IF EXISTS {aside} CASCADE; ALTER SCHEMA {name} RENAME TO {aside};");
    raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

/// Drops the namespace, and the one that was put aside.
pub(super) async fn remove(db: &mut PgConnection, namespace: &SchemaName) -> Result<()> {
    let (name, aside) = (namespace.as_str(), namespace.quarantine_name());
    let statements = format!("DROP SCHEMA IF EXISTS {aside} CASCADE; DROP SCHEMA IF EXISTS {name} CASCADE;");
    raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}
