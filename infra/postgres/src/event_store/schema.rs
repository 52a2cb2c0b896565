//! The tables and functions of the event log: checking, creating, and granting rights to them.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, query, query_as, query_scalar, raw_sql};
use uuid::Uuid;

use super::call_error::CallError;
use crate::error::sqlstate;

/// The schema of the log. A database has one log.
pub(super) const SCHEMA: &str = "chat_event_log";

/// The version of the tables and functions.
const VERSION: i32 = 1;

/// The tables, indexes, triggers and functions. All changes go through the functions, which run with the rights of
/// their owner: a user that may call them needs no right to write.
const TABLES: &str = include_str!("schema.sql");

/// The comment on the table `log`, which distinguishes it from tables of other programs.
const COMMENT: &str = "chat-api event log";

/// The state of the log's schema in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SchemaState {
    Absent,
    /// The schema exists without tables: an administrator created it.
    Empty,
    /// The schema holds tables of another program.
    Foreign,
    /// The schema holds an event log of some version.
    Log,
}

/// Whether a missing log is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    Create,
    Refuse,
}

/// Checks that the database has an event log that this program can use, and creates it if asked to.
pub(super) async fn prepare(connection: &mut PgConnection, if_missing: IfMissing) -> Result<(), CallError> {
    match inspect(connection).await? {
        SchemaState::Log => {}
        SchemaState::Foreign => return Err(CallError::ForeignTables(SCHEMA)),
        SchemaState::Absent | SchemaState::Empty if if_missing == IfMissing::Refuse => {
            return Err(CallError::NoLog);
        }
        SchemaState::Absent | SchemaState::Empty => create(connection).await?,
    }
    let version: i32 = query_scalar("SELECT version FROM chat_event_log.log").fetch_one(connection).await?;
    if version > VERSION { Err(CallError::NewerVersion(version, VERSION)) } else { Ok(()) }
}

/// As [`prepare`], for an operator who sets up the log for `program_user`. Refuses to create a log that `program_user`
/// would own.
pub(super) async fn set_up(
    connection: &mut PgConnection,
    program_user: Option<&str>,
) -> Result<(), CallError> {
    let (user, owner): (String, Option<String>) = query_as(
        "SELECT current_user::text, (SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'log')",
    )
    .bind(SCHEMA)
    .fetch_one(&mut *connection)
    .await?;
    if owner.is_none() && program_user == Some(user.as_str()) {
        return Err(CallError::GrantToSelf(user));
    }
    prepare(connection, IfMissing::Create).await.map_err(|error| match (error, owner) {
        (CallError::NoRight(refusal), Some(owner)) => CallError::OwnedByOther { owner, refusal },
        (other, _) => other,
    })
}

/// Whether the database has an event log.
pub(super) async fn has_log(connection: &mut PgConnection) -> Result<bool, CallError> {
    Ok(inspect(connection).await? == SchemaState::Log)
}

async fn inspect(connection: &mut PgConnection) -> Result<SchemaState, CallError> {
    let found = query(
        "SELECT count(c.oid), count(c.oid) FILTER (WHERE c.relname = 'log' AND obj_description(c.oid, 'pg_class') = $2)
         FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = $1 GROUP BY n.oid",
    )
    .bind(SCHEMA)
    .bind(COMMENT)
    .fetch_optional(connection)
    .await?;
    let Some(found) = found else { return Ok(SchemaState::Absent) };
    let (relations, log_tables): (i64, i64) = (found.try_get(0)?, found.try_get(1)?);
    Ok(match (relations, log_tables) {
        (0, _) => SchemaState::Empty,
        (_, 0) => SchemaState::Foreign,
        _ => SchemaState::Log,
    })
}

/// Creates the log in one transaction. Processes that start together take turns.
async fn create(connection: &mut PgConnection) -> Result<(), CallError> {
    let (encoding, user): (String, String) =
        query_as("SELECT current_setting('server_encoding'), current_user::text")
            .fetch_one(&mut *connection)
            .await?;
    if encoding != "UTF8" {
        return Err(CallError::Encoding(encoding));
    }
    create_tables(connection).await.map_err(|error| match error {
        CallError::NoRight(refusal) => CallError::MayNotCreate { user, refusal },
        other => other,
    })
}

async fn create_tables(connection: &mut PgConnection) -> Result<(), CallError> {
    let mut transaction = connection.begin().await?;
    query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(COMMENT)
        .execute(&mut *transaction)
        .await?;
    let found = inspect(&mut transaction).await?;
    if found == SchemaState::Log {
        return Ok(());
    }
    if found == SchemaState::Absent {
        raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {SCHEMA}"))).execute(&mut *transaction).await?;
    }
    raw_sql(TABLES).execute(&mut *transaction).await?;
    query("INSERT INTO chat_event_log.log (id, version) VALUES ($1, $2)")
        .bind(Uuid::new_v4())
        .bind(VERSION)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Grants a user the rights of a process: to read, and to call the functions. Fails if the user does not have them then:
/// Postgres only warns if a user without the right to grant tries to.
pub(super) async fn grant(connection: &mut PgConnection, user: &str) -> Result<(), CallError> {
    let quoted_user: String =
        query_scalar("SELECT quote_ident($1)").bind(user).fetch_one(&mut *connection).await?;
    let statements = format!(
        "GRANT USAGE ON SCHEMA {SCHEMA} TO {quoted_user};
         GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {quoted_user};
         GRANT EXECUTE ON FUNCTION {SCHEMA}.append, {SCHEMA}.begin_incarnation, {SCHEMA}.current_id TO {quoted_user};"
    );
    let granted = raw_sql(AssertSqlSafe(statements)).execute(&mut *connection).await;
    granted.map_err(|error| match sqlstate(&error) {
        // undefined_object
        Some("42704") => CallError::NoRole(user.to_owned()),
        _ => error.into(),
    })?;
    let (has_rights, owner): (bool, String) = query_as(
        "SELECT has_schema_privilege($2::name, n.oid, 'USAGE')
             AND (SELECT bool_and(has_table_privilege($2::name, c.oid, 'SELECT'))
                  FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = 'r')
             AND (SELECT bool_and(has_function_privilege($2::name, p.oid, 'EXECUTE')) FROM pg_proc p
                  WHERE p.pronamespace = n.oid AND p.proname IN ('append', 'begin_incarnation', 'current_id')),
             (SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'log')
         FROM pg_namespace n WHERE n.nspname = $1",
    )
    .bind(SCHEMA)
    .bind(user)
    .fetch_one(connection)
    .await?;
    if has_rights { Ok(()) } else { Err(CallError::NotGranted { user: user.to_owned(), owner }) }
}
