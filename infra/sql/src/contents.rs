//! The contents of the read model, read row by row for the digest of the port. The hash of a row depends on its kind
//! and the values of its columns only, so it is the same in every engine.

use super::row::{self, SqlRow, Value};
use crate::{app_columns, chat_columns, deleted_message_columns, message_columns};
use chat_ports::projection_contents::{EntityKey, EntityKind, ProjectionContents};

/// The field of a NULL column in the hash of a row. It differs from every text, because it is not UTF-8, and from every
/// number, because numbers have eight bytes.
const NULL: &[u8] = &[0xff];

/// A table whose rows are entities of one kind.
pub struct EntityTable {
    /// The kind of the rows.
    kind: EntityKind,
    /// The statement that reads the rows; each column is a field of the entity's hash.
    pub select_sql: &'static str,
    /// The number of columns.
    column_count: usize,
    /// The index of the column with the position of the row's creation event, or of the dead-lettered event.
    id_column: usize,
}

/// The tables whose rows are entities: all but the checkpoint.
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
        select_sql: concat!("SELECT ", message_columns!(), " FROM messages"),
        column_count: 10,
        id_column: 5,
    },
    EntityTable {
        kind: EntityKind::Tombstone,
        select_sql: concat!("SELECT ", deleted_message_columns!(), " FROM deleted_messages"),
        column_count: 6,
        id_column: 2,
    },
    // Reason and time of dead-lettering are left out: they may differ between two builds.
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
        // Room for the tag and for the largest `column_count`.
        let mut numbers = [[0; 8]; 10];
        let mut fields: [&[u8]; 11] = [&[]; 11];
        fields[0] = digest_tag(self.kind);
        let mut field_count = 1;
        for ((column, number), field) in (0..self.column_count).zip(&mut numbers).zip(&mut fields[1..]) {
            *field = match row.value(column)? {
                Value::Int(value) => {
                    *number = value.to_le_bytes();
                    number
                }
                Value::Text(text) => text.as_bytes(),
                Value::Null => NULL,
            };
            // NULLs at the end are left out, so that columns that are added later don't change the hash of rows without
            // them.
            if *field != NULL {
                // The tag, and the columns up to this one.
                field_count = column + 2;
            }
        }
        let position = row::read_position(row, self.id_column)?;
        contents.add(EntityKey { kind: self.kind, position }, &fields[..field_count]);
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

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;

    use super::*;

    struct Row<'a>(&'a [Value<'a>]);

    impl SqlRow for Row<'_> {
        type Error = String;

        fn value(&self, column: usize) -> Result<Value<'_>, String> {
            self.0.get(column).copied().ok_or_else(|| format!("no column {column}"))
        }

        fn decode_error(_: usize, cause: Box<dyn StdError + Send + Sync>) -> String {
            cause.to_string()
        }
    }

    fn contents_of(table: &EntityTable, row: &[Value<'_>]) -> Result<ProjectionContents, String> {
        let mut contents = ProjectionContents::default();
        table.add_row(&mut contents, &Row(row))?;
        Ok(contents)
    }

    #[test]
    fn sender_and_data_change_the_hash_of_a_message_and_their_absence_does_not() -> Result<(), String> {
        let before = [
            Value::Int(1),
            Value::Text("Hi"),
            Value::Int(1),
            Value::Int(5),
            Value::Int(5),
            Value::Int(11),
            Value::Int(2),
        ];
        let [_, _, messages, ..] = &ENTITY_TABLES;
        let table_before = EntityTable { kind: messages.kind, select_sql: "", column_count: 7, id_column: 5 };
        let (null, text) = (Value::Null, Value::Text);
        let added = [
            [null, null, null],
            [text("a"), null, null],
            [text("a"), text(""), null],
            [text("a"), text("a"), null],
            [text("a"), null, text("{}")],
            [null, null, text("{}")],
        ];
        let mut digests = Vec::new();
        for values in added {
            digests.push(contents_of(messages, &[before.as_slice(), &values].concat())?.digest);
        }
        assert_eq!(digests[0], contents_of(&table_before, &before)?.digest);
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
        Ok(())
    }
}
