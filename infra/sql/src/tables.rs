//! The tables of the read model and their columns.

/// The version of the tables. Raised when `schema.sql` or the stored rows change so that programs of the previous
/// version can't work with them. Read models of other versions are rebuilt.
macro_rules! schema_version {
    () => {
        3
    };
}
pub(super) use schema_version;

/// The version of the tables as a number.
pub const SCHEMA_VERSION: i32 = schema_version!();

/// The statements that create the tables, in the dialect of Postgres.
pub const SCHEMA: &str = include_str!("schema.sql");

/// The names of the tables.
pub const TABLES: &[&str] = &["apps", "chats", "messages", "deleted_messages", "dead_letters", "checkpoint"];

/// The columns of `messages` that a read model of this schema version may lack. It lacks them if it was created by an
/// older program, one without senders and data. All are NULL in messages that such a program has stored.
pub const ADDED_COLUMNS: [&str; 3] = ["sender_id", "sender_name", "data"];

/// Returns the statement that adds a column of [`ADDED_COLUMNS`]. Its duration does not depend on the size of the
/// table.
pub fn add_column_sql(column: &str) -> String {
    format!("ALTER TABLE messages ADD COLUMN {column} TEXT")
}

/// Fails if a column of [`ADDED_COLUMNS`] is missing, and reads no row.
pub const REQUIRE_ADDED_COLUMNS: &str = "SELECT sender_id, sender_name, data FROM messages LIMIT 0";

/// The name of the index that [`ADD_SENDER_INDEX`] adds.
pub const SENDER_INDEX: &str = "messages_by_sender";

/// Adds the index of senders, if it is missing. Building the index reads the whole table.
pub const ADD_SENDER_INDEX: &str = "CREATE INDEX IF NOT EXISTS messages_by_sender \
     ON messages (chat_id, sender_id, number) WHERE sender_id IS NOT NULL";

/// The columns of `apps`, each with `$prefix`: a table alias and a dot, or an empty string. Other macros
/// take `$prefix` too.
#[macro_export]
macro_rules! app_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "id, ",
            $prefix,
            "token, ",
            $prefix,
            "name, ",
            $prefix,
            "chat_count, ",
            $prefix,
            "last_chat, ",
            $prefix,
            "version, ",
            $prefix,
            "created_at, ",
            $prefix,
            "updated_at"
        )
    };
}

/// The columns of `chats` that queries return.
#[macro_export]
macro_rules! chat_row_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "number, ",
            $prefix,
            "message_count, ",
            $prefix,
            "version, ",
            $prefix,
            "created_at, ",
            $prefix,
            "updated_at"
        )
    };
}

/// All columns of `chats`.
#[macro_export]
macro_rules! chat_columns {
    ($prefix:literal) => {
        concat!(
            $crate::chat_row_columns!($prefix),
            ", ",
            $prefix,
            "id, ",
            $prefix,
            "app_id, ",
            $prefix,
            "last_message"
        )
    };
}

/// The columns of `messages` that queries return.
#[macro_export]
macro_rules! message_row_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "number, ",
            $prefix,
            "body, ",
            $prefix,
            "version, ",
            $prefix,
            "created_at, ",
            $prefix,
            "updated_at, ",
            $prefix,
            "sender_id, ",
            $prefix,
            "sender_name, ",
            $prefix,
            "data"
        )
    };
}

/// All columns of `messages`. Those that may be NULL are last: the digest leaves out NULLs at the end of a row.
#[macro_export]
macro_rules! message_columns {
    () => {
        "number, body, version, created_at, updated_at, id, chat_id, sender_id, sender_name, data"
    };
}

/// The columns of `deleted_messages`.
#[macro_export]
macro_rules! deleted_message_columns {
    () => {
        "chat_id, number, id, version, created_at, deleted_at"
    };
}

/// The columns of `dead_letters`.
#[macro_export]
macro_rules! dead_letter_columns {
    () => {
        "position, stream, revision, event_type, reason, parked_at, discarded, discarded_at, discard_reason, \
         acknowledged"
    };
}
