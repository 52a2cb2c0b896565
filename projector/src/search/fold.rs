//! The search index's fold: documents as they were and a stretch of the log make documents as they are.
//!
//! The index knows messages only. Whether a chat exists and whether a number was left out it can't tell; the read
//! model parks those events.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use chat_domain::{Event, StreamId, Timestamp, Version};
use chat_ports::search_index::{Document, IndexChanges, MessageKey};

use crate::dead_letters::{DeadLetterReason, DeadLetters};
use crate::decoded_batch::{DecodedBatch, DecodedEvent, Step, StreamSelection};

/// The documents to load before a stretch can be folded: those that are edited or deleted, and not created in it
/// before that.
pub fn documents_to_load(stretch: &DecodedBatch) -> HashSet<MessageKey> {
    let mut wanted = HashSet::new();
    // Backwards, so that a creation takes back what comes after it. Mostly there is nothing to take back.
    for incoming in stretch.events.iter().rev() {
        let stream = &stretch.streams[incoming.stream];
        let (Ok(StreamId::Chat(app, chat)), false) = (&stream.id, stream.is_blocked) else { continue };
        let key = |message| MessageKey { app: *app, chat: *chat, message };
        if let Some(message) = incoming.modified_message() {
            wanted.insert(key(message));
        } else if let (Ok(Event::MessageCreated(created)), false) = (&incoming.event, wanted.is_empty()) {
            wanted.remove(&key(created.message_number));
        }
    }
    wanted
}

/// Folds a stretch. The documents are those that [`wanted`] names, as far as they exist.
pub fn fold(
    stretch: DecodedBatch,
    documents: impl IntoIterator<Item = Document>,
    now: Timestamp,
) -> IndexChanges {
    let (log, from, to) = (stretch.log, stretch.from, stretch.to);
    let mut fold = FoldState {
        documents: documents
            .into_iter()
            .map(|document| {
                (
                    document.key,
                    TrackedDocument { document: Some(document), change: DocumentChange::Unchanged },
                )
            })
            .collect(),
    };
    let claim = |stream: &StreamId| match stream {
        StreamId::App(_) => StreamSelection::Ignore,
        StreamId::Chat(..) => StreamSelection::Fold,
    };
    let DeadLetters(park) = stretch.apply(now, claim, |stream, step| match step {
        Step::Fact(fact) => fold.apply(stream, fact),
        // Nothing here counts events or numbers.
        Step::Gap(_) => Ok(()),
    });

    let (mut add, mut put, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    for (key, work) in fold.documents {
        match (work.document, work.change) {
            (Some(document), DocumentChange::Created) => add.push(document),
            (Some(document), DocumentChange::Changed) => put.push(document),
            (Some(_), DocumentChange::Unchanged) | (None, DocumentChange::Created) => {}
            (None, _) => delete.push(key),
        }
    }
    // Maps have no order; documents go in that of the log.
    add.sort_unstable_by_key(|document| document.created_position);
    put.sort_unstable_by_key(|document| document.created_position);
    IndexChanges { add, upsert: put, delete, new_dead_letters: park, ..IndexChanges::empty(log, from, to) }
}

/// A document in work; `None` once deleted.
struct TrackedDocument {
    document: Option<Document>,
    change: DocumentChange,
}

/// What became of a document in the stretch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DocumentChange {
    Unchanged,
    Changed,
    /// It was created in it.
    Created,
}

impl TrackedDocument {
    fn mark_changed(&mut self) {
        if self.change == DocumentChange::Unchanged {
            self.change = DocumentChange::Changed;
        }
    }
}

struct FoldState {
    documents: HashMap<MessageKey, TrackedDocument>,
}

impl FoldState {
    fn apply(&mut self, stream: StreamId, fact: DecodedEvent) -> Result<(), DeadLetterReason> {
        // Apps' streams are passed over.
        let StreamId::Chat(app, chat) = stream else { return Ok(()) };
        let key = |message| MessageKey { app, chat, message };
        match fact.event {
            Event::MessageCreated(created) => {
                // Number n is the n-th MessageCreated of its stream.
                let revision = fact.revision.get();
                if created.message_number.get() > revision + 1 {
                    return Err(DeadLetterReason::number_too_high(revision));
                }
                let key = key(created.message_number);
                let document = Document {
                    key,
                    created_position: fact.position,
                    body: created.body.into_string(),
                    version: Version::new(1),
                    created_at: fact.recorded_at,
                    updated_at: fact.recorded_at,
                };
                match self.documents.entry(key) {
                    Entry::Vacant(none) => {
                        none.insert(TrackedDocument {
                            document: Some(document),
                            change: DocumentChange::Created,
                        });
                    }
                    Entry::Occupied(mut work) => {
                        let work = work.get_mut();
                        work.document = Some(document);
                        work.mark_changed();
                    }
                }
                Ok(())
            }
            Event::MessageEdited(edited) => {
                let work = self
                    .documents
                    .get_mut(&key(edited.message_number))
                    .ok_or(DeadLetterReason::MESSAGE_MISSING)?;
                let document = work.document.as_mut().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
                document.body = edited.body.into_string();
                document.version = document.version.next();
                document.updated_at = fact.recorded_at;
                work.mark_changed();
                Ok(())
            }
            Event::MessageDeleted(deleted) => {
                let work = self
                    .documents
                    .get_mut(&key(deleted.message_number))
                    .ok_or(DeadLetterReason::MESSAGE_MISSING)?;
                work.document.take().ok_or(DeadLetterReason::MESSAGE_DELETED)?;
                Ok(())
            }
            event => Err(DeadLetterReason::wrong_stream(&event)),
        }
    }
}
