//! One event, with what surrounds it.

use std::sync::Arc;

use chat_domain::metadata::EventId;
use chat_domain::{Metadata, Position, Revision, Timestamp, operator_action};
use chat_ports::event_store::{
    EventLookup, EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::event::{AuditedEvent, EventReference};
use super::filter::EventFilter;
use super::scan::{Order, Scan};
use crate::envelope::{Diagnostic, Report};

/// How far around an event others of its request are looked for, in milliseconds.
const RELATED_WINDOW_MS: i64 = 600_000;

/// How many events on either side are looked at for that.
const MAX_SCANNED_EVENTS: u64 = 10_000;

/// How many of them are named on either side.
const MAX_RELATED_EVENTS: usize = 20;

/// Which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSelector {
    /// The one at this position.
    Position(Position),
    /// The one of this id.
    Id(EventId),
}

/// An event and what surrounds it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShownEvent {
    /// The event.
    pub event: AuditedEvent,
    /// The event before it in its stream.
    pub previous: Option<EventReference>,
    /// The event after it in its stream.
    pub following: Option<EventReference>,
    /// The request that carried the command, its `causation_id`; `null` where the metadata can't be read.
    pub request: Option<String>,
    /// Earlier events of the same correlation, oldest first: what led here. Looked for among 10,000 events and ten
    /// minutes before it; a trace looks everywhere.
    pub caused_by: Vec<EventReference>,
    /// Later events of the same correlation, oldest first: what it led to, looked for as far.
    pub caused: Vec<EventReference>,
}

impl EventSelector {
    /// Reads a position (digits) or an event's id (a UUID). `None` where it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit()) && text.len() <= 20 {
            return text.parse().ok().map(|position| Self::Position(Position::new(position)));
        }
        Uuid::try_parse(text).ok().map(|id| Self::Id(EventId::new(id)))
    }
}

/// Finds an event; `None` where there is none. By id, where the engine can't find ids, at most `look_at_most` events are
/// looked at, the newest first.
pub async fn find_event(
    log: &dyn EventStore,
    selector: EventSelector,
    max_scanned_events: u64,
) -> Result<Option<RecordedEvent>, EventStoreError> {
    let id = match selector {
        EventSelector::Position(position) => return log.event_at(position).await,
        EventSelector::Id(id) => id,
    };
    // Engines that find ids by themselves do so whatever the stream; to others there is nothing to read of the future.
    let search =
        EventLookup { id, stream: operator_action::STREAM.into(), since: Timestamp::from_millis(i64::MAX) };
    if let Some(event) = log.find_event(search).await? {
        return Ok(Some(event));
    }
    let mut scan = Scan::new(EventFilter::default(), Order::NewestFirst);
    let mut looked_at = 0;
    while looked_at < max_scanned_events
        && let Some(found) = scan.next_batch(log).await?
    {
        looked_at += found.scanned_events;
        if let Some(event) = found.events.into_iter().find(|event| event.id == id) {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// Shows an event that was found.
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
        // The times say where such events end; where to begin is known.
        let later = EventFilter { after: Some(event.position), from: None, ..related };
        caused = related_events(log, later, Order::OldestFirst).await?;
    }
    let request = metadata.map(|metadata| metadata.causation_id);
    Ok(ShownEvent { event: event.into(), previous, following, request, caused_by, caused })
}

/// The first few that are meant.
async fn related_events(
    log: &dyn EventStore,
    filter: EventFilter,
    order: Order,
) -> Result<Vec<EventReference>, EventStoreError> {
    let (mut named, mut looked_at) = (Vec::new(), 0);
    let mut scan = Scan::new(filter, order);
    while named.len() < MAX_RELATED_EVENTS
        && looked_at < MAX_SCANNED_EVENTS
        && let Some(found) = scan.next_batch(log).await?
    {
        looked_at += found.scanned_events;
        named.extend(found.events.iter().map(EventReference::from));
    }
    named.truncate(MAX_RELATED_EVENTS);
    Ok(named)
}

async fn event_at_revision(
    log: &dyn EventStore,
    stream: &Arc<str>,
    revision: u64,
) -> Result<Option<EventReference>, EventStoreError> {
    let from = ReadStart::Forwards(Revision::new(revision));
    let read = StreamRead { stream: Arc::clone(stream), start: from, filter: EventTypeFilter::All, limit: 1 };
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
