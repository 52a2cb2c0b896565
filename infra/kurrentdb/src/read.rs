//! Reads of single streams and of the whole log.

use std::sync::Arc;

use chat_domain::{Position, Revision};
use chat_kurrentdb_protocol::streams::ReadResp;
use chat_kurrentdb_protocol::streams::read_req::Options;
use chat_kurrentdb_protocol::streams::read_req::options::all_options::AllOption;
use chat_kurrentdb_protocol::streams::read_req::options::filter_options::{Expression, Filter, Window};
use chat_kurrentdb_protocol::streams::read_req::options::stream_options::RevisionOption;
use chat_kurrentdb_protocol::streams::read_req::options::{
    AllOptions, ControlOption, CountOption, FilterOption, FilterOptions, ReadDirection, StreamOption,
    StreamOptions, UuidOption, uuid_option,
};
use chat_kurrentdb_protocol::streams::read_resp::Content;
use chat_kurrentdb_protocol::streams::read_resp::read_event::RecordedEvent as StoredEvent;
use chat_kurrentdb_protocol::{AllStreamPosition, Empty, StreamIdentifier};
use tonic::{Status, Streaming};

use super::call_error::{CallError, Damage};
use super::connection::{CallTimeouts, Connection, Executor, Node};
use super::event_encoding::{self, StreamNames};
use chat_ports::event_store::{EventLookup, EventTypeFilter, ReadStart, RecordedEvent, StreamRead};

/// The prefix of the names of metadata streams: the metadata of the stream `NAME` is in the stream `$$NAME`.
pub(super) const METADATA_PREFIX: &str = "$$";

/// The name prefixes of this system's streams: those of apps, of chats and of the operators. The server filters out all
/// streams but these and their metadata streams.
pub(super) const STREAM_PREFIXES: [&str; 2] = ["app-", "chat-"];

/// The number of filtered-out events after which the server reports its progress.
const CHECKPOINT_INTERVAL: u32 = 256;

/// The payload and metadata bytes after which a read stops: bounds the memory of a read.
const MAX_READ_BYTES: usize = 8 << 20;

/// The largest page of a stream read, in events.
const MAX_PAGE_EVENTS: usize = 4_096;

/// The size of the first page in events: the minimum for a stream read that filters by event type, and the size for a
/// search by id. A match is usually among them.
const FIRST_PAGE_EVENTS: usize = 32;

/// The largest assumed difference between the clocks of writers, in milliseconds. A search by id also reads the events
/// that are up to this much older than [`EventLookup::since`].
const MAX_CLOCK_SKEW_MILLIS: i64 = 60_000;

/// The server-side filter for this system's streams and their metadata.
pub(super) fn stream_filter() -> FilterOption {
    filter_by(STREAM_PREFIXES.iter().map(|prefix| (*prefix).to_owned()).chain(metadata_prefixes()).collect())
}

/// The server-side filter for the metadata of this system's streams.
pub(super) fn metadata_filter() -> FilterOption {
    filter_by(metadata_prefixes().collect())
}

fn metadata_prefixes() -> impl Iterator<Item = String> {
    STREAM_PREFIXES.iter().map(|prefix| format!("{METADATA_PREFIX}{prefix}"))
}

fn filter_by(prefix: Vec<String>) -> FilterOption {
    FilterOption::Filter(FilterOptions {
        filter: Some(Filter::StreamIdentifier(Expression { regex: String::new(), prefix })),
        window: Some(Window::Max(CHECKPOINT_INTERVAL)),
        checkpoint_interval_multiplier: 1,
    })
}

/// The options of a read or a subscription. Links are not followed.
pub(super) fn read_options(
    from: StreamOption,
    direction: ReadDirection,
    count: CountOption,
    filter: FilterOption,
) -> Options {
    Options {
        stream_option: Some(from),
        read_direction: direction.into(),
        resolve_links: false,
        count_option: Some(count),
        filter_option: Some(filter),
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::String(Empty {})) }),
        control_option: Some(ControlOption { compatibility: 1 }),
    }
}

/// Converts a position to the start of a read of all streams.
pub(super) fn all_from(position: Position) -> StreamOption {
    let all_option = if position == Position::START {
        AllOption::Start(Empty {})
    } else {
        AllOption::Position(AllStreamPosition {
            commit_position: position.get(),
            prepare_position: position.get(),
        })
    };
    StreamOption::All(AllOptions { all_option: Some(all_option) })
}

