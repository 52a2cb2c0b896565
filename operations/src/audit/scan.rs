//! Reading the log through a filter, a stretch at a time: memory does not grow with the log.

use std::collections::VecDeque;
use std::sync::Arc;

use chat_domain::{Position, Revision, StreamId, Timestamp};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};

use super::filter::EventFilter;
use super::seek;
use super::time::MAX_CLOCK_SKEW_MS;

/// Events read at once, unless told otherwise. The store returns fewer where they are large.
const BATCH_EVENTS: usize = 512;

/// Which end of the log to begin at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the start towards the end.
    OldestFirst,
    /// From the end towards the start.
    #[default]
    NewestFirst,
}

/// What a stretch of the log holds of what is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanBatch {
    /// The events that the filter fits, in the order asked for. May be none.
    pub events: Vec<RecordedEvent>,
    /// How many events were looked at.
    pub scanned_events: u64,
    /// The last event looked at: a read that goes on from here, after it or before it, misses nothing.
    pub last_scanned: Position,
}

/// A read of the log through a filter.
///
/// ```
/// # async fn example(log: &dyn chat_ports::event_store::EventStore)
/// # -> Result<(), chat_ports::event_store::EventStoreError> {
/// use chat_operations::audit::{EventFilter, Order, Scan};
///
/// let filter = EventFilter { types: vec!["MessageDeleted".to_owned()], ..EventFilter::default() };
/// let mut scan = Scan::new(filter, Order::OldestFirst);
/// while let Some(found) = scan.next(log).await? {
///     println!("{} of {} up to {}", found.events.len(), found.looked_at, found.reached);
/// }
/// # Ok(())
/// # }
/// ```
///
/// Where the filter names a stream or a chat, that stream alone is read, from the revision where its positions begin.
#[derive(Debug)]
pub struct Scan {
    filter: EventFilter,
    order: Order,
    batch_events: usize,
    source: ScanSource,
}

#[derive(Debug)]
enum ScanSource {
    /// Where to begin has not been looked for yet.
    Unopened,
    /// The whole log, after or before a position.
    All(Option<Position>),
    /// A stream, and what stands elsewhere and belongs to it.
    Streams(Vec<StreamCursor>),
    /// Nothing can follow that is meant.
    Ended,
}

/// A place in one stream.
#[derive(Debug)]
struct StreamCursor {
    name: Arc<str>,
    /// `None`: the stream ends here.
    next: Option<ReadStart>,
    buffer: VecDeque<RecordedEvent>,
}

impl Scan {
    /// Begins at an end of the log, or as near to it as the filter's bounds allow.
    pub fn new(filter: EventFilter, order: Order) -> Self {
        Self { filter, order, batch_events: BATCH_EVENTS, source: ScanSource::Unopened }
    }

    /// Reads so many events at once.
    #[must_use]
    pub fn with_batch_events(mut self, events: usize) -> Self {
        self.batch_events = events.max(1);
        self
    }

    /// What it looks for.
    pub fn filter(&self) -> &EventFilter {
        &self.filter
    }

    /// The next stretch; `None` at the end. After an error the same stretch can be asked for again.
    pub async fn next_batch(&mut self, log: &dyn EventStore) -> Result<Option<ScanBatch>, EventStoreError> {
        if matches!(self.source, ScanSource::Unopened) {
            self.source = self.open(log).await?;
        }
        let events = match &mut self.source {
            ScanSource::Unopened | ScanSource::Ended => return Ok(None),
            ScanSource::All(place) => {
                let events = match self.order {
                    Order::OldestFirst => {
                        log.read_all(place.unwrap_or(Position::START), self.batch_events).await?
                    }
                    Order::NewestFirst => log.read_all_backwards(*place, self.batch_events).await?,
                };
                if let Some(last) = events.last() {
                    *place = Some(last.position);
                }
                events
            }
            ScanSource::Streams(streams) => read_merged(log, streams, self.order, self.batch_events).await?,
        };
        let Some(last) = events.last() else {
            self.source = ScanSource::Ended;
            return Ok(None);
        };
        let reached = last.position;
        let mut looked_at = 0;
        let mut meant = Vec::new();
        for event in events {
            if self.is_past_end(&event) {
                self.source = ScanSource::Ended;
                break;
            }
            looked_at += 1;
            if self.filter.matches(&event) {
                meant.push(event);
            }
        }
        Ok(Some(ScanBatch { events: meant, scanned_events: looked_at, last_scanned: reached }))
    }

    /// Whether nothing from this event on can be meant.
    fn is_past_end(&self, event: &RecordedEvent) -> bool {
        let filter = &self.filter;
        let shifted = |time: Timestamp, by: i64| time.millis().saturating_add(by);
        match self.order {
            Order::OldestFirst => {
                filter.before.is_some_and(|before| event.position >= before)
                    || filter.to.is_some_and(|to| event.recorded_at.millis() > shifted(to, MAX_CLOCK_SKEW_MS))
            }
            Order::NewestFirst => {
                filter.after.is_some_and(|after| event.position <= after)
                    || filter
                        .from
                        .is_some_and(|from| event.recorded_at.millis() < shifted(from, -MAX_CLOCK_SKEW_MS))
            }
        }
    }

    async fn open(&self, log: &dyn EventStore) -> Result<ScanSource, EventStoreError> {
        let filter = &self.filter;
        let (stream, elsewhere) = match (&filter.stream, filter.app, filter.chat) {
            (Some(stream), ..) => (Arc::clone(stream), None),
            // A chat's creation stands in its app's stream.
            (None, Some(app), Some(chat)) => {
                let created = creation_lookup::find_chat_created(log, app, chat).await?;
                (StreamId::Chat(app, chat).to_string().into(), created)
            }
            _ => return self.open_whole_log(log).await.map(ScanSource::All),
        };
        let next = self.open_stream(log, &stream).await?;
        let mut cursors = vec![StreamCursor { name: stream, next, buffer: VecDeque::new() }];
        if let Some(event) = elsewhere {
            cursors.push(StreamCursor {
                name: Arc::clone(&event.stream),
                next: None,
                buffer: [event].into(),
            });
        }
        Ok(ScanSource::Streams(cursors))
    }

    /// Where to begin in the whole log.
    async fn open_whole_log(&self, log: &dyn EventStore) -> Result<Option<Position>, EventStoreError> {
        let filter = &self.filter;
        match self.order {
            Order::OldestFirst => {
                let by_time = match filter.from {
                    Some(from) => seek::position_before_recorded_from(log, from).await?,
                    None => Position::START,
                };
                Ok(Some(by_time.max(filter.after.unwrap_or(Position::START))))
            }
            Order::NewestFirst => Ok(filter.before),
        }
    }

    /// Where to begin in a stream.
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

/// The next events of a few streams, in the order of the log.
async fn read_merged(
    log: &dyn EventStore,
    streams: &mut [StreamCursor],
    order: Order,
    batch_events: usize,
) -> Result<Vec<RecordedEvent>, EventStoreError> {
    let mut events = Vec::new();
    while events.len() < batch_events {
        for stream in streams.iter_mut() {
            // A stream that has been read to here is not read on before what was read of it is used up, and where it
            // stands alone nothing is gained by holding more than it gave at once.
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
    /// Reads on, where there is more.
    async fn fill(&mut self, log: &dyn EventStore, limit: usize) -> Result<(), EventStoreError> {
        let Some(from) = self.next else { return Ok(()) };
        let read =
            StreamRead { stream: Arc::clone(&self.name), start: from, filter: EventTypeFilter::All, limit };
        let events = log.read_stream(read).await?;
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
