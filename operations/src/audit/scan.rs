//! Filtered scans of the log, batch by batch, in bounded memory.

use std::collections::VecDeque;
use std::sync::Arc;

use chat_domain::{Position, Revision, StreamId, Timestamp};
use chat_ports::event_store::{
    EventStore, EventStoreError, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};

use super::filter::EventFilter;
use super::seek;
use super::time::MAX_CLOCK_SKEW_MS;

/// The default number of events per read. The store returns fewer if they are large.
const BATCH_EVENTS: usize = 512;

/// The direction of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the start of the log towards the end.
    OldestFirst,
    /// From the end of the log towards the start.
    #[default]
    NewestFirst,
}

/// The matching events of a part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanBatch {
    /// The events that match the filter, in the order of the scan. May be empty.
    pub events: Vec<RecordedEvent>,
    /// The number of scanned events.
    pub scanned_events: u64,
    /// The position of the last event read. A scan that continues from here misses no events.
    pub last_scanned: Position,
}

/// A scan of the log through a filter.
///
/// ```
/// # async fn example(log: &dyn chat_ports::event_store::EventStore)
/// # -> Result<(), chat_ports::event_store::EventStoreError> {
/// use chat_operations::audit::{EventFilter, Order, Scan};
///
/// let filter = EventFilter { types: vec!["MessageDeleted".to_owned()], ..EventFilter::default() };
/// let mut scan = Scan::new(filter, Order::OldestFirst);
/// while let Some(batch) = scan.next_batch(log).await? {
///     println!("{} of {} up to {}", batch.events.len(), batch.scanned_events, batch.last_scanned);
/// }
/// # Ok(())
/// # }
/// ```
///
/// If the filter selects a stream or a chat, the scan reads only this stream and, for a chat, the event of its
/// creation. It starts at the stream's first event within the filter's positions, or at the last one if the order is
/// [`Order::NewestFirst`].
#[derive(Debug)]
pub struct Scan {
    filter: EventFilter,
    order: Order,
    batch_events: usize,
    source: ScanSource,
    /// Whether a probe found that the clock of a writer jumped. From then on, no event's time ends the scan.
    times_jump: bool,
}

#[derive(Debug)]
enum ScanSource {
    /// The start has not been determined yet.
    Unopened,
    /// The whole log. The next read starts after the position or, for newest first, before it. `None` is the start of
    /// the log or, for newest first, its end.
    All(Option<Position>),
    /// A stream, and for a chat the event of its creation from the app's stream.
    Streams(Vec<StreamCursor>),
    /// The end has been reached.
    Ended,
}

/// A cursor in one stream.
#[derive(Debug)]
struct StreamCursor {
    name: Arc<str>,
    /// The start of the next read; `None` if there is nothing more to read.
    next: Option<ReadStart>,
    buffer: VecDeque<RecordedEvent>,
}

impl Scan {
    /// Creates a scan that begins at the start or end of the log, or at the bound of the filter.
    pub fn new(filter: EventFilter, order: Order) -> Self {
        Self { filter, order, batch_events: BATCH_EVENTS, source: ScanSource::Unopened, times_jump: false }
    }

    /// Sets the number of events per read.
    #[must_use]
    pub fn with_batch_events(mut self, events: usize) -> Self {
        self.batch_events = events.max(1);
        self
    }

    /// The filter of the scan.
    pub fn filter(&self) -> &EventFilter {
        &self.filter
    }

