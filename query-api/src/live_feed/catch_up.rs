//! Catching up: reads the events of a scope from the log, in pages, in the order of the log.
//!
//! Reads the streams of the scope and merges them by position. Between two pages, only the next revision of each stream
//! is kept. Before the first merged page, these revisions are found with some reads of each stream. A follower that has
//! missed little is spared this: an app's first pages are read from the whole log, and the events of other apps are
//! left out. There are as many of these pages as cost about the same as finding the revisions. If an app has more than
//! [`MAX_MERGED_CHATS`] chats, all its pages are read from the whole log.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use chat_domain::{AppToken, ChatNumber, Event, Position, Revision, StreamId};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead,
};
use futures::{StreamExt, TryStreamExt};

use super::event::Scope;

/// The bounds of a page of the merged streams.
const PAGE_EVENTS: usize = 128;
const PAGE_BYTES: usize = 64 * 1024;

/// The most events that a page reads ahead from all streams together. The number is divided evenly among the streams.
const READ_AHEAD_EVENTS: usize = 1_024;

/// The most bytes of events that are kept in [`ReadAhead`].
const READ_AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// The most chats of an app whose streams are merged. The next revision of each is found before the merge returns its
/// first event.
const MAX_MERGED_CHATS: u64 = 500;

/// The number of streams whose next revisions are found for about the cost of one page of the whole log.
const LOOKUPS_PER_SCAN: u64 = 16;

/// The number of streams whose first unread events are looked up at a time.
const CONCURRENT_LOOKUPS: usize = 8;

/// The lookup of a stream's first unread event ends when it has narrowed down the revision to a range of this size.
const LOOKUP_PRECISION: u64 = 32;

/// The number of events in a page of the whole log.
const SCAN_EVENTS: usize = 512;

/// Reads the events of a scope page by page, up to a target position.
pub(crate) struct CatchUp {
    log: Arc<dyn EventStore>,
    scope: Scope,
    target: Position,
    /// For the scope of an app, the result of [`last_chat`].
    last_chat: u64,
    /// The number of pages that are still read from the whole log, before the streams are merged. `u64::MAX` if the
    /// streams are never merged.
    scans_left: u64,
    /// `None` until the pages of the whole log are read.
    merge: Option<StreamMerge>,
}

/// The streams that have events to read.
struct StreamMerge {
    app: AppToken,
    streams: BinaryHeap<Reverse<UnreadStream>>,
}

/// A stream with unread events. Ordered by the position of its next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnreadStream {
    /// The next event is at this position or later.
    position: Position,
    /// The next event has this revision or a later one.
    revision: Revision,
    /// `None` for the stream of the app.
    chat: Option<ChatNumber>,
}

/// Events in the order of the log.
pub(crate) struct CatchUpPage {
    pub(crate) events: Vec<RecordedEvent>,
    /// All events of the scope up to this position were read.
    pub(crate) up_to: Position,
    pub(crate) is_last: bool,
}

impl CatchUp {
    /// Begins to read events of a scope. The log must have reached `target`.
    pub(crate) async fn begin(
        log: Arc<dyn EventStore>,
        scope: Scope,
        target: Position,
    ) -> Result<Self, EventStoreError> {
        let (last_chat, scans_left) = match scope {
            Scope::Chat(_, chat) => (chat.get(), 0),
            Scope::App(app) => match last_chat(&*log, app).await? {
                last if last > MAX_MERGED_CHATS => (last, u64::MAX),
                last => (last, last / LOOKUPS_PER_SCAN),
            },
        };
        Ok(Self { log, scope, target, last_chat, scans_left, merge: None })
    }

    /// Reads the next page after `after`, the end of the previous page. After an error, the same page can be read
    /// again. Not cancel safe.
    pub(crate) async fn next_page(&mut self, after: Position) -> Result<CatchUpPage, EventStoreError> {
        if let Some(rest) = self.scans_left.checked_sub(1) {
            let page = self.scan(after).await?;
            self.scans_left = rest;
            return Ok(page);
        }
        let merge = match &mut self.merge {
            Some(merge) => merge,
            none => none.insert(StreamMerge::begin(&*self.log, self.scope, self.last_chat, after).await?),
        };
        merge.next_page(&*self.log, after, self.target).await
    }

