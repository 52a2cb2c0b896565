//! Shows one event with its neighbours and the events of its correlation.

use std::sync::Arc;

use chat_domain::metadata::EventId;
use chat_domain::{Metadata, Position, Revision, Timestamp, operator_action};
use chat_ports::event_store::{
    EventLookup, EventStore, EventStoreError, ReadStart, RecordedEvent, StreamRead,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::event::{AuditedEvent, EventReference};
use super::filter::EventFilter;
use super::scan::{Order, Scan};
use crate::envelope::{Diagnostic, Report};

/// The time before an event, and after it, in which other events of its correlation are searched for, in milliseconds.
const RELATED_WINDOW_MS: i64 = 600_000;

/// The approximate maximal number of events scanned before the event, and after it.
const MAX_SCANNED_EVENTS: u64 = 10_000;

/// The maximal number of related events listed before the event, and after it.
const MAX_RELATED_EVENTS: usize = 20;

/// The position or id that selects an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSelector {
    /// The event at this position.
    Position(Position),
    /// The event with this id.
    Id(EventId),
}

/// An event, its neighbours, and the events of its correlation.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = EventDetails)]
pub struct ShownEvent {
    /// The event.
    pub event: AuditedEvent,
    /// The event before it in its stream.
    pub previous: Option<EventReference>,
    /// The event after it in its stream.
    pub following: Option<EventReference>,
    /// The id of the request that caused it (`causation_id`); `null` if the metadata can't be read.
    pub request: Option<String>,
    /// The last 20 earlier events of the same correlation, oldest first. Only the ten minutes before this event are
    /// searched, and of these at most about 10,000 events; a trace searches further.
    pub caused_by: Vec<EventReference>,
    /// The first 20 later events of the same correlation, oldest first. Only the ten minutes after this event are
    /// searched, and of these at most about 10,000 events.
    pub caused: Vec<EventReference>,
}

impl EventSelector {
    /// Parses a position (digits) or an event's id (a UUID). `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(position) = Position::parse(text) {
            return Some(Self::Position(position));
        }
        Uuid::try_parse(text).ok().map(|id| Self::Id(EventId::new(id)))
    }
}

/// Finds an event. For an id that the engine does not find by an index, scans at most about `max_scanned_events`
/// events, newest first.
pub async fn find_event(
    log: &dyn EventStore,
    selector: EventSelector,
    max_scanned_events: u64,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let id = match selector {
        EventSelector::Position(position) => return log.event_at(position).await,
        EventSelector::Id(id) => id,
    };
    // An engine with an index of ids ignores `stream` and `since`. Any other engine reads the stream backwards and
    // stops at an event that is older than `since`. That is the first event it reads, because `since` is in the future.
    let lookup =
        EventLookup { id, stream: operator_action::STREAM.into(), since: Timestamp::from_millis(i64::MAX) };
    if let Some(event) = log.find_event(lookup).await? {
        return Ok(Some(event));
    }
    let mut scan = Scan::new(EventFilter::default(), Order::NewestFirst);
    let mut scanned = 0;
    while scanned < max_scanned_events
        && let Some(batch) = scan.next_batch(log).await?
    {
        scanned += batch.scanned_events;
        if let Some(event) = batch.events.into_iter().find(|event| event.id == id) {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// Collects the neighbours of an event, and the events of its correlation.
pub async fn show(log: &dyn EventStore, event: &RecordedEvent) -> Result<ShownEvent, EventStoreError> {
    let previous = match event.revision.get().checked_sub(1) {
        Some(revision) => event_at_revision(log, &event.stream, revision).await?,
        None => None,
    };
    let following = event_at_revision(log, &event.stream, event.revision.get().saturating_add(1)).await?;
    let metadata: Option<Metadata> = serde_json::from_slice(&event.metadata).ok();
    let (mut caused_by, mut caused) = (Vec::new(), Vec::new());
    if let Some(metadata) = metadata.as_ref().filter(|metadata| !metadata.correlation_id.is_empty()) {
        let related = EventFilter {
            correlation_id: Some(metadata.correlation_id.clone()),
            from: Some(Timestamp::from_millis(event.recorded_at.millis().saturating_sub(RELATED_WINDOW_MS))),
            to: Some(Timestamp::from_millis(event.recorded_at.millis().saturating_add(RELATED_WINDOW_MS))),
            ..EventFilter::default()
        };
        let earlier = EventFilter { before: Some(event.position), ..related.clone() };
        caused_by = related_events(log, earlier, Order::NewestFirst).await?;
        caused_by.reverse();
        // The scan begins after the event itself, so it needs no lower bound of time.
        let later = EventFilter { after: Some(event.position), from: None, ..related };
        caused = related_events(log, later, Order::OldestFirst).await?;
    }
    let request = metadata.map(|metadata| metadata.causation_id);
    Ok(ShownEvent { event: event.into(), previous, following, request, caused_by, caused })
}

/// Finds the first events that match a filter.
async fn related_events(
    log: &dyn EventStore,
    filter: EventFilter,
    order: Order,
) -> Result<Vec<EventReference>, EventStoreError> {
    let (mut related, mut scanned) = (Vec::new(), 0);
    let mut scan = Scan::new(filter, order);
    while related.len() < MAX_RELATED_EVENTS
        && scanned < MAX_SCANNED_EVENTS
        && let Some(batch) = scan.next_batch(log).await?
    {
        scanned += batch.scanned_events;
        related.extend(batch.events.iter().map(EventReference::from));
    }
    related.truncate(MAX_RELATED_EVENTS);
    Ok(related)
}

async fn event_at_revision(
    log: &dyn EventStore,
    stream: &Arc<str>,
    revision: u64,
) -> Result<Option<EventReference>, EventStoreError> {
    let start = ReadStart::Forwards(Revision::new(revision));
    let read = StreamRead::all(Arc::clone(stream), start, 1);
    Ok(log.read_stream(read).await?.first().map(EventReference::from))
}

impl Report for ShownEvent {
    fn has_findings(&self) -> bool {
        self.event.problem.is_some()
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let problem = self.event.problem.as_ref();
        problem
            .map(|problem| Diagnostic::warning(format!("the event can't be read: {problem}")))
            .into_iter()
            .collect()
    }
}
