//! Reads of single streams and of the whole log.

use std::sync::Arc;

use chat_domain::{Position, Revision};
use kurrentdb::{Client, ReadAllOptions, ReadStreamOptions, StreamPosition, SubscriptionFilter};

use super::call_error::{CallError, Damage};
use super::connection::Connection;
use super::event_encoding::{self, StreamNames};
use chat_ports::event_store::{EventLookup, EventTypeFilter, ReadStart, RecordedEvent, StreamRead};

/// The name prefixes of this system's streams. The server filters out all other events.
const STREAM_PREFIXES: &[&str] = &["app-", "chat-"];

/// The number of filtered-out events after which the server reports its progress.
const CHECKPOINT_INTERVAL: u32 = 256;

/// The payload and metadata bytes after which a read stops: bounds the memory of a read.
const MAX_READ_BYTES: usize = 8 << 20;

/// The largest page of a stream read, in events.
const MAX_PAGE_EVENTS: usize = 4_096;

/// The first page of a filtered read or a search, in events: a match is usually among them.
const FIRST_PAGE_EVENTS: usize = 32;

/// The largest assumed difference between the clocks of writers, in milliseconds: a search by id continues this far
/// past the time of the lookup.
const MAX_CLOCK_SKEW_MILLIS: i64 = 60_000;

/// The server-side filter for this system's streams.
pub(super) fn stream_filter() -> SubscriptionFilter {
    let filter = SubscriptionFilter::on_stream_name().max(CHECKPOINT_INTERVAL);
    STREAM_PREFIXES.iter().fold(filter, SubscriptionFilter::add_prefix)
}

impl Connection {
    /// Reads one stream, page by page, up to the limit or the end of the stream.
    pub(super) async fn read_stream(&self, read: &StreamRead) -> Result<Vec<RecordedEvent>, CallError> {
        let matches = |event: &RecordedEvent| match read.filter {
            EventTypeFilter::All => true,
            EventTypeFilter::Only(only) => event.event_type == only,
            EventTypeFilter::Except(except) => event.event_type != except,
        };
        let mut page_events = match read.filter {
            EventTypeFilter::All => read.limit,
            EventTypeFilter::Only(_) | EventTypeFilter::Except(_) => read.limit.max(FIRST_PAGE_EVENTS),
        };
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut from = Some(read.start);
        while let Some(start) = from
            && found.len() < read.limit
            && bytes < MAX_READ_BYTES
        {
            page_events = page_events.min(MAX_PAGE_EVENTS);
            let page =
                self.with_retries(|client| self.read_page(client, &read.stream, start, page_events)).await?;
            from = page.next;
            for event in page.events.into_iter().filter(matches).take(read.limit - found.len()) {
                bytes += size(&event);
                found.push(event);
            }
            page_events *= 4;
        }
        Ok(found)
    }

    /// Searches a stream for an event, from its end back to the earliest possible time of the event.
    pub(super) async fn find_event(&self, lookup: &EventLookup) -> Result<Option<RecordedEvent>, CallError> {
        let mut page_events = FIRST_PAGE_EVENTS;
        let mut from = Some(ReadStart::End);
        while let Some(start) = from {
            let page = self
                .with_retries(|client| self.read_page(client, &lookup.stream, start, page_events))
                .await?;
            from = page.next;
            for event in page.events {
                if event.id == lookup.id {
                    return Ok(Some(event));
                }
                if event.recorded_at.millis() + MAX_CLOCK_SKEW_MILLIS < lookup.since.millis() {
                    return Ok(None);
                }
            }
            page_events = (page_events * 4).min(MAX_PAGE_EVENTS);
        }
        Ok(None)
    }

