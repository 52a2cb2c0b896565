//! A message's history, read from its chat's stream.
//!
//! The stream may be huge, so it is never read from its start: the message's creation is found by its number, and from
//! there on only edits and deletions are read, a few at a time.

use std::sync::Arc;

use chat_domain::{AppToken, ChatNumber, Event, MessageNumber, Position, Revision, StreamId, Timestamp};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};
use thiserror::Error;
use tracing::warn;

const MESSAGE_CREATED: &str = "MessageCreated";
const CHAT_CREATED: &str = "ChatCreated";

/// Events read at once: each may hold a body of 64 KiB.
const READ_BATCH: usize = 128;

/// A message as one event left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) event_type: &'static str,
    /// `None`: deleted.
    pub(crate) body: Option<String>,
    pub(crate) recorded_at: Timestamp,
    revision: Revision,
}

/// Some versions of a message, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryPage {
    pub(crate) entries: Vec<HistoryEntry>,
    /// After which revision to go on, if there is more.
    pub(crate) next_after: Option<Revision>,
    /// The last event that was looked at.
    pub(crate) position: Position,
}

/// Why there is no history.
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

/// Which message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageId {
    pub(crate) app: AppToken,
    pub(crate) chat: ChatNumber,
    pub(crate) number: MessageNumber,
}

/// Reads up to `limit` versions of a message, those after `after` if that is given.
pub(crate) async fn read_history(
    store: &dyn EventStore,
    id: MessageId,
    after: Option<Revision>,
    limit: usize,
) -> Result<HistoryPage, HistoryError> {
    let stream: Arc<str> = StreamId::Chat(id.app, id.chat).to_string().into();
    let chat = StreamReader { store, name: stream };
    let mut history = HistoryPage { entries: Vec::new(), next_after: None, position: Position::START };
    let created = creation_lookup::find_message_created(store, id.app, id.chat, id.number).await?;
    let Some(created) = created else {
        return Err(missing_resource(store, id).await?);
    };
    if after.is_none() {
        history.push_if_about(&created, id.number);
    }
    let mut from = created.revision.max(after.unwrap_or(Revision::FIRST)).next();
    loop {
        let events = chat
            .read(ReadStart::Forwards(from), EventTypeFilter::Except(MESSAGE_CREATED), READ_BATCH)
            .await?;
        let Some(last) = events.last() else { return Ok(history) };
        from = last.revision.next();
        for event in &events {
            if history.entries.len() == limit && message_number(event) == Some(id.number) {
                history.next_after = history.entries.last().map(|version| version.revision);
                return Ok(history);
            }
            history.push_if_about(event, id.number);
        }
        if history.entries.last().is_some_and(|version| version.body.is_none()) {
            // Nothing follows a deletion.
            return Ok(history);
        }
    }
}

impl HistoryPage {
    /// Adds the event if it is about the message.
    fn push_if_about(&mut self, recorded: &RecordedEvent, number: MessageNumber) {
        self.position = self.position.max(recorded.position);
        let event = match recorded.decode() {
            Ok(event) => event,
            Err(error) => {
                // Projections park it; a history goes on without it as well.
                warn!(position = recorded.position.get(), %error, "an event can't be read");
                return;
            }
        };
        let event_type = event.event_type();
        let (of, body) = match event {
            Event::MessageCreated(created) => (created.message_number, Some(created.body)),
            Event::MessageEdited(edited) => (edited.message_number, Some(edited.body)),
            Event::MessageDeleted(deleted) => (deleted.message_number, None),
            _ => return,
        };
        if of == number {
            self.entries.push(HistoryEntry {
                event_type,
                body: body.map(chat_domain::MessageBody::into_string),
                recorded_at: recorded.recorded_at,
                revision: recorded.revision,
            });
        }
    }
}

/// The message that an event is about.
fn message_number(recorded: &RecordedEvent) -> Option<MessageNumber> {
    recorded.decode().ok()?.message_number()
}

/// Which of a message's three names names nothing.
async fn missing_resource(store: &dyn EventStore, id: MessageId) -> Result<HistoryError, EventStoreError> {
    let app = StreamReader { store, name: StreamId::App(id.app).to_string().into() };
    if app.read(ReadStart::Forwards(Revision::FIRST), EventTypeFilter::All, 1).await?.is_empty() {
        return Ok(HistoryError::AppNotFound);
    }
    let last = app.read(ReadStart::End, EventTypeFilter::Only(CHAT_CREATED), 1).await?;
    let last = last.first().and_then(|recorded| match recorded.decode() {
        Ok(Event::ChatCreated(created)) => Some(created.chat_number),
        _ => None,
    });
    // Chats are numbered without gaps.
    Ok(if last < Some(id.chat) { HistoryError::ChatNotFound } else { HistoryError::MessageNotFound })
}

struct StreamReader<'a> {
    store: &'a dyn EventStore,
    name: Arc<str>,
}

impl StreamReader<'_> {
    async fn read(
        &self,
        from: ReadStart,
        select: EventTypeFilter,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.store
            .read_stream(StreamRead { stream: Arc::clone(&self.name), start: from, filter: select, limit })
            .await
    }
}
