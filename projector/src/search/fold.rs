//! The search index's fold: documents as they were and a stretch of the log make documents as they are.
//!
//! The index knows messages only. Whether a chat exists and whether a number was left out it can't tell; the read
//! model parks those events.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use chat_domain::{Event, StreamId, Timestamp, Version};
use chat_ports::search_index::{Document, IndexChanges, MessageKey};

use crate::parking::{Letters, Reason};
use crate::stretch::{Claim, Fact, Step, Stretch};

/// The documents to load before a stretch can be folded: those that are edited or deleted, and not created in it
/// before that.
pub fn wanted(stretch: &Stretch) -> HashSet<MessageKey> {
    let mut wanted = HashSet::new();
    // Backwards, so that a creation takes back what comes after it. Mostly there is nothing to take back.
    for incoming in stretch.events.iter().rev() {
        let stream = &stretch.streams[incoming.stream];
        let (Ok(StreamId::Chat(app, chat)), false) = (&stream.id, stream.parked) else { continue };
        let key = |message| MessageKey { app: *app, chat: *chat, message };
        if let Some(message) = incoming.touched() {
            wanted.insert(key(message));
        } else if let (Ok(Event::MessageCreated(created)), false) = (&incoming.event, wanted.is_empty()) {
            wanted.remove(&key(created.message_number));
        }
    }
    wanted
}

/// Folds a stretch. The documents are those that [`wanted`] names, as far as they exist.
pub fn fold(stretch: Stretch, documents: impl IntoIterator<Item = Document>, now: Timestamp) -> IndexChanges {
    let (log, from, to) = (stretch.log, stretch.from, stretch.to);
    let mut fold = Fold {
        documents: documents
            .into_iter()
            .map(|document| (document.key, Work { document: Some(document), change: Change::None }))
            .collect(),
    };
    let claim = |stream: &StreamId| match stream {
        StreamId::App(_) => Claim::PassOver,
        StreamId::Chat(..) => Claim::Fold,
    };
    let Letters(park) = stretch.apply(now, claim, |stream, step| match step {
        Step::Fact(fact) => fold.apply(stream, fact),
        // Nothing here counts events or numbers.
        Step::Gap(_) => Ok(()),
    });

    let (mut add, mut put, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    for (key, work) in fold.documents {
        match (work.document, work.change) {
            (Some(document), Change::New) => add.push(document),
            (Some(document), Change::Changed) => put.push(document),
            (Some(_), Change::None) | (None, Change::New) => {}
            (None, _) => delete.push(key),
        }
    }
    // Maps have no order; documents go in that of the log.
    add.sort_unstable_by_key(|document| document.created_position);
    put.sort_unstable_by_key(|document| document.created_position);
    IndexChanges { add, put, delete, park, ..IndexChanges::none(log, from, to) }
}

/// A document in work; `None` once deleted.
struct Work {
    document: Option<Document>,
    change: Change,
}

/// What became of a document in the stretch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Changed,
    /// It was created in it.
    New,
}

impl Work {
    fn change(&mut self) {
        if self.change == Change::None {
            self.change = Change::Changed;
        }
    }
}

struct Fold {
    documents: HashMap<MessageKey, Work>,
}

impl Fold {
    fn apply(&mut self, stream: StreamId, fact: Fact) -> Result<(), Reason> {
        // Apps' streams are passed over.
        let StreamId::Chat(app, chat) = stream else { return Ok(()) };
        let key = |message| MessageKey { app, chat, message };
        match fact.event {
            Event::MessageCreated(created) => {
                // Number n is the n-th MessageCreated of its stream.
                let revision = fact.revision.get();
                if created.message_number.get() > revision + 1 {
                    return Err(Reason::number_beyond(revision));
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
                        none.insert(Work { document: Some(document), change: Change::New });
                    }
                    Entry::Occupied(mut work) => {
                        let work = work.get_mut();
                        work.document = Some(document);
                        work.change();
                    }
                }
                Ok(())
            }
            Event::MessageEdited(edited) => {
                let work = self.documents.get_mut(&key(edited.message_number)).ok_or(Reason::NO_MESSAGE)?;
                let document = work.document.as_mut().ok_or(Reason::MESSAGE_DELETED)?;
                document.body = edited.body.into_string();
                document.version = document.version.next();
                document.updated_at = fact.recorded_at;
                work.change();
                Ok(())
            }
            Event::MessageDeleted(deleted) => {
                let work = self.documents.get_mut(&key(deleted.message_number)).ok_or(Reason::NO_MESSAGE)?;
                work.document.take().ok_or(Reason::MESSAGE_DELETED)?;
                Ok(())
            }
            event => Err(Reason::wrong_stream(&event)),
        }
    }
}
