//! A segment of the tail: the changes of consecutive events. Immutable, so that searches share it with the writer.

use std::collections::HashMap;
use std::sync::Arc;

use chat_domain::{AppToken, ChatNumber, Position};

use super::message::TailMessage;
use crate::query_matcher::Signature;

/// The changes of the events after one position, up to another.
#[derive(Debug)]
pub(crate) struct TailSegment {
    /// The position before the segment's first event.
    pub from: Position,
    /// The position of the segment's end.
    pub to: Position,
    /// The number of changes: an edit, which replaces an earlier state, counts twice.
    pub len: usize,
    /// The approximate memory of the changes, in bytes.
    pub bytes: usize,
    apps: HashMap<AppToken, AppRows>,
}

/// The changes to the messages of one app.
#[derive(Debug, Default)]
struct AppRows {
    /// The messages that were created or changed, batch by batch: in each batch, the created ones first.
    rows: Vec<Row>,
    /// The creation positions of the messages that were changed or deleted.
    replaced: Vec<Position>,
}

/// A message, with the parts of it that a scan reads before the text.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The signature of the message's words.
    pub signature: Signature,
    /// The message's chat.
    pub chat: ChatNumber,
    /// The position of the message's creation.
    pub created_position: Position,
    /// The message.
    pub message: Arc<TailMessage>,
}

impl TailSegment {
    /// Returns a segment without changes.
    pub fn empty(from: Position, to: Position) -> Self {
        Self { from, to, len: 0, bytes: 0, apps: HashMap::new() }
    }

    /// Adds a message that was created or changed.
    pub fn push(&mut self, message: Arc<TailMessage>) {
        let row = Row {
            signature: message.signature(),
            chat: message.document.key.chat,
            created_position: message.document.created_position,
            message,
        };
        self.len += 1;
        self.bytes += row.message.size();
        self.apps.entry(row.message.document.key.app).or_default().rows.push(row);
    }

    /// Adds the creation position of a message that was changed or deleted.
    pub fn push_replaced(&mut self, app: AppToken, created_position: Position) {
        self.len += 1;
        self.apps.entry(app).or_default().replaced.push(created_position);
    }

    /// Merges this segment with the one that follows. Drops the message states that are no longer current at the end
    /// of the later segment, because no view with the merged segment shows them.
    pub fn merge(&self, later: &Self) -> Self {
        let mut merged = Self::empty(self.from, later.to);
        for (app, AppRows { rows, replaced }) in self.apps.iter().chain(&later.apps) {
            let target = merged.apps.entry(*app).or_default();
            for row in rows.iter().filter(|row| row.message.is_current_at(later.to)) {
                merged.len += 1;
                merged.bytes += row.message.size();
                target.rows.push(row.clone());
            }
            merged.len += replaced.len();
            target.replaced.extend(replaced);
        }
        merged
    }

    /// The messages of an app that were created or changed, batch by batch.
    pub fn rows(&self, app: AppToken) -> &[Row] {
        self.apps.get(&app).map_or(&[], |app| &app.rows)
    }

    /// The creation positions of messages of an app that were changed or deleted.
    pub fn replaced(&self, app: AppToken) -> &[Position] {
        self.apps.get(&app).map_or(&[], |app| &app.replaced)
    }
}
