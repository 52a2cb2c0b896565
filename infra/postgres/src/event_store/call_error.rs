//! Errors of calls to the log's server, and their meaning for retries and for the port.

use sqlx::Error;
use thiserror::Error;

use crate::error::{PoolTimeout, ResponseTimeout, ServerError, sqlstate};
use chat_ports::event_store::EventStoreError;

/// An error of a call to the log's server.
#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Timeout(#[from] ResponseTimeout),
    #[error(transparent)]
    NoConnection(#[from] PoolTimeout),
    #[error("Postgres can't be reached")]
    Unreachable(#[source] Error),
    #[error("Postgres can't answer now")]
    Transient(#[source] ServerError),
    #[error("the server is a standby, which takes no appends")]
    Standby,
    #[error("Postgres refuses the user or the password")]
    Credentials(#[source] ServerError),
    #[error("the database does not exist")]
    NoDatabase(#[source] ServerError),
    #[error(
        "the user lacks a right on the event log: the owner of its tables grants what is needed with `chat-api events setup \
         --grant-to USER`"
    )]
    NoRight(#[source] ServerError),
    #[error(
        "the role {user} got no rights: only {owner}, the owner of the event log's tables, can grant them"
    )]
    NotGranted { user: String, owner: String },
    #[error(
        "the event log belongs to {owner}, and only {owner} can grant rights on it; if {owner} is the user of the processes, one \
         of them has created the log: while it has no events, drop the schema chat_event_log and repeat the command"
    )]
    OwnedByOther {
        owner: String,
        #[source]
        refusal: ServerError,
    },
    #[error(
        "{0}, the user of the processes, would own the event log, so the processes could change its events: run the command as \
         another user"
    )]
    GrantToSelf(String),
    #[error("the role {0} does not exist: create it first, for example with `createuser --pwprompt`")]
    NoRole(String),
    #[error("there is no event log in this database: `chat-api events setup` creates it")]
    NoLog,
    #[error(
        "there is no event log in this database, and the user {user} may not create it: the owner of the database can, with \
         `chat-api events setup --grant-to USER`"
    )]
    MayNotCreate {
        user: String,
        #[source]
        refusal: ServerError,
    },
    #[error("the schema {0} holds tables of another program; is it the right database?")]
    ForeignTables(&'static str),
    #[error("the database has the encoding {0}, but the event log needs UTF8")]
    Encoding(String),
    #[error("the event log has version {0}, but this program reads versions up to {1}")]
    NewerVersion(i32, i32),
    #[error(
        "appends need the isolation level READ COMMITTED: set default_transaction_isolation of the user or the database"
    )]
    Isolation,
    #[error("another incarnation of the log has begun; restart the process")]
    OtherIncarnation,
    #[error("the log has lost an event that this process has seen")]
    LostEvents(#[source] ServerError),
    #[error("an event id is already stored")]
    DuplicateId,
    /// This process can't read a row that the server returned.
    #[error("the tables of the event log are damaged")]
    UnreadableRow(#[source] Error),
    /// The server reported an error that means damage.
    #[error("the tables of the event log are damaged")]
    DamageReported(#[source] ServerError),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        let Error::Database(database) = &error else {
            let is_damage = matches!(
                error,
                Error::RowNotFound
                    | Error::TypeNotFound { .. }
                    | Error::ColumnIndexOutOfBounds { .. }
                    | Error::ColumnNotFound(_)
                    | Error::ColumnDecode { .. }
                    | Error::Decode(_)
            );
            return if is_damage { Self::UnreadableRow(error) } else { Self::Unreachable(error) };
        };
        let server = ServerError::new(&**database);
        match server.code.as_str() {
            // Errors of the functions in schema.sql.
            "CH001" => Self::OtherIncarnation,
            "CH002" => Self::LostEvents(server),
            "CH003" => Self::Isolation,
            // unique_violation
            "23505" if database.constraint() == Some("events_by_id") => Self::DuplicateId,
            // invalid_authorization_specification, invalid_password
            "28000" | "28P01" => Self::Credentials(server),
            // invalid_catalog_name
            "3D000" => Self::NoDatabase(server),
            // insufficient_privilege
            "42501" => Self::NoRight(server),
            // invalid_schema_name, undefined_table, undefined_function
            "3F000" | "42P01" | "42883" => Self::NoLog,
            // read_only_sql_transaction
            "25006" => Self::Standby,
            // data_corrupted, index_corrupted; the classes 22, 23 and 42 are data exceptions, violated constraints, and
            // undefined or mistyped objects.
            code if ["XX001", "XX002"].contains(&code)
                || ["22", "23", "42"].iter().any(|class| code.starts_with(class)) =>
            {
                Self::DamageReported(server)
            }
            _ => Self::Transient(server),
        }
    }
}

impl CallError {
    /// Whether a retry may succeed. Also true for serialization failures and deadlocks.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Timeout(_)
                | Self::NoConnection(_)
                | Self::Unreachable(_)
                | Self::Transient(_)
                | Self::Standby
        )
    }

    /// Whether an append that failed with this error after it was sent may have been stored. If the server reports an
    /// error of the statement, the transaction was rolled back. If the server ends the session, the commit may have
    /// succeeded.
    pub(super) fn leaves_outcome_unknown(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable(_) => true,
            // Connection exceptions, a shutdown by an operator or a crash, statement_completion_unknown.
            Self::Transient(server) => {
                ["08", "57P"].iter().any(|class| server.code.starts_with(class)) || server.code == "40003"
            }
            _ => false,
        }
    }
}

impl From<CallError> for EventStoreError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::UnreadableRow(_) | CallError::DamageReported(_) | CallError::DuplicateId => {
                Self::Damaged(error.into())
            }
            CallError::Credentials(_)
            | CallError::NoDatabase(_)
            | CallError::NoRight(_)
            | CallError::NotGranted { .. }
            | CallError::OwnedByOther { .. }
            | CallError::GrantToSelf(_)
            | CallError::NoRole(_)
            | CallError::NoLog
            | CallError::MayNotCreate { .. }
            | CallError::ForeignTables(_)
            | CallError::Encoding(_)
            | CallError::NewerVersion(..)
            | CallError::Isolation => Self::Refused(error.into()),
            CallError::Timeout(_)
            | CallError::NoConnection(_)
            | CallError::Unreachable(_)
            | CallError::Transient(_)
            | CallError::Standby
            | CallError::OtherIncarnation
            | CallError::LostEvents(_) => Self::Unavailable(error.into()),
        }
    }
}

/// Whether an error means that the server, or a connection pooler in front of it, refuses the settings of a session.
pub(super) fn refuses_settings(error: &Error) -> bool {
    // protocol_violation
    sqlstate(error) == Some("08P01")
}
