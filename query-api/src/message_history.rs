//! Message histories, read from the stream of the chat.
//!
//! A stream may be huge, so it is not read from its start. The event that created the message is found by the message's
//! number. From there on, only edits and deletions are read, in batches.

use std::sync::Arc;

use chat_domain::event::MessageCreated;
use chat_domain::{
    AppToken, ChatNumber, Event, MessageData, MessageNumber, Position, Revision, Sender, StreamId, Timestamp,
};
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};
use thiserror::Error;
use tracing::warn;

use crate::live_feed::last_chat;

const MESSAGE_CREATED: &str = "MessageCreated";

/// The most events in a batch. Each may contain a body of 64 KiB.
const READ_BATCH: usize = 128;

/// A version of a message: its state after one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) event_type: &'static str,
    /// `None` if the event is the deletion.
    pub(crate) body: Option<String>,
    pub(crate) sender: Option<Sender>,
    pub(crate) data: Option<MessageData>,
    pub(crate) recorded_at: Timestamp,
    revision: Revision,
    /// As in [`Attributes`].
    data_revision: Revision,
}

/// The parts of a message that an event may leave as they are.
#[derive(Clone, Debug)]
struct Attributes {
    sender: Option<Sender>,
    data: Option<MessageData>,
    /// The revision of the event that set or removed the data last: the creation, or an edit.
    data_revision: Revision,
}

/// The point in a history after which a page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryCursor {
    /// The revision of the last version on the previous page.
    pub(crate) after: Revision,
    /// The revision of the edit that set or removed the data last, up to `after`; `None` if the data is still that of
    /// the creation.
    pub(crate) data_revision: Option<Revision>,
}

/// A page of a message's versions, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryPage {
    pub(crate) entries: Vec<HistoryEntry>,
    /// The start of the next page, if there is one.
    pub(crate) next: Option<HistoryCursor>,
    /// The position of the last event that was read for this page, the creation included.
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

/// Reads a page of a message's versions: those after the cursor, if given. The page has up to `limit` versions, which
/// together have at most [`MAX_PAGE_BYTES`] of text and data.
pub(crate) async fn read_history(
    store: &dyn EventStore,
    id: MessageId,
    cursor: Option<HistoryCursor>,
    limit: usize,
) -> Result<HistoryPage, HistoryError> {
    let stream: Arc<str> = StreamId::Chat(id.app, id.chat).to_string().into();
    let created = creation_lookup::find_message_created(store, id.app, id.chat, id.number).await?;
    let Some(created) = created else {
        return Err(missing_resource(store, id).await?);
    };
    let mut page = HistoryPage { entries: Vec::new(), next: None, position: created.position };
    let mut attributes = Attributes { sender: None, data: None, data_revision: created.revision };
    if cursor.is_none() {
        page.push_if_fits(&created, id.number, limit, &mut attributes);
    } else {
        // The creation is on the first page. This page only needs the attributes that it set.
        HistoryEntry::from_event(&created, id.number, &mut attributes);
    }
    if let Some(data_revision) = cursor.and_then(|cursor| cursor.data_revision) {
        let read = StreamRead::all(Arc::clone(&stream), ReadStart::Forwards(data_revision), 1);
        for edit in store.read_stream(read).await? {
            HistoryEntry::from_event(&edit, id.number, &mut attributes);
        }
    }
    let mut from = cursor.map_or(created.revision, |cursor| cursor.after.max(created.revision)).next();
    loop {
        let read = StreamRead::all(Arc::clone(&stream), ReadStart::Forwards(from), READ_BATCH)
            .filtered(EventTypeFilter::Except(MESSAGE_CREATED));
        let events = store.read_stream(read).await?;
        let Some(last) = events.last() else { return Ok(page) };
        from = last.revision.next();
        for event in &events {
            if !page.push_if_fits(event, id.number, limit, &mut attributes) {
                page.next = page.entries.last().map(|version| HistoryCursor {
                    after: version.revision,
                    data_revision: Some(version.data_revision)
                        .filter(|revision| *revision != created.revision),
                });
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
    fn push_if_fits(
        &mut self,
        recorded: &RecordedEvent,
        number: MessageNumber,
        limit: usize,
        attributes: &mut Attributes,
    ) -> bool {
        if let Some(entry) = HistoryEntry::from_event(recorded, number, attributes) {
            let bytes = |entry: &HistoryEntry| {
                let data = entry.data.as_ref().map_or(0, |data| data.as_str().len());
                entry.body.as_ref().map_or(0, String::len) + data
            };
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
    /// Returns the version of the message after the event. Returns `None` if the event does not belong to the message
    /// or can't be decoded. Updates the attributes to those after the event.
    fn from_event(
        recorded: &RecordedEvent,
        number: MessageNumber,
        attributes: &mut Attributes,
    ) -> Option<Self> {
        let event = match recorded.decode() {
            Ok(event) => event,
            Err(error) => {
                // A projection makes it a dead letter. The history omits it.
                warn!(position = recorded.position.get(), %error, "skipping an event that can't be decoded");
                return None;
            }
        };
        let event_type = event.event_type();
        if event.message_number() != Some(number) {
            return None;
        }
        let body = match event {
            Event::MessageCreated(created) => {
                let MessageCreated { body, sender, data, .. } = created;
                *attributes = Attributes { sender, data, data_revision: recorded.revision };
                Some(body)
            }
            Event::MessageEdited(edited) => {
                if !edited.data.is_keep() {
                    attributes.data = edited.data.apply(None);
                    attributes.data_revision = recorded.revision;
                }
                Some(edited.body)
            }
            Event::MessageDeleted(_) => {
                (attributes.sender, attributes.data) = (None, None);
                None
            }
            _ => return None,
        };
        let Attributes { sender, data, data_revision } = attributes.clone();
        Some(Self {
            event_type,
            body: body.map(chat_domain::MessageBody::into_string),
            sender,
            data,
            recorded_at: recorded.recorded_at,
            revision: recorded.revision,
            data_revision,
        })
    }
}

/// Determines which of app, chat and message does not exist.
async fn missing_resource(store: &dyn EventStore, id: MessageId) -> Result<HistoryError, EventStoreError> {
    let app: Arc<str> = StreamId::App(id.app).to_string().into();
    let first = StreamRead::all(app, ReadStart::Forwards(Revision::FIRST), 1);
    if store.read_stream(first).await?.is_empty() {
        return Ok(HistoryError::AppNotFound);
    }
    // Chats are numbered without gaps.
    let has_chat = last_chat(store, id.app).await? >= id.chat.get();
    Ok(if has_chat { HistoryError::MessageNotFound } else { HistoryError::ChatNotFound })
}
