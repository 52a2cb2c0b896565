//! The messages of a chat as they were at a position.

use std::collections::BTreeMap;
use std::sync::Arc;

use chat_domain::{
    AppToken, ChatNumber, Event, MessageData, MessageNumber, Position, Revision, Sender, Timestamp,
};
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead,
};

use super::seek;
use super::subject::Subject;
use super::subject_changes::{BATCH_EVENTS, MAX_SCANNED_CHANGES};
use super::subject_state::MESSAGE_CREATED;

/// A message as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastMessage {
    /// Its number.
    pub number: MessageNumber,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The text. If the message was deleted, the last text before the deletion.
    pub body: String,
    /// The sender, if the application named one.
    pub sender: Option<Sender>,
    /// The application's data, if there was any.
    pub data: Option<MessageData>,
    /// The number of its events.
    pub versions: u64,
    /// The deletion, if the message was deleted.
    pub deletion: Option<RecordedEvent>,
}

/// The last messages of a chat at a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastMessages {
    /// The messages, oldest first.
    pub messages: Vec<PastMessage>,
    /// Whether the last edits and deletions up to the position may be missing, because there are too many to read them
    /// all.
    pub is_incomplete: bool,
}

/// Reads the last `limit` messages of a chat as they were after the event at a position. Returns fewer if their
/// creations have more than [`MAX_PAGE_BYTES`] of payloads, but at least one. Reads at most about 20,000 of the edits
/// and deletions after the creation of the first of these messages. Events that can't be decoded are left out.
pub async fn past_messages(
    log: &dyn EventStore,
    (app, chat): (AppToken, ChatNumber),
    until: Position,
    limit: usize,
) -> Result<PastMessages, EventStoreError> {
    let stream = Subject::Chat(app, chat).stream();
    let Some(end) = seek::last_revision_up_to(log, &stream, until).await? else {
        return Ok(PastMessages::default());
    };
    let creations = last_creations(log, &stream, end, limit).await?;
    let Some(oldest_creation) = creations.last().map(|event| event.revision) else {
        return Ok(PastMessages::default());
    };
    let mut messages: BTreeMap<MessageNumber, PastMessage> = BTreeMap::new();
    for event in creations {
        if let Ok(Event::MessageCreated(created)) = event.decode() {
            let message = PastMessage {
                number: created.message_number,
                created_at: event.recorded_at,
                body: created.body.into_string(),
                sender: created.sender,
                data: created.data,
                versions: 1,
                deletion: None,
            };
            messages.insert(message.number, message);
        }
    }
    let (mut from, mut scanned) = (oldest_creation, 0);
    let mut is_incomplete = false;
    loop {
        let read = StreamRead::all(Arc::clone(&stream), ReadStart::Forwards(from), BATCH_EVENTS)
            .filtered(EventTypeFilter::Except(MESSAGE_CREATED));
        let events = log.read_stream(read).await?;
        let Some(last) = events.last().map(|event| event.revision) else { break };
        if scanned >= MAX_SCANNED_CHANGES {
            is_incomplete = events.first().is_some_and(|event| event.revision <= end);
            break;
        }
        scanned += events.len();
        for event in events.into_iter().filter(|event| event.revision <= end) {
            apply(&mut messages, event);
        }
        if last >= end {
            break;
        }
        from = last.next();
    }
    Ok(PastMessages { messages: messages.into_values().collect(), is_incomplete })
}

/// Reads the last creations of messages up to a revision, newest first.
async fn last_creations(
    log: &dyn EventStore,
    stream: &Arc<str>,
    end: Revision,
    limit: usize,
) -> Result<Vec<RecordedEvent>, EventStoreError> {
    let (mut creations, mut bytes) = (Vec::new(), 0);
    let mut from = Some(end);
    while let Some(start) = from.filter(|_| creations.len() < limit) {
        let batch_events = (limit - creations.len()).min(BATCH_EVENTS);
        let read = StreamRead::all(Arc::clone(stream), ReadStart::Backwards(start), batch_events)
            .filtered(EventTypeFilter::Only(MESSAGE_CREATED));
        let events = log.read_stream(read).await?;
        let Some(last) = events.last() else { break };
        from = last.revision.get().checked_sub(1).map(Revision::new);
        for event in events {
            bytes += event.data.len();
            if bytes > MAX_PAGE_BYTES && !creations.is_empty() {
                return Ok(creations);
            }
            creations.push(event);
        }
    }
    Ok(creations)
}

/// Applies an edit or a deletion to its message.
fn apply(messages: &mut BTreeMap<MessageNumber, PastMessage>, event: RecordedEvent) {
    let Ok(decoded) = event.decode() else { return };
    let Some(message) = decoded.message_number().and_then(|number| messages.get_mut(&number)) else { return };
    if message.deletion.is_some() {
        return;
    }
    message.versions += 1;
    match decoded {
        Event::MessageEdited(edited) => {
            message.body = edited.body.into_string();
            message.data = edited.data.apply(message.data.take());
        }
        Event::MessageDeleted(_) => message.deletion = Some(event),
        _ => {}
    }
}
