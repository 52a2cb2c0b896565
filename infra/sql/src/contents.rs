//! The digest of everything stored, read row by row. What it adds up is the port's own: each row as the numbers and
//! texts of its type, whatever columns hold them.

use super::row::{self, SqlRow, Value};
use crate::{apps, chats, deleted_messages, messages};
use chat_ports::projection_contents::{EntityKey, EntityKind, ProjectionContents};

/// Rows of one kind.
pub struct EntityTable {
    /// What they are.
    kind: EntityKind,
    /// The statement that reads them: every column is a field of the part.
    pub select_sql: &'static str,
    /// How many columns there are.
    column_count: usize,
    /// Which of them holds the position of the event that the row began with.
    id_column: usize,
}

/// Everything.
pub const ENTITY_TABLES: [EntityTable; 5] = [
    EntityTable {
        kind: EntityKind::App,
        select_sql: concat!("SELECT ", apps!(""), " FROM apps"),
        column_count: 8,
        id_column: 0,
    },
    EntityTable {
        kind: EntityKind::Chat,
        select_sql: concat!("SELECT ", chats!(""), " FROM chats"),
        column_count: 8,
        id_column: 5,
    },
    EntityTable {
        kind: EntityKind::Message,
        select_sql: concat!("SELECT ", messages!(""), " FROM messages"),
        column_count: 7,
        id_column: 5,
    },
    EntityTable {
        kind: EntityKind::Tombstone,
        select_sql: concat!("SELECT ", deleted_messages!(), " FROM deleted_messages"),
        column_count: 6,
        id_column: 2,
    },
    // Not the reason and the time: both belong to the run that parked the event.
    EntityTable {
        kind: EntityKind::Parked,
        select_sql: "SELECT position, stream, event_type, discarded, acknowledged FROM dead_letters",
        column_count: 5,
        id_column: 0,
    },
];

impl EntityTable {
    /// Adds a row.
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
                // No column allows it.
                Value::Null => &[],
            };
        }
        let position = row::position(row, self.id_column)?;
        contents.add(EntityKey { kind: self.kind, position }, &fields[..=self.column_count]);
        Ok(())
    }
}

/// What a kind of rows is called in the digest, for good.
fn digest_tag(kind: EntityKind) -> &'static [u8] {
    match kind {
        EntityKind::App => b"app",
        EntityKind::Chat => b"chat",
        EntityKind::Message => b"message",
        EntityKind::Tombstone => b"tombstone",
        EntityKind::Parked => b"parked",
    }
}