    /// Reads up to `count` events of a stream, fewer if they are large.
    async fn read_page(
        &self,
        client: Client,
        stream: &Arc<str>,
        from: ReadStart,
        count: usize,
    ) -> Result<Page, CallError> {
        let options = ReadStreamOptions::default().requires_leader(true).max_count(count);
        let options = self.authenticated(options, ReadStreamOptions::authenticated);
        let options = match from {
            ReadStart::Forwards(from) => options.forwards().position(StreamPosition::Position(from.get())),
            ReadStart::Backwards(from) => options.backwards().position(StreamPosition::Position(from.get())),
            ReadStart::End => options.position(StreamPosition::End),
        };
        let forwards = matches!(from, ReadStart::Forwards(_));
        let mut expected = match from {
            ReadStart::Forwards(from) => Some(from.get()),
            // The end of the stream is not known in advance.
            ReadStart::Backwards(_) | ReadStart::End => None,
        };
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut read = match self.timeouts.within(client.read_stream(&**stream, &options)).await {
            Err(CallError::StreamNotFound) => return Ok(Page::default()),
            read => read?,
        };
        loop {
            let next = match self.timeouts.within(read.next()).await {
                Err(CallError::StreamNotFound) => return Ok(Page::default()),
                next => next?,
            };
            let Some(stored) = next.and_then(event_encoding::original_event) else { break };
            let found = stored.revision;
            if let Some(expected) = expected
                && expected != found
            {
                return Err(Damage::MissingEvents { expected, found }.into());
            }
            expected = if forwards { Some(found + 1) } else { found.checked_sub(1) };
            let event = event_encoding::from_wire(stored, Arc::clone(stream))?;
            bytes += size(&event);
            events.push(event);
            if bytes >= MAX_READ_BYTES {
                break;
            }
            if expected.is_none() {
                return Ok(Page { events, next: None });
            }
        }
        let more = events.len() == count || bytes >= MAX_READ_BYTES;
        let next = expected.filter(|_| more).map(Revision::new);
        let next = next.map(if forwards { ReadStart::Forwards } else { ReadStart::Backwards });
        Ok(Page { events, next })
    }

    /// Reads events of this system's streams after a position.
    pub(super) async fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, CallError> {
        let options = ReadAllOptions::default().forwards().position(to_stream_position(after));
        self.read_filtered(options, limit, |event| event.position > after).await
    }

    /// Reads events of this system's streams before a position or the end of the log, the latest first.
    pub(super) async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, CallError> {
        if before == Some(Position::START) {
            return Ok(Vec::new());
        }
        let options = ReadAllOptions::default()
            .backwards()
            .position(before.map_or(StreamPosition::End, to_stream_position));
        self.read_filtered(options, limit, |event| before.is_none_or(|before| event.position < before)).await
    }

    /// Reads the event at a position. KurrentDB accepts only positions of events, so the default of the port, which reads
    /// after the preceding byte, does not work.
    pub(super) async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, CallError> {
        if position == Position::START {
            return Ok(None);
        }
        let options = ReadAllOptions::default().forwards().position(to_stream_position(position));
        let next = self.read_filtered(options, 1, |_| true).await?.into_iter().next();
        Ok(next.filter(|event| event.position == position))
    }

    async fn read_filtered(
        &self,
        options: ReadAllOptions,
        limit: usize,
        matches: impl Fn(&RecordedEvent) -> bool + Send + Sync,
    ) -> Result<Vec<RecordedEvent>, CallError> {
        // KurrentDB may return the event at the position itself first.
        let count = limit.saturating_add(1);
        let options = options.requires_leader(true).filter(stream_filter()).max_count(count);
        let options = self.authenticated(options, ReadAllOptions::authenticated);
        self.with_retries(async |client| {
            let mut read = self.timeouts.within(client.read_all(&options)).await?;
            let (mut events, mut bytes, mut names) = (Vec::new(), 0, StreamNames::default());
            while events.len() < limit
                && bytes < MAX_READ_BYTES
                && let Some(stored) =
                    self.timeouts.within(read.next()).await?.and_then(event_encoding::original_event)
            {
                let name = names.shared_name(&stored);
                let event = event_encoding::from_wire(stored, name)?;
                if matches(&event) {
                    bytes += size(&event);
                    events.push(event);
                }
            }
            Ok(events)
        })
        .await
    }

    /// Reads the position of the last event, including events of other applications.
    pub(super) async fn head(&self) -> Result<Position, CallError> {
        self.with_retries(async |client| {
            let options = ReadAllOptions::default().requires_leader(true).max_count(1);
            let options = self.authenticated(options, ReadAllOptions::authenticated);
            let options = options.position(StreamPosition::End);
            let mut read = self.timeouts.within(client.read_all(&options)).await?;
            let last = self.timeouts.within(read.next()).await?.and_then(event_encoding::original_event);
            Ok(last.map_or(Position::START, |last| Position::new(last.position.commit)))
        })
        .await
    }
}

/// A page of a stream, and the start of the next one.
#[derive(Default)]
struct Page {
    events: Vec<RecordedEvent>,
    next: Option<ReadStart>,
}

/// Converts a position to KurrentDB's type.
pub(super) fn to_stream_position(after: Position) -> StreamPosition<kurrentdb::Position> {
    if after == Position::START {
        return StreamPosition::Start;
    }
    StreamPosition::Position(kurrentdb::Position { commit: after.get(), prepare: after.get() })
}

fn size(event: &RecordedEvent) -> usize {
    event.data.len() + event.metadata.len()
}
