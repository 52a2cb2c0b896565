//! Reading streams, and the log as a whole.

use std::sync::Arc;

use chat_domain::{Position, Revision};
use kurrentdb::{Client, ReadAllOptions, ReadStreamOptions, StreamPosition, SubscriptionFilter};

use super::connection::Connection;
use super::failure::{Damage, Failure};
use super::record::{self, Names};
use super::{CHECKPOINT_EVERY, STREAMS};
use chat_ports::event_store::{EventSearch, ReadFrom, RecordedEvent, Select, StreamRead};

/// A read stops after this many bytes of payloads and metadata, so that 65,536-byte messages don't fill the memory.
const READ_BYTES: usize = 8 << 20;

/// Events that a page of a stream has at most.
const LARGEST_PAGE: usize = 4_096;

/// Events of the first page where only some are wanted: mostly these are near.
const FIRST_PAGE: usize = 32;

/// How far apart the clocks of those who write may be, in milliseconds: an event is looked for in those before it that
/// seem younger.
const CLOCKS_APART: i64 = 60_000;

/// Lets events of this system's streams pass.
pub(super) fn own_streams() -> SubscriptionFilter {
    let filter = SubscriptionFilter::on_stream_name().max(CHECKPOINT_EVERY);
    STREAMS.iter().fold(filter, SubscriptionFilter::add_prefix)
}

impl Connection {
    /// Reads one stream, page by page, until there is enough or no more.
    pub(super) async fn read_stream(&self, read: &StreamRead) -> Result<Vec<RecordedEvent>, Failure> {
        let wanted = |event: &RecordedEvent| match read.select {
            Select::All => true,
            Select::Only(only) => event.event_type == only,
            Select::Except(except) => event.event_type != except,
        };
        let mut page = match read.select {
            Select::All => read.limit,
            Select::Only(_) | Select::Except(_) => read.limit.max(FIRST_PAGE),
        };
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut from = Some(read.from);
        while let Some(start) = from
            && found.len() < read.limit
            && bytes < READ_BYTES
        {
            page = page.min(LARGEST_PAGE);
            let looked_at = self.patiently(|client| self.page(client, &read.stream, start, page)).await?;
            from = looked_at.next;
            for event in looked_at.events.into_iter().filter(wanted).take(read.limit - found.len()) {
                bytes += size(&event);
                found.push(event);
            }
            page *= 4;
        }
        Ok(found)
    }

    /// Looks for an event from the end of its stream to where it can't be any more.
    pub(super) async fn find(&self, wanted: &EventSearch) -> Result<Option<RecordedEvent>, Failure> {
        let mut page = FIRST_PAGE;
        let mut from = Some(ReadFrom::End);
        while let Some(start) = from {
            let looked_at = self.patiently(|client| self.page(client, &wanted.stream, start, page)).await?;
            from = looked_at.next;
            for event in looked_at.events {
                if event.id == wanted.id {
                    return Ok(Some(event));
                }
                if event.recorded_at.millis() + CLOCKS_APART < wanted.since.millis() {
                    return Ok(None);
                }
            }
            page = (page * 4).min(LARGEST_PAGE);
        }
        Ok(None)
    }

