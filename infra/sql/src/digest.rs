//! The digest of everything stored, read row by row. What it adds up is the port's own: each row as the numbers and
//! texts of its type, whatever columns hold them.

use super::row::{self, Row, Value};
use crate::{apps, chats, deleted_messages, messages};
use chat_ports::contents::{Contents, Key, Kind};

/// Rows of one kind.
pub struct Part {
    /// What they are.
    kind: Kind,
    /// The statement that reads them: every column is a field of the part.
    pub sql: &'static str,
    /// How many columns there are.
    columns: usize,
    /// Which of them holds the position of the event that the row began with.
    id: usize,
}

/// Everything.
pub const PARTS: [Part; 5] = [
    Part { kind: Kind::App, sql: concat!("SELECT ", apps!(""), " FROM apps"), columns: 8, id: 0 },
    Part { kind: Kind::Chat, sql: concat!("SELECT ", chats!(""), " FROM chats"), columns: 8, id: 5 },
    Part { kind: Kind::Message, sql: concat!("SELECT ", messages!(""), " FROM messages"), columns: 7, id: 5 },
    Part {
        kind: Kind::Tombstone,
        sql: concat!("SELECT ", deleted_messages!(), " FROM deleted_messages"),
        columns: 6,
        id: 2,
    },
    // Not the reason and the time: both belong to the run that parked the event.
    Part {
        kind: Kind::Parked,
        sql: "SELECT position, stream, event_type, discarded, acknowledged FROM dead_letters",
        columns: 5,
        id: 0,
    },
];

impl Part {
    /// Adds a row.
    pub fn add<R: Row>(&self, contents: &mut Contents, row: &R) -> Result<(), R::Error> {
        let mut numbers = [[0; 8]; 8];
        let mut fields: [&[u8]; 9] = [&[]; 9];
        fields[0] = name(self.kind);
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
        let position = row::position(row, self.id)?;
        contents.add(Key { kind: self.kind, position }, &fields[..=self.columns]);
        Ok(())
    }
}

/// What a kind of rows is called in the digest, for good.
fn name(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::App => b"app",
        Kind::Chat => b"chat",
        Kind::Message => b"message",
        Kind::Tombstone => b"tombstone",
        Kind::Parked => b"parked",
    }
}
