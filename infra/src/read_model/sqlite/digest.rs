//! The digest of everything stored, read row by row. What it adds up is the port's own: each row as the numbers and
//! texts of its type, whatever columns hold them.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, Row};

use crate::digest::ContentDigest;

/// What a part is of, and the rows of that kind: every column is a field of the part.
const PARTS: &[(&[u8], &str)] = &[
    (b"app", "SELECT id, token, name, chat_count, version, created_at, updated_at FROM apps"),
    (
        b"chat",
        "SELECT id, app_id, number, message_count, last_message, version, created_at, updated_at FROM chats",
    ),
    (b"message", "SELECT id, chat_id, number, version, created_at, updated_at, body FROM messages"),
    (b"tombstone", "SELECT id, chat_id, number, version, created_at, deleted_at FROM deleted_messages"),
    // Not the reason and the time: both belong to the run that parked the event.
    (b"parked", "SELECT position, stream, event_type FROM dead_letters"),
];

pub(super) fn digest(db: &Connection) -> Result<ContentDigest> {
    let mut digest = ContentDigest::default();
    for (kind, sql) in PARTS {
        let mut select = db.prepare(sql)?;
        let columns = select.column_count();
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            add(&mut digest, kind, row, columns)?;
        }
    }
    Ok(digest)
}

fn add(digest: &mut ContentDigest, kind: &[u8], row: &Row<'_>, columns: usize) -> Result<()> {
    let mut numbers = [[0; 8]; 8];
    let mut fields: [&[u8]; 9] = [&[]; 9];
    fields[0] = kind;
    for ((column, number), field) in (0..columns).zip(&mut numbers).zip(&mut fields[1..]) {
        *field = match row.get_ref(column)? {
            ValueRef::Integer(value) => {
                *number = value.to_le_bytes();
                number
            }
            ValueRef::Text(text) => text,
            // STRICT tables of integers and texts hold nothing else.
            _ => &[],
        };
    }
    digest.add(&fields[..=columns]);
    Ok(())
}