    /// Reads up to `count` events of a stream, fewer where they are large.
    async fn page(
        &self,
        client: Client,
        stream: &Arc<str>,
        from: ReadFrom,
        count: usize,
    ) -> Result<Page, Failure> {
        let options = ReadStreamOptions::default().requires_leader(true).max_count(count);
        let options = self.authenticated(options, ReadStreamOptions::authenticated);
        let options = match from {
            ReadFrom::Forwards(from) => options.forwards().position(StreamPosition::Position(from.get())),
            ReadFrom::Backwards(from) => options.backwards().position(StreamPosition::Position(from.get())),
            ReadFrom::End => options.position(StreamPosition::End),
        };
        let forwards = matches!(from, ReadFrom::Forwards(_));
        let mut expected = match from {
            ReadFrom::Forwards(from) => Some(from.get()),
            // Where the stream ends is not known before.
            ReadFrom::Backwards(_) | ReadFrom::End => None,
        };
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut read = match self.patience.within(client.read_stream(&**stream, &options)).await {
            Err(Failure::NoStream) => return Ok(Page::default()),
            read => read?,
        };
        loop {
            let next = match self.patience.within(read.next()).await {
                Err(Failure::NoStream) => return Ok(Page::default()),
                next => next?,
            };
            let Some(stored) = next.and_then(record::itself) else { break };
            let found = stored.revision;
            if let Some(expected) = expected
                && expected != found
            {
                return Err(Damage::Hole { expected, found }.into());
            }
            expected = if forwards { Some(found + 1) } else { found.checked_sub(1) };
            let event = record::from_wire(stored, Arc::clone(stream))?;
            bytes += size(&event);
            events.push(event);
            if bytes >= READ_BYTES {
                break;
            }
            if expected.is_none() {
                return Ok(Page { events, next: None });
            }
        }
        let more = events.len() == count || bytes >= READ_BYTES;
        let next = expected.filter(|_| more).map(Revision::new);
        let next = next.map(if forwards { ReadFrom::Forwards } else { ReadFrom::Backwards });
        Ok(Page { events, next })
    }

    /// Reads events of this system's streams after a position.
    pub(super) async fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        let options = ReadAllOptions::default().forwards().position(from(after));
        self.in_order(options, limit, |event| event.position > after).await
    }

    /// Reads events of this system's streams before a position, or from the log's end, towards its start.
    pub(super) async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        if before == Some(Position::START) {
            return Ok(Vec::new());
        }
        let options =
            ReadAllOptions::default().backwards().position(before.map_or(StreamPosition::End, from));
        self.in_order(options, limit, |event| before.is_none_or(|before| event.position < before)).await
    }

    /// Reads the event at a position. KurrentDB takes positions of events only, and not the byte before one.
    pub(super) async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, Failure> {
        if position == Position::START {
            return Ok(None);
        }
        let options = ReadAllOptions::default().forwards().position(from(position));
        let next = self.in_order(options, 1, |_| true).await?.into_iter().next();
        Ok(next.filter(|event| event.position == position))
    }

    async fn in_order(
        &self,
        options: ReadAllOptions,
        limit: usize,
        wanted: impl Fn(&RecordedEvent) -> bool + Send + Sync,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        // KurrentDB may begin with the event at the position itself.
        let count = limit.saturating_add(1);
        let options = options.requires_leader(true).filter(own_streams()).max_count(count);
        let options = self.authenticated(options, ReadAllOptions::authenticated);
        self.patiently(async |client| {
            let mut read = self.patience.within(client.read_all(&options)).await?;
            let (mut events, mut bytes, mut names) = (Vec::new(), 0, Names::default());
            while events.len() < limit
                && bytes < READ_BYTES
                && let Some(stored) = self.patience.within(read.next()).await?.and_then(record::itself)
            {
                let name = names.of(&stored);
                let event = record::from_wire(stored, name)?;
                if wanted(&event) {
                    bytes += size(&event);
                    events.push(event);
                }
            }
            Ok(events)
        })
        .await
    }

    /// The position of the last event, whoever wrote it.
    pub(super) async fn head(&self) -> Result<Position, Failure> {
        self.patiently(async |client| {
            let options = ReadAllOptions::default().requires_leader(true).max_count(1);
            let options = self.authenticated(options, ReadAllOptions::authenticated);
            let options = options.position(StreamPosition::End);
            let mut read = self.patience.within(client.read_all(&options)).await?;
            let last = self.patience.within(read.next()).await?.and_then(record::itself);
            Ok(last.map_or(Position::START, |last| Position::new(last.position.commit)))
        })
        .await
    }
}

/// Some events of a stream, and where to go on.
#[derive(Default)]
struct Page {
    events: Vec<RecordedEvent>,
    next: Option<ReadFrom>,
}

/// A position of ours as KurrentDB wants it.
pub(super) fn from(after: Position) -> StreamPosition<kurrentdb::Position> {
    if after == Position::START {
        return StreamPosition::Start;
    }
    StreamPosition::Position(kurrentdb::Position { commit: after.get(), prepare: after.get() })
}

fn size(event: &RecordedEvent) -> usize {
    event.data.len() + event.metadata.len()
}