/// The position of an event, as the start of a read.
fn all_from_event(stored: &StoredEvent) -> StreamOption {
    StreamOption::All(AllOptions {
        all_option: Some(AllOption::Position(AllStreamPosition {
            commit_position: stored.commit_position,
            prepare_position: stored.prepare_position,
        })),
    })
}

/// The end of the log, as the start of a read.
fn all_from_end() -> StreamOption {
    StreamOption::All(AllOptions { all_option: Some(AllOption::End(Empty {})) })
}

/// A part of a stream to read.
pub(super) struct StreamPart<'a> {
    pub(super) stream: &'a str,
    pub(super) from: ReadStart,
    pub(super) count: usize,
}

impl StreamPart<'_> {
    fn options(&self) -> Options {
        let (revision, direction) = match self.from {
            ReadStart::Forwards(from) => (RevisionOption::Revision(from.get()), ReadDirection::Forwards),
            ReadStart::Backwards(from) => (RevisionOption::Revision(from.get()), ReadDirection::Backwards),
            ReadStart::End => (RevisionOption::End(Empty {}), ReadDirection::Backwards),
        };
        let stream_name = self.stream.as_bytes().to_vec().into();
        let stream = StreamOptions {
            stream_identifier: Some(StreamIdentifier { stream_name }),
            revision_option: Some(revision),
        };
        let count = CountOption::Count(self.count as u64);
        read_options(StreamOption::Stream(stream), direction, count, FilterOption::NoFilter(Empty {}))
    }
}

/// The events of a read as they arrive.
pub(super) struct EventReader(Streaming<ReadResp>);

impl Node {
    /// Begins to read a part of a stream from the leader.
    pub(super) async fn read_stream(&self, part: &StreamPart<'_>) -> Result<EventReader, Status> {
        Ok(EventReader(self.read(part.options(), Executor::Leader).await?))
    }

    /// Begins to read all streams from the leader.
    async fn read_all(&self, options: &Options) -> Result<EventReader, Status> {
        Ok(EventReader(self.read(options.clone(), Executor::Leader).await?))
    }
}

