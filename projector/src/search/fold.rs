//! The search index's fold: stored documents and a batch of events give the changed documents.
//!
//! The index contains messages only, so the fold can't detect events of a missing chat, and detects only some gaps in
//! the message numbers. The read model's fold detects both, and makes the events dead letters.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use chat_domain::{Event, StreamId, Timestamp, Version};
use chat_ports::search_index::{Document, IndexChanges, MessageKey};

use crate::dead_letters::reason::DeadLetterReason;
use crate::decoded_batch::{BatchFold, DecodedBatch, DecodedEvent, SkippedEvent};

/// Returns the keys of the documents that have to be loaded before a batch can be folded. These are the messages that
/// the batch edits or deletes, except those that it has created before.
pub fn documents_to_load(batch: &DecodedBatch) -> HashSet<MessageKey> {
    let mut keys = HashSet::new();
    // The events are read backwards, so that a creation removes the key that a later edit or deletion has added. Most
    // batches have neither, so `keys` is empty and creations are skipped quickly.
    for event in batch.events.iter().rev() {
        let stream = &batch.streams[event.stream_index];
        let (Ok(StreamId::Chat(app, chat)), false) = (&stream.id, stream.is_blocked) else { continue };
        let key = |message| MessageKey { app: *app, chat: *chat, message };
        if let Some(message) = event.modified_message() {
            keys.insert(key(message));
        } else if let (Ok(Event::MessageCreated(created)), false) = (&event.event, keys.is_empty()) {
            keys.remove(&key(created.message_number));
        }
    }
    keys
}

/// Folds a batch. `documents` are the existing documents among [`documents_to_load`].
pub fn fold(
    batch: DecodedBatch,
    documents: impl IntoIterator<Item = Document>,
    now: Timestamp,
) -> IndexChanges {
    let (log, from, to) = (batch.log, batch.from, batch.to);
    let documents = documents.into_iter().map(|document| (document.key, TrackedDocument::stored(document)));
    let mut fold = FoldState { documents: documents.collect() };
    let new_dead_letters = batch.apply(&mut fold, now);

    let (mut add, mut upsert, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    for (key, tracked) in fold.documents {
        match (tracked.document, tracked.change) {
            (Some(document), DocumentChange::Created) => add.push(document),
            (Some(document), DocumentChange::Changed) => upsert.push(document),
            (Some(_), DocumentChange::Unchanged) | (None, DocumentChange::Created) => {}
            (None, _) => delete.push(key),
        }
    }
    // Maps have no order, but documents must be written in the order of the log.
    add.sort_unstable_by_key(|document| document.created_position);
    upsert.sort_unstable_by_key(|document| document.created_position);
    IndexChanges { add, upsert, delete, new_dead_letters, ..IndexChanges::empty(log, from, to) }
}

/// A document during a fold.
struct TrackedDocument {
    /// `None` after the deletion.
    document: Option<Document>,
    change: DocumentChange,
}

/// The change of a document by the batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DocumentChange {
    Unchanged,
    Changed,
    Created,
}

impl TrackedDocument {
    fn stored(document: Document) -> Self {
        Self { document: Some(document), change: DocumentChange::Unchanged }
    }

    fn mark_changed(&mut self) {
        if self.change == DocumentChange::Unchanged {
            self.change = DocumentChange::Changed;
        }
    }
}

struct FoldState {
    documents: HashMap<MessageKey, TrackedDocument>,
}

impl BatchFold for FoldState {
    fn selects(&self, stream: &StreamId) -> bool {
        matches!(stream, StreamId::Chat(..))
    }

    fn apply(&mut self, stream: StreamId, event: DecodedEvent) -> Result<(), DeadLetterReason> {
        // Never reached, because streams of apps are not selected.
        let StreamId::Chat(app, chat) = stream else { return Ok(()) };
        let key = |message| MessageKey { app, chat, message };
        match event.event {
            Event::MessageCreated(created) => {
                // Message n is created by the n-th `MessageCreated` of its stream, and the revision of that event is at
                // least n - 1.
                let revision = event.revision.get();
                if created.message_number.get() > revision + 1 {
                    return Err(DeadLetterReason::number_too_high(revision));
                }
                let key = key(created.message_number);
                let document = Document {
                    key,
                    created_position: event.position,
                    body: created.body.into_string(),
                    sender: created.sender,
                    data: created.data,
                    version: Version::new(1),
                    created_at: event.recorded_at,
                    updated_at: event.recorded_at,
                };
                match self.documents.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(TrackedDocument {
                            document: Some(document),
                            change: DocumentChange::Created,
                        });
                    }
                    Entry::Occupied(mut entry) => {
                        let tracked = entry.get_mut();
                        tracked.document = Some(document);
                        tracked.mark_changed();
                    }
                }
                Ok(())
            }
            Event::MessageEdited(edited) => {
                let tracked = self
                    .documents
                    .get_mut(&key(edited.message_number))
                    .ok_or(DeadLetterReason::MESSAGE_MISSING)?;
                let document = tracked.document.as_mut().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
                document.body = edited.body.into_string();
                document.data = edited.data.apply(document.data.take());
                document.version = document.version.next();
                document.updated_at = event.recorded_at;
                tracked.mark_changed();
                Ok(())
            }
            Event::MessageDeleted(deleted) => {
                let tracked = self
                    .documents
                    .get_mut(&key(deleted.message_number))
                    .ok_or(DeadLetterReason::MESSAGE_MISSING)?;
                tracked.document.take().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
                Ok(())
            }
            event => Err(DeadLetterReason::wrong_stream(&event)),
        }
    }

    fn skip(&mut self, _: StreamId, _: &SkippedEvent) {
        // The index has no counts of events or numbers that a discarded event would change.
    }
}