    /// Reads the next batch; `None` at the end. After an error, begin a new scan: this one may miss events.
    pub async fn next_batch(&mut self, log: &dyn EventStore) -> Result<Option<ScanBatch>, EventStoreError> {
        if matches!(self.source, ScanSource::Unopened) {
            self.source = self.open(log).await?;
        }
        let events = match &mut self.source {
            ScanSource::Unopened | ScanSource::Ended => return Ok(None),
            ScanSource::All(position) => {
                let left = positions_left(&self.filter, self.order, *position);
                let limit = left.map_or(self.batch_events, |left| left.min(self.batch_events));
                let events = match self.order {
                    _ if limit == 0 => Vec::new(),
                    Order::OldestFirst => log.read_all(position.unwrap_or(Position::START), limit).await?,
                    Order::NewestFirst => log.read_all_backwards(*position, limit).await?,
                };
                if let Some(last) = events.last() {
                    *position = Some(last.position);
                }
                events
            }
            ScanSource::Streams(streams) => read_merged(log, streams, self.order, self.batch_events).await?,
        };
        let Some(last) = events.last() else {
            self.source = ScanSource::Ended;
            return Ok(None);
        };
        let last_scanned = last.position;
        let mut scanned_events = 0;
        let mut matching = Vec::new();
        for event in events {
            if self.is_past_positions(&event)
                || self.is_past_times(&event) && !self.finds_jump_beyond(log, event.position).await?
            {
                self.source = ScanSource::Ended;
                break;
            }
            scanned_events += 1;
            if self.filter.matches(&event) {
                matching.push(event);
            }
        }
        Ok(Some(ScanBatch { events: matching, scanned_events, last_scanned }))
    }

    /// Whether the scan has passed the filter's positions: this event and all that the scan would read after it are
    /// outside them.
    fn is_past_positions(&self, event: &RecordedEvent) -> bool {
        match self.order {
            Order::OldestFirst => self.filter.before.is_some_and(|before| event.position >= before),
            Order::NewestFirst => self.filter.after.is_some_and(|after| event.position <= after),
        }
    }

    /// Whether the scan has passed the filter's times: unless a clock jumped, this event and all that the scan would
    /// read after it are outside them.
    fn is_past_times(&self, event: &RecordedEvent) -> bool {
        let shifted = |time: Timestamp, by: i64| time.millis().saturating_add(by);
        let time = event.recorded_at.millis();
        match self.order {
            Order::OldestFirst => self.filter.to.is_some_and(|to| time > shifted(to, MAX_CLOCK_SKEW_MS)),
            Order::NewestFirst => {
                self.filter.from.is_some_and(|from| time < shifted(from, -MAX_CLOCK_SKEW_MS))
            }
        }
    }

    /// Whether a probe found that a clock jumped, in this call or before.
    ///
    /// The time of the event at `position` would end the scan. Probes events further on in the order of the scan. If
    /// one of them is within the filter's times, a clock jumped.
    async fn finds_jump_beyond(
        &mut self,
        log: &dyn EventStore,
        position: Position,
    ) -> Result<bool, EventStoreError> {
        if !self.times_jump {
            self.times_jump = match (self.order, self.filter.from, self.filter.to) {
                (Order::NewestFirst, Some(from), _) => {
                    seek::probe_finds_event_up_to(log, position, |event| event.recorded_at >= from).await?
                }
                (Order::OldestFirst, _, Some(to)) => {
                    seek::probe_finds_event_after(log, position, |event| event.recorded_at <= to).await?
                }
                (Order::NewestFirst | Order::OldestFirst, ..) => false,
            };
        }
        Ok(self.times_jump)
    }

    /// Determines the source of the scan, and where the first read starts.
    async fn open(&self, log: &dyn EventStore) -> Result<ScanSource, EventStoreError> {
        let filter = &self.filter;
        let (stream, chat_created) = match (&filter.stream, filter.app, filter.chat) {
            (Some(stream), ..) => (Arc::clone(stream), None),
            // The creation of a chat is in its app's stream.
            (None, Some(app), Some(chat)) => {
                let created = creation_lookup::find_chat_created(log, app, chat).await?;
                (StreamId::Chat(app, chat).to_string().into(), created)
            }
            _ => return self.open_whole_log(log).await.map(ScanSource::All),
        };
        let next = self.open_stream(log, &stream).await?;
        let mut cursors = vec![StreamCursor { name: stream, next, buffer: VecDeque::new() }];
        if let Some(event) = chat_created {
            cursors.push(StreamCursor {
                name: Arc::clone(&event.stream),
                next: None,
                buffer: [event].into(),
            });
        }
        Ok(ScanSource::Streams(cursors))
    }

