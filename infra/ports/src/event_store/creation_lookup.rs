//! Finds the creation event of a chat or message by its number, without reading the whole stream.

use std::cmp::Ordering;
use std::sync::Arc;

use chat_domain::{AppToken, ChatNumber, Event, MessageNumber, Revision, StreamId};

use super::{EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead};

/// The number of events per read, once a read of a single event has returned one that can't be decoded.
const FALLBACK_READ_EVENTS: usize = 32;

/// Finds the ChatCreated event of a chat. `None` if the app has no such chat, or the event can't be decoded.
pub async fn find_chat_created(
    log: &dyn EventStore,
    app: AppToken,
    chat: ChatNumber,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let stream = StreamId::App(app).to_string().into();
    CreationEvents { log, stream, event_type: "ChatCreated" }.find_by_number(chat.get()).await
}

/// Finds the MessageCreated event of a message. `None` if the chat has no such message, or the event can't be decoded.
pub async fn find_message_created(
    log: &dyn EventStore,
    app: AppToken,
    chat: ChatNumber,
    message: MessageNumber,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let stream = StreamId::Chat(app, chat).to_string().into();
    CreationEvents { log, stream, event_type: "MessageCreated" }.find_by_number(message.get()).await
}

/// The creation events of a stream: those of an app's chats or of a chat's messages, numbered 1, 2, 3 …
struct CreationEvents<'a> {
    log: &'a dyn EventStore,
    stream: Arc<str>,
    event_type: &'static str,
}

impl CreationEvents<'_> {
    /// Finds the creation event of a number.
    ///
    /// Number n belongs to the nth creation event of the stream, so the revision of this event is at least n − 1. The
    /// first read returns the first creation event from that revision on, which often has number n. Otherwise a second
    /// read, of the last creation event, bounds the range of possible revisions. Each further read halves the range.
    async fn find_by_number(&self, number: u64) -> Result<Option<RecordedEvent>, EventStoreError> {
        let lower_bound = ReadStart::Forwards(Revision::new(number - 1));
        let Some((found_number, event)) = self.next_creation(lower_bound).await? else { return Ok(None) };
        if found_number == number {
            return Ok(Some(event));
        }
        let Some((last_number, last_event)) = self.next_creation(ReadStart::End).await? else {
            return Ok(None);
        };
        if last_number < number {
            return Ok(None);
        }
        // For numbers a < b, at least b − a − 1 events lie between their creation events.
        let mut earliest = event.revision.get() + number.saturating_sub(found_number);
        let mut latest = last_event.revision.get().saturating_sub(last_number - number);
        while earliest <= latest {
            let middle = earliest + (latest - earliest) / 2;
            let start = ReadStart::Forwards(Revision::new(middle));
            let Some((found_number, event)) = self.next_creation(start).await? else { return Ok(None) };
            match found_number.cmp(&number) {
                Ordering::Equal => return Ok(Some(event)),
                Ordering::Less => earliest = event.revision.get() + (number - found_number),
                Ordering::Greater => {
                    let Some(before) = middle.checked_sub(1) else { return Ok(None) };
                    latest = before.min(event.revision.get().saturating_sub(found_number - number));
                }
            }
        }
        Ok(None)
    }

    /// Finds the first creation event that can be decoded, from `start` on and in its direction. Returns the number and
    /// the event.
    async fn next_creation(&self, start: ReadStart) -> Result<Option<(u64, RecordedEvent)>, EventStoreError> {
        let (mut start, mut limit) = (start, 1);
        loop {
            let read = StreamRead::all(Arc::clone(&self.stream), start, limit)
                .filtered(EventTypeFilter::Only(self.event_type));
            let events = self.log.read_stream(read).await?;
            let Some(last_revision) = events.last().map(|event| event.revision) else { return Ok(None) };
            if let Some(found) = events.into_iter().find_map(|event| Some((created_number(&event)?, event))) {
                return Ok(Some(found));
            }
            start = match start {
                ReadStart::Forwards(_) => ReadStart::Forwards(last_revision.next()),
                ReadStart::End | ReadStart::Backwards(_) => {
                    let Some(before) = last_revision.get().checked_sub(1) else { return Ok(None) };
                    ReadStart::Backwards(Revision::new(before))
                }
            };
            limit = FALLBACK_READ_EVENTS;
        }
    }
}

/// The number of the chat or message that an event created.
fn created_number(event: &RecordedEvent) -> Option<u64> {
    match event.decode().ok()? {
        Event::ChatCreated(created) => Some(created.chat_number.get()),
        Event::MessageCreated(created) => Some(created.message_number.get()),
        _ => None,
    }
}
