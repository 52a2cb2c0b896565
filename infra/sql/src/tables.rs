//! The tables and their columns.

/// The version of the tables. A change of `schema.sql` or of what the fold stores raises it, and what other versions
/// wrote is folded anew.
macro_rules! version {
    () => {
        3
    };
}
pub(super) use version;

/// [`version!`] as a number.
pub const SCHEMA_VERSION: i32 = version!();

/// The statements that make the tables, in Postgres's dialect.
pub const SCHEMA: &str = include_str!("schema.sql");

/// Their names.
pub const TABLES: &[&str] = &["apps", "chats", "messages", "deleted_messages", "dead_letters", "checkpoint"];

/// The columns of `apps`, each with `$of` before it: a table's name and a dot, or nothing. So with the others.
#[macro_export]
macro_rules! apps {
    ($of:literal) => {
        concat!(
            $of,
            "id, ",
            $of,
            "token, ",
            $of,
            "name, ",
            $of,
            "chat_count, ",
            $of,
            "last_chat, ",
            $of,
            "version, ",
            $of,
            "created_at, ",
            $of,
            "updated_at"
        )
    };
}

/// The columns of `chats` that queries answer with.
#[macro_export]
macro_rules! chat_row {
    ($of:literal) => {
        concat!(
            $of,
            "number, ",
            $of,
            "message_count, ",
            $of,
            "version, ",
            $of,
            "created_at, ",
            $of,
            "updated_at"
        )
    };
}

/// All columns of `chats`.
#[macro_export]
macro_rules! chats {
    ($of:literal) => {
        concat!($crate::chat_row!($of), ", ", $of, "id, ", $of, "app_id, ", $of, "last_message")
    };
}

/// The columns of `messages` that queries answer with.
#[macro_export]
macro_rules! message_row {
    ($of:literal) => {
        concat!($of, "number, ", $of, "body, ", $of, "version, ", $of, "created_at, ", $of, "updated_at")
    };
}

/// All columns of `messages`.
#[macro_export]
macro_rules! messages {
    ($of:literal) => {
        concat!($crate::message_row!($of), ", ", $of, "id, ", $of, "chat_id")
    };
}

/// The columns of `deleted_messages`.
#[macro_export]
macro_rules! deleted_messages {
    () => {
        "chat_id, number, id, version, created_at, deleted_at"
    };
}

/// The columns of `dead_letters`.
#[macro_export]
macro_rules! dead_letters {
    () => {
        "position, stream, revision, event_type, reason, parked_at, discarded, discarded_at, discard_reason, \
         acknowledged"
    };
}