    /// Reads a page from the whole log.
    async fn scan(&self, after: Position) -> Result<CatchUpPage, EventStoreError> {
        let events = self.log.read_all(after, SCAN_EVENTS).await?;
        // `None` once the log is read up to the target.
        let end = events.last().map(|last| last.position).filter(|last| *last < self.target);
        let app = self.scope.app();
        let belongs_to_page = |event: &RecordedEvent| {
            event.position <= self.target
                && StreamId::parse(&event.stream).is_ok_and(|stream| *stream.app() == app)
        };
        let events = events.into_iter().filter(belongs_to_page).collect();
        Ok(CatchUpPage { events, up_to: end.unwrap_or(self.target), is_last: end.is_none() })
    }
}

impl StreamMerge {
    /// Finds the next revision of each of a scope's streams after a position.
    async fn begin(
        log: &dyn EventStore,
        scope: Scope,
        last_chat: u64,
        after: Position,
    ) -> Result<Self, EventStoreError> {
        let app = scope.app();
        let chats = match scope {
            Scope::Chat(_, chat) => vec![Some(chat)],
            Scope::App(_) => {
                let chats = (1..=last_chat).filter_map(|number| ChatNumber::try_from(number).ok());
                std::iter::once(None).chain(chats.map(Some)).collect()
            }
        };
        let lookups = chats.into_iter().map(|chat| async move {
            let revision = find_start_revision(log, &stream_name(app, chat), after).await?;
            let stream =
                revision.map(|revision| UnreadStream { position: position_after(after), revision, chat });
            Ok::<_, EventStoreError>(stream.map(Reverse))
        });
        let streams: Vec<_> =
            futures::stream::iter(lookups).buffer_unordered(CONCURRENT_LOOKUPS).try_collect().await?;
        Ok(Self { app, streams: streams.into_iter().flatten().collect() })
    }

    async fn next_page(
        &mut self,
        log: &dyn EventStore,
        after: Position,
        target: Position,
    ) -> Result<CatchUpPage, EventStoreError> {
        let limit = (READ_AHEAD_EVENTS / self.streams.len().max(1)).clamp(1, PAGE_EVENTS);
        let mut read_ahead = ReadAhead::default();
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < PAGE_EVENTS
            && bytes < PAGE_BYTES
            && let Some(Reverse(stream)) = self.streams.pop()
        {
            let mut buffer = read_ahead.take(stream.chat);
            if buffer.is_empty() {
                let read = StreamRead::all(
                    stream_name(self.app, stream.chat),
                    ReadStart::Forwards(stream.revision),
                    limit,
                );
                buffer = match log.read_stream(read).await {
                    Ok(read) => read.into(),
                    Err(error) => {
                        self.streams.push(Reverse(stream));
                        if events.is_empty() {
                            return Err(error);
                        }
                        break;
                    }
                };
                let Some(last) = buffer.back().map(|last| last.revision) else { continue };
                buffer.retain(|event| event.position > after);
                let Some(first) = buffer.front() else {
                    // All of these events are before the first unread one.
                    self.streams.push(Reverse(UnreadStream { revision: last.next(), ..stream }));
                    continue;
                };
                let first = UnreadStream { position: first.position, revision: first.revision, ..stream };
                if first.position > target {
                    continue;
                }
                if self.streams.peek().is_some_and(|Reverse(other)| *other < first) {
                    // Another stream is next.
                    self.streams.push(Reverse(first));
                    read_ahead.keep(stream.chat, buffer);
                    continue;
                }
            }
            let Some(event) = buffer.pop_front() else { continue };
            bytes += size(&event);
            let (position, revision) = buffer.front().map_or_else(
                || (position_after(event.position), event.revision.next()),
                |next| (next.position, next.revision),
            );
            events.push(event);
            if position <= target {
                self.streams.push(Reverse(UnreadStream { position, revision, ..stream }));
                read_ahead.keep(stream.chat, buffer);
            }
        }
        let is_last = self.streams.is_empty();
        let last = events.last().map(|last| last.position);
        Ok(CatchUpPage { up_to: last.filter(|_| !is_last).unwrap_or(target), events, is_last })
    }
}

/// Events that were read early: in the order of the log, events of other streams come first. Grouped by stream.
#[derive(Default)]
struct ReadAhead {
    buffers: HashMap<Option<ChatNumber>, VecDeque<RecordedEvent>>,
    bytes: usize,
}

impl ReadAhead {
    /// Takes out the events of a stream.
    fn take(&mut self, chat: Option<ChatNumber>) -> VecDeque<RecordedEvent> {
        let events = self.buffers.remove(&chat).unwrap_or_default();
        self.bytes -= total_size(&events);
        events
    }

