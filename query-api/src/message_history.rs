//! Message histories, read from the stream of the chat.
//!
//! A stream may be huge, so it is not read from its start: the creation of the message is found by its number, and after it
//! only edits and deletions are read, in batches.

use std::sync::Arc;

use chat_domain::{AppToken, ChatNumber, Event, MessageNumber, Position, Revision, StreamId, Timestamp};
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};
use thiserror::Error;
use tracing::warn;

const MESSAGE_CREATED: &str = "MessageCreated";
const CHAT_CREATED: &str = "ChatCreated";

/// The number of events in a batch. Each may contain a body of 64 KiB.
const READ_BATCH: usize = 128;

/// A version of a message: its state after one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) event_type: &'static str,
    /// `None` if the event is the deletion.
    pub(crate) body: Option<String>,
    pub(crate) recorded_at: Timestamp,
    revision: Revision,
}

/// A page of a message's versions, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryPage {
    pub(crate) entries: Vec<HistoryEntry>,
    /// The revision after which the next page starts, if there is one.
    pub(crate) next_after: Option<Revision>,
    /// The position of the last event that was read.
    pub(crate) position: Position,
}

/// An error of [`read_history`].
#[derive(Debug, Error)]
pub(crate) enum HistoryError {
    #[error("no such app")]
    AppNotFound,
    #[error("no such chat")]
    ChatNotFound,
    #[error("no such message")]
    MessageNotFound,
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
}

/// A message's app, chat and number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageId {
    pub(crate) app: AppToken,
    pub(crate) chat: ChatNumber,
    pub(crate) number: MessageNumber,
}

/// Reads up to `limit` versions of a message with at most [`MAX_PAGE_BYTES`] of text, after the revision `after` if given.
pub(crate) async fn read_history(
    store: &dyn EventStore,
    id: MessageId,
    after: Option<Revision>,
    limit: usize,
) -> Result<HistoryPage, HistoryError> {
    let stream: Arc<str> = StreamId::Chat(id.app, id.chat).to_string().into();
    let mut page = HistoryPage { entries: Vec::new(), next_after: None, position: Position::START };
    let created = creation_lookup::find_message_created(store, id.app, id.chat, id.number).await?;
    let Some(created) = created else {
        return Err(missing_resource(store, id).await?);
    };
    if after.is_none() {
        page.push_if_fits(&created, id.number, limit);
    }
    let mut from = created.revision.max(after.unwrap_or(Revision::FIRST)).next();
    loop {
        let read = StreamRead::all(Arc::clone(&stream), ReadStart::Forwards(from), READ_BATCH)
            .filtered(EventTypeFilter::Except(MESSAGE_CREATED));
        let events = store.read_stream(read).await?;
        let Some(last) = events.last() else { return Ok(page) };
        from = last.revision.next();
        for event in &events {
            if !page.push_if_fits(event, id.number, limit) {
                page.next_after = page.entries.last().map(|version| version.revision);
                return Ok(page);
            }
        }
        if page.entries.last().is_some_and(|version| version.body.is_none()) {
            // A deletion is the last event of a message.
            return Ok(page);
        }
    }
}

impl HistoryPage {
    /// Adds the event if it belongs to the message. Returns `false` if it belongs to the next page.
    fn push_if_fits(&mut self, recorded: &RecordedEvent, number: MessageNumber, limit: usize) -> bool {
        if let Some(entry) = HistoryEntry::from_event(recorded, number) {
            let bytes = |entry: &HistoryEntry| entry.body.as_ref().map_or(0, String::len);
            let page_bytes: usize = self.entries.iter().map(bytes).sum();
            let is_full = self.entries.len() == limit || page_bytes + bytes(&entry) > MAX_PAGE_BYTES;
            if is_full && !self.entries.is_empty() {
                return false;
            }
            self.entries.push(entry);
        }
        self.position = self.position.max(recorded.position);
        true
    }
}

impl HistoryEntry {
    /// Returns the version of the message after the event, or `None` if the event is not one of the message.
    fn from_event(recorded: &RecordedEvent, number: MessageNumber) -> Option<Self> {
        let event = match recorded.decode() {
            Ok(event) => event,
            Err(error) => {
                // A projection makes it a dead letter. The history omits it.
                warn!(position = recorded.position.get(), %error, "skipping an event that can't be decoded");
                return None;
            }
        };
        let event_type = event.event_type();
        let (message_number, body) = match event {
            Event::MessageCreated(created) => (created.message_number, Some(created.body)),
            Event::MessageEdited(edited) => (edited.message_number, Some(edited.body)),
            Event::MessageDeleted(deleted) => (deleted.message_number, None),
            _ => return None,
        };
        (message_number == number).then(|| Self {
            event_type,
            body: body.map(chat_domain::MessageBody::into_string),
            recorded_at: recorded.recorded_at,
            revision: recorded.revision,
        })
    }
}

/// Determines which of app, chat and message does not exist.
async fn missing_resource(store: &dyn EventStore, id: MessageId) -> Result<HistoryError, EventStoreError> {
    let app: Arc<str> = StreamId::App(id.app).to_string().into();
    let first = StreamRead::all(Arc::clone(&app), ReadStart::Forwards(Revision::FIRST), 1);
    if store.read_stream(first).await?.is_empty() {
        return Ok(HistoryError::AppNotFound);
    }
    let last = StreamRead::last_event(app).filtered(EventTypeFilter::Only(CHAT_CREATED));
    let last = store.read_stream(last).await?;
    let last = last.first().and_then(|recorded| match recorded.decode() {
        Ok(Event::ChatCreated(created)) => Some(created.chat_number),
        _ => None,
    });
    // Chats are numbered without gaps.
    Ok(if last < Some(id.chat) { HistoryError::ChatNotFound } else { HistoryError::MessageNotFound })
}
