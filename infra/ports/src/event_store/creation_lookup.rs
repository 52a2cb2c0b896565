//! Finding what has a number, in the stream where its like are created, without reading the stream.

use std::cmp::Ordering;
use std::sync::Arc;

use chat_domain::{AppToken, ChatNumber, Event, MessageNumber, Revision, StreamId};

use super::{EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead};

/// Events read at once where the first one can't be read.
const FALLBACK_READ_EVENTS: usize = 32;

/// The ChatCreated event of a chat; `None` where the app has no such chat, or the event can't be read.
pub async fn find_chat_created(
    log: &dyn EventStore,
    app: AppToken,
    chat: ChatNumber,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let stream = StreamId::App(app).to_string().into();
    CreationEvents { log, stream, event_type: "ChatCreated" }.find_by_number(chat.get()).await
}

/// The MessageCreated event of a message; `None` where the chat has no such message, or the event can't be read.
pub async fn find_message_created(
    log: &dyn EventStore,
    app: AppToken,
    chat: ChatNumber,
    message: MessageNumber,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let stream = StreamId::Chat(app, chat).to_string().into();
    CreationEvents { log, stream, event_type: "MessageCreated" }.find_by_number(message.get()).await
}

/// The events of a stream that create what is numbered 1, 2, 3 … in it.
struct CreationEvents<'a> {
    log: &'a dyn EventStore,
    stream: Arc<str>,
    event_type: &'static str,
}

impl CreationEvents<'_> {
    /// Finds the creation of a number.
    ///
    /// Number n is the nth creation of its stream, so it stands at revision n − 1 at the earliest, which is where it does
    /// stand unless other events came before it: one read finds it. Else it is between what earlier looks left possible,
    /// which each further look halves at least.
    async fn find_by_number(&self, wanted: u64) -> Result<Option<RecordedEvent>, EventStoreError> {
        let first_guess = ReadStart::Forwards(Revision::new(wanted - 1));
        let Some((found_number, event)) = self.next_creation(first_guess).await? else { return Ok(None) };
        if found_number == wanted {
            return Ok(Some(event));
        }
        let Some((last, last_event)) = self.next_creation(ReadStart::End).await? else { return Ok(None) };
        if last < wanted {
            return Ok(None);
        }
        // Between two creations stand at least the creations of the numbers between.
        let mut earliest = event.revision.get() + wanted.saturating_sub(found_number);
        let mut latest = last_event.revision.get().saturating_sub(last - wanted);
        while earliest <= latest {
            let middle = earliest + (latest - earliest) / 2;
            let start = ReadStart::Forwards(Revision::new(middle));
            let Some((found_number, event)) = self.next_creation(start).await? else { return Ok(None) };
            match found_number.cmp(&wanted) {
                Ordering::Equal => return Ok(Some(event)),
                Ordering::Less => earliest = event.revision.get() + (wanted - found_number),
                Ordering::Greater => {
                    let Some(before) = middle.checked_sub(1) else { return Ok(None) };
                    latest = before.min(event.revision.get().saturating_sub(found_number - wanted));
                }
            }
        }
        Ok(None)
    }

    /// The next creation from a place that can be read, and its number.
    async fn next_creation(&self, start: ReadStart) -> Result<Option<(u64, RecordedEvent)>, EventStoreError> {
        let (mut start, mut limit) = (start, 1);
        loop {
            let read = StreamRead {
                stream: Arc::clone(&self.stream),
                start,
                filter: EventTypeFilter::Only(self.event_type),
                limit,
            };
            let events = self.log.read_stream(read).await?;
            let Some(last) = events.last().map(|event| event.revision) else { return Ok(None) };
            if let Some(found) = events.into_iter().find_map(|event| Some((created_number(&event)?, event))) {
                return Ok(Some(found));
            }
            start = match start {
                ReadStart::Forwards(_) => ReadStart::Forwards(last.next()),
                ReadStart::End | ReadStart::Backwards(_) => {
                    let Some(before) = last.get().checked_sub(1) else { return Ok(None) };
                    ReadStart::Backwards(Revision::new(before))
                }
            };
            limit = FALLBACK_READ_EVENTS;
        }
    }
}

/// The number of what an event created.
fn created_number(event: &RecordedEvent) -> Option<u64> {
    match event.decode().ok()? {
        Event::ChatCreated(created) => Some(created.chat_number.get()),
        Event::MessageCreated(created) => Some(created.message_number.get()),
        _ => None,
    }
}