impl EventReader {
    /// Returns the next event, or `None` at the end of the read or if the stream does not exist.
    pub(super) async fn next_event(
        &mut self,
        timeouts: CallTimeouts,
    ) -> Result<Option<StoredEvent>, CallError> {
        while let Some(response) = timeouts.within(self.0.message()).await? {
            match response.content {
                Some(Content::Event(event)) => return Ok(event_encoding::original_event(event)),
                Some(Content::StreamNotFound(_)) => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Connection {
    /// Reads one stream, page by page, up to the limit, [`MAX_READ_BYTES`] or the end of the stream.
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
        // The reader of a stream's end may append after it, so a truncated stream is refused.
        if read.start == ReadStart::End {
            self.check_truncation(&read.stream).await?;
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut from = Some(read.start);
        while let Some(start) = from
            && found.len() < read.limit
            && bytes < MAX_READ_BYTES
        {
            page_events = page_events.min(MAX_PAGE_EVENTS);
            let part = StreamPart { stream: &read.stream, from: start, count: page_events };
            let page = self.with_retries(|node| self.read_page(node, &part)).await;
            let page = page.map_err(|error| self.name_deleted_stream(error, &read.stream))?;
            from = page.next;
            for event in page.events.into_iter().filter(matches).take(read.limit - found.len()) {
                bytes += size(&event);
                found.push(event);
            }
            page_events *= 4;
        }
        Ok(found)
    }

    /// Searches a stream backwards for an event, as far back as the earliest possible time of the event.
    pub(super) async fn find_event(&self, lookup: &EventLookup) -> Result<Option<RecordedEvent>, CallError> {
        let mut page_events = FIRST_PAGE_EVENTS;
        let mut from = Some(ReadStart::End);
        while let Some(start) = from {
            let part = StreamPart { stream: &lookup.stream, from: start, count: page_events };
            let page = self.with_retries(|node| self.read_page(node, &part)).await?;
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

    /// Reads a part of a stream. Ends early once its events have [`MAX_READ_BYTES`].
    async fn read_page(&self, node: Arc<Node>, part: &StreamPart<'_>) -> Result<Page, CallError> {
        let (from, stream) = (part.from, Arc::<str>::from(part.stream));
        let forwards = matches!(from, ReadStart::Forwards(_));
        let mut expected = match from {
            ReadStart::Forwards(from) => Some(from.get()),
            // The first revision that is read backwards depends on where the stream ends.
            ReadStart::Backwards(_) | ReadStart::End => None,
        };
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut read = self.timeouts.within(node.read_stream(part)).await?;
        while let Some(stored) = read.next_event(self.timeouts).await? {
            let found = stored.stream_revision;
            if let Some(expected) = expected
                && expected != found
            {
                return Err(Damage::MissingEvents { expected, found }.into());
            }
            expected = if forwards { Some(found + 1) } else { found.checked_sub(1) };
            let event = event_encoding::from_wire(stored, Arc::clone(&stream))?;
            bytes += size(&event);
            events.push(event);
            if bytes >= MAX_READ_BYTES {
                break;
            }
            // A read backwards has reached the first event.
            if expected.is_none() {
                return Ok(Page { events, next: None });
            }
        }
        let more = events.len() == part.count || bytes >= MAX_READ_BYTES;
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
        let matches = |event: &RecordedEvent| event.position > after;
        self.read_filtered(all_from(after), ReadDirection::Forwards, limit, matches).await
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
        let from = before.map_or_else(all_from_end, all_from);
        let matches = |event: &RecordedEvent| before.is_none_or(|before| event.position < before);
        self.read_filtered(from, ReadDirection::Backwards, limit, matches).await
    }

    /// Reads the event at a position. The port's default implementation does not work here: it reads after
    /// `position - 1`, and KurrentDB accepts only positions of events.
    pub(super) async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, CallError> {
        if position == Position::START {
            return Ok(None);
        }
        let read = self.read_filtered(all_from(position), ReadDirection::Forwards, 1, |_| true).await?;
        let next = read.into_iter().next();
        Ok(next.filter(|event| event.position == position))
    }

    /// Reads the events of this system's streams that match. Returns an empty list only if no matching event is left in
    /// this direction.
    async fn read_filtered(
        &self,
        mut from: StreamOption,
        direction: ReadDirection,
        limit: usize,
        matches: impl Fn(&RecordedEvent) -> bool + Send + Sync,
    ) -> Result<Vec<RecordedEvent>, CallError> {
        loop {
            match self.read_filtered_page(from, direction, limit, &matches).await? {
                (_, Some(next)) => from = next,
                (events, None) => return Ok(events),
            }
        }
    }

    /// Reads a page of events and returns those that match. If the page is full and no event in it matches, also
    /// returns the start of the next page.
    async fn read_filtered_page(
        &self,
        from: StreamOption,
        direction: ReadDirection,
        limit: usize,
        matches: &(impl Fn(&RecordedEvent) -> bool + Send + Sync),
    ) -> Result<(Vec<RecordedEvent>, Option<StreamOption>), CallError> {
        // One more than `limit`, because KurrentDB may first return the event at the start position itself.
        let count = limit.saturating_add(1) as u64;
        let options = read_options(from, direction, CountOption::Count(count), stream_filter());
        self.with_retries(async |node| {
            let mut read = self.timeouts.within(node.read_all(&options)).await?;
            let (mut events, mut bytes, mut names) = (Vec::new(), 0, StreamNames::default());
            let (mut received, mut last) = (0, None);
            while events.len() < limit
                && bytes < MAX_READ_BYTES
                && let Some(stored) = read.next_event(self.timeouts).await?
            {
                (received, last) = (received + 1, Some(all_from_event(&stored)));
                if self.record_if_system_event(&stored).await {
                    continue;
                }
                let name = names.shared_name(&stored)?;
                let event = event_encoding::from_wire(stored, name)?;
                if matches(&event) {
                    bytes += size(&event);
                    events.push(event);
                }
            }
            // A full page without a matching event says nothing about the events after it.
            let continues = events.is_empty() && received == count;
            Ok((events, last.filter(|_| continues)))
        })
        .await
    }

    /// Reads the position of the last event, including events of other applications.
    pub(super) async fn head(&self) -> Result<Position, CallError> {
        let no_filter = FilterOption::NoFilter(Empty {});
        let options =
            read_options(all_from_end(), ReadDirection::Backwards, CountOption::Count(1), no_filter);
        self.with_retries(async |node| {
            let mut read = self.timeouts.within(node.read_all(&options)).await?;
            let last = read.next_event(self.timeouts).await?;
            Ok(last.map_or(Position::START, |last| Position::new(last.commit_position)))
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

fn size(event: &RecordedEvent) -> usize {
    event.data.len() + event.metadata.len()
}