    /// Keeps events of a stream of which no events are kept yet: the first ones, as many as [`READ_AHEAD_BYTES`]
    /// allows. The rest is read again later.
    fn keep(&mut self, chat: Option<ChatNumber>, mut events: VecDeque<RecordedEvent>) {
        let mut bytes = total_size(&events);
        while self.bytes + bytes > READ_AHEAD_BYTES
            && let Some(last) = events.pop_back()
        {
            bytes -= size(&last);
        }
        self.bytes += bytes;
        self.buffers.insert(chat, events);
    }
}

/// Finds a revision at or shortly before the first event of a stream after the position `after`. `None` if the stream
/// has no later event.
async fn find_start_revision(
    log: &dyn EventStore,
    stream: &Arc<str>,
    after: Position,
) -> Result<Option<Revision>, EventStoreError> {
    let last = log.read_stream(StreamRead::last_event(Arc::clone(stream))).await?;
    let Some(last) = last.first().filter(|last| last.position > after) else { return Ok(None) };
    // The first unread event is in the range `low..=high`. Most clients were away for a short time, so the first probe
    // is near the end of the stream, and the distance from probe to probe grows.
    let (mut low, mut high) = (0, last.revision.get());
    let mut distance = LOOKUP_PRECISION;
    while high - low > LOOKUP_PRECISION {
        let probed = high - distance.min((high - low) / 2);
        distance = distance.saturating_mul(4);
        let read = StreamRead::all(Arc::clone(stream), ReadStart::Forwards(Revision::new(probed)), 1);
        match log.read_stream(read).await?.first() {
            Some(event) if event.position <= after => low = probed + 1,
            _ => high = probed,
        }
    }
    Ok(Some(Revision::new(low)))
}

/// The number of the chat that was created last in an app; 0 if the app has no chat. An upper bound of the number if
/// the chat's `ChatCreated` event can't be decoded.
pub(crate) async fn last_chat(log: &dyn EventStore, app: AppToken) -> Result<u64, EventStoreError> {
    let read = StreamRead::last_event(stream_name(app, None)).filtered(EventTypeFilter::Only("ChatCreated"));
    let last = log.read_stream(read).await?;
    Ok(last.first().map_or(0, |last| match last.decode() {
        Ok(Event::ChatCreated(created)) => created.chat_number.get(),
        // The event can't be decoded. The chat's number is at most the event's revision: chats are numbered without
        // gaps, and an app's first event creates no chat.
        _ => last.revision.get(),
    }))
}

fn stream_name(app: AppToken, chat: Option<ChatNumber>) -> Arc<str> {
    chat.map_or(StreamId::App(app), |chat| StreamId::Chat(app, chat)).to_string().into()
}

fn position_after(position: Position) -> Position {
    Position::new(position.get().saturating_add(1))
}

fn size(event: &RecordedEvent) -> usize {
    event.data.len() + event.metadata.len()
}

fn total_size(events: &VecDeque<RecordedEvent>) -> usize {
    events.iter().map(size).sum()
}

#[cfg(test)]
mod tests {
    use chat_domain::Timestamp;
    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;

    use super::*;

    fn events(count: u64, bytes: usize) -> VecDeque<RecordedEvent> {
        let event = |revision| RecordedEvent {
            position: Position::new(revision),
            stream: "chat".into(),
            revision: Revision::new(revision),
            id: EventId::new(uuid::Uuid::nil()),
            event_type: "MessageCreated".into(),
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(0),
            data: vec![b' '; bytes],
            metadata: Vec::new(),
        };
        (0..count).map(event).collect()
    }

    #[test]
    fn the_first_events_that_fit_are_read_ahead() {
        let (mut read_ahead, first, second) = (ReadAhead::default(), None, ChatNumber::try_from(1).ok());
        let half = READ_AHEAD_BYTES / 2;
        read_ahead.keep(first, events(3, half));
        assert_eq!(read_ahead.bytes, READ_AHEAD_BYTES);
        read_ahead.keep(second, events(1, half));
        assert!(read_ahead.take(second).is_empty());
        let kept = read_ahead.take(first);
        assert_eq!(kept.iter().map(|event| event.revision.get()).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(read_ahead.bytes, 0);
        read_ahead.keep(second, events(1, half));
        assert_eq!(read_ahead.take(second).len(), 1);
    }
}
