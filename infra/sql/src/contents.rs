//! The contents of the read model, read row by row for the digest of the port. The hash of a row depends on the values
//! of its columns only, so it is the same in every engine.

use super::row::{self, SqlRow, Value};
use crate::{app_columns, chat_columns, deleted_message_columns, message_columns};
use chat_ports::projection_contents::{EntityKey, EntityKind, ProjectionContents};

/// A table whose rows are entities of one kind.
pub struct EntityTable {
    /// The kind of the rows.
    kind: EntityKind,
    /// The statement that reads the rows; each column is a field of the entity's hash.
    pub select_sql: &'static str,
    /// The number of columns.
    column_count: usize,
    /// The column with the position of the row's creation event.
    id_column: usize,
}

/// All tables of the read model.
pub const ENTITY_TABLES: [EntityTable; 5] = [
    EntityTable {
        kind: EntityKind::App,
        select_sql: concat!("SELECT ", app_columns!(""), " FROM apps"),
        column_count: 8,
        id_column: 0,
    },
    EntityTable {
        kind: EntityKind::Chat,
        select_sql: concat!("SELECT ", chat_columns!(""), " FROM chats"),
        column_count: 8,
        id_column: 5,
    },
    EntityTable {
        kind: EntityKind::Message,
        select_sql: concat!("SELECT ", message_columns!(""), " FROM messages"),
        column_count: 7,
        id_column: 5,
    },
    EntityTable {
        kind: EntityKind::Tombstone,
        select_sql: concat!("SELECT ", deleted_message_columns!(), " FROM deleted_messages"),
        column_count: 6,
        id_column: 2,
    },
    // Reason and time are left out: they differ between two builds.
    EntityTable {
        kind: EntityKind::DeadLetter,
        select_sql: "SELECT position, stream, event_type, discarded, acknowledged FROM dead_letters",
        column_count: 5,
        id_column: 0,
    },
];

impl EntityTable {
    /// Adds a row to the contents.
    pub fn add_row<R: SqlRow>(&self, contents: &mut ProjectionContents, row: &R) -> Result<(), R::Error> {
        let mut numbers = [[0; 8]; 8];
        let mut fields: [&[u8]; 9] = [&[]; 9];
        fields[0] = digest_tag(self.kind);
        for ((column, number), field) in (0..self.column_count).zip(&mut numbers).zip(&mut fields[1..]) {
            *field = match row.value(column)? {
                Value::Int(value) => {
                    *number = value.to_le_bytes();
                    number
                }
                Value::Text(text) => text.as_bytes(),
                // No column is nullable.
                Value::Null => &[],
            };
        }
        let position = row::position(row, self.id_column)?;
        contents.add(EntityKey { kind: self.kind, position }, &fields[..=self.column_count]);
        Ok(())
    }
}

/// The tag of a kind of rows in the digest, which must never change.
fn digest_tag(kind: EntityKind) -> &'static [u8] {
    match kind {
        EntityKind::App => b"app",
        EntityKind::Chat => b"chat",
        EntityKind::Message => b"message",
        EntityKind::Tombstone => b"tombstone",
        EntityKind::DeadLetter => b"parked",
    }
}
