//! The digest of everything stored, read row by row. What it adds up is the port's own: each row as the numbers and
//! texts of its type, whatever columns hold them.

use super::row::{Row, Value};
use super::tables::{apps, chats, deleted_messages, messages};
use crate::digest::ContentDigest;

/// Rows of one kind.
pub(crate) struct Part {
    /// What they are.
    kind: &'static [u8],
    /// The statement that reads them: every column is a field of the part.
    pub sql: &'static str,
    /// How many columns there are.
    columns: usize,
}

/// Everything.
pub(crate) const PARTS: [Part; 5] = [
    Part { kind: b"app", sql: concat!("SELECT ", apps!(""), " FROM apps"), columns: 8 },
    Part { kind: b"chat", sql: concat!("SELECT ", chats!(""), " FROM chats"), columns: 8 },
    Part { kind: b"message", sql: concat!("SELECT ", messages!(""), " FROM messages"), columns: 7 },
    Part {
        kind: b"tombstone",
        sql: concat!("SELECT ", deleted_messages!(), " FROM deleted_messages"),
        columns: 6,
    },
    // Not the reason and the time: both belong to the run that parked the event.
    Part {
        kind: b"parked",
        sql: "SELECT position, stream, event_type, discarded, acknowledged FROM dead_letters",
        columns: 5,
    },
];

impl Part {
    /// Adds a row.
    pub(crate) fn add<R: Row>(&self, digest: &mut ContentDigest, row: &R) -> Result<(), R::Error> {
        let mut numbers = [[0; 8]; 8];
        let mut fields: [&[u8]; 9] = [&[]; 9];
        fields[0] = self.kind;
        for ((column, number), field) in (0..self.columns).zip(&mut numbers).zip(&mut fields[1..]) {
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
        digest.add(&fields[..=self.columns]);
        Ok(())
    }
}
