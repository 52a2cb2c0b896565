//! The writer of the tail.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use chat_domain::Position;
use chat_ports::event_store::LogId;
use chat_ports::search_index::{Document, IndexChanges, MessageKey};

use super::message::TailMessage;
use super::segment::TailSegment;
use super::{Tail, TailView};
use crate::text::tokenize::TokenizedText;

/// The maximum [`TailSegment::len`] of a merged segment. Bounded because a commit of the index drops only whole
/// segments.
const MAX_MERGED_LEN: usize = 4_096;

/// Writes the tail of one index: adds the changes of the log's events, and drops those that the index has committed.
#[derive(Debug)]
pub struct TailWriter {
    tail: Arc<Tail>,
    view: TailView,
    /// The last state of each message that is changed in the view.
    latest: HashMap<MessageKey, LatestState>,
    /// The keys that each batch has changed, with the batch's end.
    changed: VecDeque<(Position, Vec<MessageKey>)>,
    tokenized: TokenizedText,
}

#[derive(Debug)]
struct LatestState {
    /// The end of the batch that changed the message.
    changed_at: Position,
    /// `None` after a deletion.
    message: Option<Arc<TailMessage>>,
}

impl TailWriter {
    pub(crate) fn new(tail: Arc<Tail>, log: LogId, from: Position) -> Self {
        let view = TailView { log, from, to: from, segments: Vec::new() };
        tail.publish(view.clone());
        Self {
            tail,
            view,
            latest: HashMap::new(),
            changed: VecDeque::new(),
            tokenized: TokenizedText::default(),
        }
    }

    /// The position up to which the tail has the log's changes.
    pub fn position(&self) -> Position {
        self.view.to
    }

    /// The position after which the tail has all changes.
    pub fn start(&self) -> Position {
        self.view.from
    }

    /// The number of changes that are kept. An edit counts twice.
    pub fn len(&self) -> usize {
        self.view.segments.iter().map(|segment| segment.len).sum()
    }

    /// Whether no changes are kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The approximate memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.view.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The state of a message that the tail has changed: `Some(None)` if it was deleted. `None` if the tail has not
    /// changed it, so that its state is that of the committed index.
    pub fn document(&self, key: &MessageKey) -> Option<Option<&Document>> {
        let state = self.latest.get(key)?;
        Some(state.message.as_ref().map(|message| &message.document))
    }

    /// Adds the changes of the events that follow the tail. `created_positions` has the creation position of each
    /// message that is changed or deleted, except messages that `changes` also creates.
    pub fn append(&mut self, changes: IndexChanges, created_positions: &HashMap<MessageKey, Position>) {
        let IndexChanges { from, to, add, upsert, delete, .. } = changes;
        let mut segment = TailSegment::empty(from, to);
        let mut keys = Vec::with_capacity(add.len() + upsert.len() + delete.len());
        for key in upsert.iter().map(|document| &document.key).chain(&delete) {
            if let Some(created_position) = created_positions.get(key) {
                segment.push_replaced(key.app, *created_position);
            }
            if let Some(message) = self.latest.get(key).and_then(|state| state.message.as_ref()) {
                message.supersede(to);
            }
        }
        for document in add.into_iter().chain(upsert) {
            let message = Arc::new(TailMessage::new(document, &mut self.tokenized));
            keys.push(message.document.key);
            segment.push(Arc::clone(&message));
            let state = LatestState { changed_at: to, message: Some(message) };
            self.latest.insert(keys[keys.len() - 1], state);
        }
        for key in delete {
            keys.push(key);
            self.latest.insert(key, LatestState { changed_at: to, message: None });
        }
        if !keys.is_empty() {
            self.changed.push_back((to, keys));
            self.push_segment(segment);
        }
        self.view.to = to;
        self.tail.publish(self.view.clone());
    }

    /// Appends a segment, and merges the last segments so that their number stays small.
    fn push_segment(&mut self, mut segment: TailSegment) {
        while let Some(last) = self.view.segments.last()
            && last.len <= segment.len
            && last.len + segment.len <= MAX_MERGED_LEN
        {
            segment = last.merge(&segment);
            self.view.segments.pop();
        }
        self.view.segments.push(Arc::new(segment));
    }

    /// Drops the segments that end at or before `committed`, the position that the index has committed.
    pub fn trim(&mut self, committed: Position) {
        let dropped = self.view.segments.partition_point(|segment| segment.to <= committed);
        if dropped == 0 {
            return;
        }
        self.view.segments.drain(..dropped);
        let kept_from = self.view.segments.first().map_or(self.view.to, |segment| segment.from);
        self.view.from = kept_from.min(committed);
        while let Some((to, keys)) = self.changed.pop_front_if(|(to, _)| *to <= kept_from) {
            for key in keys {
                if self.latest.get(&key).is_some_and(|state| state.changed_at == to) {
                    self.latest.remove(&key);
                }
            }
        }
        self.tail.publish(self.view.clone());
    }
}