    /// Finds the start of a scan of the whole log.
    async fn open_whole_log(&self, log: &dyn EventStore) -> Result<Option<Position>, EventStoreError> {
        let filter = &self.filter;
        match self.order {
            Order::OldestFirst => {
                let by_time = match filter.from {
                    Some(from) => seek::position_before_events_since(log, from).await?,
                    None => Position::START,
                };
                Ok(Some(by_time.max(filter.after.unwrap_or(Position::START))))
            }
            // The start of the scan limits its last read. Where positions are not contiguous, they are much further apart
            // than 1, so they limit no read, and a read can only start at the position of an event.
            Order::NewestFirst
                if log.has_contiguous_positions() && filter.before.is_none() && filter.after.is_some() =>
            {
                Ok(Some(Position::new(log.head().await?.get().saturating_add(1))))
            }
            Order::NewestFirst => Ok(filter.before),
        }
    }

    /// Finds the start of a scan of a stream.
    async fn open_stream(
        &self,
        log: &dyn EventStore,
        stream: &Arc<str>,
    ) -> Result<Option<ReadStart>, EventStoreError> {
        match (self.order, self.filter.after, self.filter.before) {
            (Order::OldestFirst, Some(after), _) => {
                Ok(seek::first_revision_after(log, stream, after).await?.map(ReadStart::Forwards))
            }
            (Order::OldestFirst, None, _) => Ok(Some(ReadStart::Forwards(Revision::FIRST))),
            (Order::NewestFirst, _, Some(before)) => {
                let last = Position::new(before.get().saturating_sub(1));
                Ok(seek::last_revision_up_to(log, stream, last).await?.map(ReadStart::Backwards))
            }
            (Order::NewestFirst, _, None) => Ok(Some(ReadStart::End)),
        }
    }
}

/// The number of positions between `from`, where the next read of the whole log starts, and the end of the filter's
/// positions. There are at most as many events. Where positions are contiguous and no event between them is missing, there
/// are exactly as many, so a read of this size does not fail because of a damaged event beyond them. `None` if the filter
/// has no such end.
fn positions_left(filter: &EventFilter, order: Order, from: Option<Position>) -> Option<usize> {
    let (after, before) = match order {
        Order::OldestFirst => (from.unwrap_or(Position::START), filter.before?),
        Order::NewestFirst => (filter.after?, from?),
    };
    let left = before.get().saturating_sub(after.get()).saturating_sub(1);
    Some(usize::try_from(left).unwrap_or(usize::MAX))
}

/// Reads the next events of several streams, merged in the order of the log.
async fn read_merged(
    log: &dyn EventStore,
    streams: &mut [StreamCursor],
    order: Order,
    batch_events: usize,
) -> Result<Vec<RecordedEvent>, EventStoreError> {
    let mut events = Vec::new();
    while events.len() < batch_events {
        for stream in streams.iter_mut() {
            // An empty buffer ends the batch instead of being refilled, so that memory stays bounded by one read for
            // each stream.
            if stream.buffer.is_empty() && stream.next.is_some() {
                if !events.is_empty() {
                    return Ok(events);
                }
                stream.fill(log, batch_events).await?;
            }
        }
        let fronts = streams.iter_mut().filter(|stream| !stream.buffer.is_empty());
        let position = |stream: &StreamCursor| stream.buffer.front().map(|event| event.position);
        let first = match order {
            Order::OldestFirst => fronts.min_by_key(|stream| position(stream)),
            Order::NewestFirst => fronts.max_by_key(|stream| position(stream)),
        };
        let Some(event) = first.and_then(|stream| stream.buffer.pop_front()) else { break };
        events.push(event);
    }
    Ok(events)
}

impl StreamCursor {
    /// Fills the buffer, if there is more to read.
    async fn fill(&mut self, log: &dyn EventStore, limit: usize) -> Result<(), EventStoreError> {
        let Some(from) = self.next else { return Ok(()) };
        let events = log.read_stream(StreamRead::all(Arc::clone(&self.name), from, limit)).await?;
        self.next = events.last().and_then(|last| match from {
            ReadStart::Forwards(_) => Some(ReadStart::Forwards(last.revision.next())),
            ReadStart::End | ReadStart::Backwards(_) => {
                last.revision.get().checked_sub(1).map(|before| ReadStart::Backwards(Revision::new(before)))
            }
        });
        self.buffer = events.into();
        Ok(())
    }
}
