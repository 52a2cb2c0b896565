//! The schema of the read model: inspecting, creating, extending, quarantining and removing its tables.

use sqlx::{AssertSqlSafe, PgConnection, Result, Row as _, query, query_scalar, raw_sql};

use super::error::{ForeignTables, MissingTables, VersionMismatch, classify_error};
use super::url::SchemaName;
use chat_ports::clock;
use chat_ports::read_model::ReadModelError;
use chat_sql::load::CHECKPOINT;
use chat_sql::tables::{
    ADD_SENDER_INDEX, ADDED_COLUMNS, SCHEMA, SCHEMA_VERSION, SENDER_INDEX, TABLES, add_column_sql,
};

/// The comment on each table, which distinguishes it from tables of other programs.
const TABLE_COMMENT: &str = "chat-api read model";

/// Rows of these tables are updated often without a change of keys. Free space lets the new version of a row stay on
/// the page of the old one (a HOT update), so that no index changes.
const FILL_FACTORS: &str = "ALTER TABLE chats SET (fillfactor = 70); ALTER TABLE apps SET (fillfactor = 70);
                    ALTER TABLE checkpoint SET (fillfactor = 10);";

/// The content of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaState {
    /// The schema does not exist.
    Absent,
    /// The schema is empty: an administrator created it.
    Empty,
    /// Tables of another program.
    Foreign,
    /// Tables of a read model, but not all of them.
    Incomplete,
    /// A read model of some version.
    ReadModel,
}

pub(super) async fn inspect(db: &mut PgConnection, schema_name: &SchemaName) -> Result<SchemaState> {
    let found = query(
        "SELECT count(c.oid), count(c.oid) FILTER (WHERE c.relname = ANY($2) AND obj_description(c.oid, 'pg_class') = $3)
         FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = $1 GROUP BY n.oid",
    )
    .bind(schema_name.as_str())
    .bind(TABLES)
    .bind(TABLE_COMMENT)
    .fetch_optional(db)
    .await?;
    let Some(found) = found else { return Ok(SchemaState::Absent) };
    let (relations, own_tables): (i64, i64) = (found.try_get(0)?, found.try_get(1)?);
    Ok(match (relations, usize::try_from(own_tables)) {
        (0, _) => SchemaState::Empty,
        (_, Ok(0)) => SchemaState::Foreign,
        (_, Ok(tables)) if tables == TABLES.len() => SchemaState::ReadModel,
        _ => SchemaState::Incomplete,
    })
}

/// Refuses a schema that holds anything but a read model of this version. A read model that is incomplete or of another
/// version is damage, which leads to quarantine and a rebuild. A schema of another program was configured by mistake,
/// and is left alone.
pub(super) async fn check(
    db: &mut PgConnection,
    schema_name: &SchemaName,
    found: SchemaState,
) -> Result<(), ReadModelError> {
    match found {
        SchemaState::Absent | SchemaState::Empty => return Ok(()),
        SchemaState::Foreign => {
            return Err(ReadModelError::Unavailable(Box::new(ForeignTables(
                schema_name.as_str().to_owned(),
            ))));
        }
        SchemaState::Incomplete => return Err(ReadModelError::Damaged(Box::new(MissingTables))),
        SchemaState::ReadModel => {}
    }
    match query(CHECKPOINT).fetch_optional(db).await.map_err(classify_error)? {
        Some(_) => Ok(()),
        None => Err(ReadModelError::Damaged(Box::new(VersionMismatch(SCHEMA_VERSION)))),
    }
}

/// Creates the tables. Must be called in a transaction, so that other sessions see all of them or none.
pub(super) async fn create_tables(
    db: &mut PgConnection,
    schema_name: &SchemaName,
    found: SchemaState,
) -> Result<()> {
    let name = schema_name.as_str();
    if found == SchemaState::Absent {
        raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {name}"))).execute(&mut *db).await?;
    }
    let initial_checkpoint =
        format!("INSERT INTO checkpoint (layout, position) VALUES ({SCHEMA_VERSION}, 0);");
    let comments = TABLES.iter().map(|table| format!("COMMENT ON TABLE {table} IS '{TABLE_COMMENT}';"));
    let statements: String = [SCHEMA.to_owned(), FILL_FACTORS.to_owned(), initial_checkpoint]
        .into_iter()
        .chain(comments)
        .collect();
    raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

/// Adds the columns of senders and data, which earlier versions did not create. Processes of those versions can still
/// read, because they name the columns that they read. Waits at most a second for running queries to end, because new
/// queries wait behind the change of the table.
pub(super) async fn add_missing_columns(db: &mut PgConnection) -> Result<()> {
    let present: Vec<String> = query_scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('messages') AND NOT attisdropped",
    )
    .fetch_all(&mut *db)
    .await?;
    let missing: Vec<_> =
        ADDED_COLUMNS.iter().filter(|column| !present.iter().any(|name| name == *column)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let alterations = missing.into_iter().map(|column| format!("{};", add_column_sql(column)));
    let statements: String = ["BEGIN; SET LOCAL lock_timeout = '1s';".to_owned()]
        .into_iter()
        .chain(alterations)
        .chain(["COMMIT;".to_owned()])
        .collect();
    raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

/// Adds the index of senders, which earlier versions did not create. Reads all messages. Queries go on meanwhile.
pub(super) async fn add_missing_index(db: &mut PgConnection) -> Result<()> {
    let is_present: bool =
        query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(SENDER_INDEX).fetch_one(&mut *db).await?;
    if !is_present {
        let statements = format!("BEGIN; SET LOCAL statement_timeout = 0; {ADD_SENDER_INDEX}; COMMIT;");
        raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    }
    Ok(())
}

/// Why a schema is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuarantineReason {
    /// It is damaged. A schema that was quarantined as damaged before is dropped.
    Damaged,
    /// It does not follow from the log. It is never dropped.
    OtherLog,
}

/// Renames the schema. Must be called in a transaction that then creates a new schema with the old name, so that other
/// sessions see a schema with this name at all times.
pub(super) async fn quarantine(
    db: &mut PgConnection,
    schema_name: &SchemaName,
    reason: QuarantineReason,
) -> Result<()> {
    let name = schema_name.as_str();
    let statements = match reason {
        QuarantineReason::Damaged => {
            let quarantined = schema_name.quarantine_name();
            format!(
                "DROP SCHEMA IF EXISTS {quarantined} CASCADE; ALTER SCHEMA {name} RENAME TO {quarantined};"
            )
        }
        QuarantineReason::OtherLog => {
            let seconds = clock::now().millis() / 1_000;
            format!("ALTER SCHEMA {name} RENAME TO {name}_log_{seconds};")
        }
    };
    raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}

/// Drops the schema and the damaged schema that was quarantined.
pub(super) async fn remove(db: &mut PgConnection, schema_name: &SchemaName) -> Result<()> {
    let (name, quarantined) = (schema_name.as_str(), schema_name.quarantine_name());
    let statements =
        format!("DROP SCHEMA IF EXISTS {quarantined} CASCADE; DROP SCHEMA IF EXISTS {name} CASCADE;");
    raw_sql(AssertSqlSafe(statements)).execute(db).await?;
    Ok(())
}
