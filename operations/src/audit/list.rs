//! Pages of events.

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError};
use serde::Serialize;
use utoipa::ToSchema;

use super::event::AuditedEvent;
use super::filter::EventFilter;
use super::scan::{Order, Scan};
use crate::envelope::{Diagnostic, Report};

/// What to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Which events.
    pub filter: EventFilter,
    /// In which order.
    pub order: Order,
    /// How many at most.
    pub limit: usize,
    /// How many events to look at for that, at most: whoever waits for an answer does not wait for a whole log.
    pub max_scanned_events: u64,
}

/// Some events, in the order asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// The events.
    pub events: Vec<AuditedEvent>,
    /// Where the next page begins: newest first, before this position, and else after it. `null` where nothing follows.
    #[schema(value_type = Option<u64>)]
    pub next: Option<Position>,
    /// How many events of the log were looked at.
    pub looked_at: u64,
    /// Types asked for that this program does not know.
    #[serde(skip)]
    pub unknown_types: Vec<String>,
}

/// Lists events.
pub async fn list(log: &dyn EventStore, request: ListRequest) -> Result<EventPage, EventStoreError> {
    let ListRequest { filter, order, limit, max_scanned_events: look_at_most } = request;
    let unknown_types = filter.unknown_types().map(str::to_owned).collect();
    let mut page = EventPage { events: Vec::new(), next: None, looked_at: 0, unknown_types };
    let mut scan = Scan::new(filter, order).with_batch_events(limit.saturating_add(1).clamp(64, 512));
    while let Some(found) = scan.next_batch(log).await? {
        page.looked_at += found.scanned_events;
        for event in &found.events {
            if page.events.len() == limit {
                page.next = page.events.last().map(|last| last.position);
                return Ok(page);
            }
            page.events.push(event.into());
        }
        if page.looked_at >= look_at_most {
            page.next = Some(found.last_scanned);
            return Ok(page);
        }
    }
    Ok(page)
}

impl Report for EventPage {
    fn diagnostics(&self) -> Vec<Diagnostic> {
        unknown_type_diagnostics(&self.unknown_types)
    }
}

/// Says of types that were asked for and are none.
pub fn unknown_type_diagnostics(types: &[String]) -> Vec<Diagnostic> {
    let note = |name: &String| Diagnostic::warning(format!("no event type is called {name:?}"));
    types.iter().map(note).collect()
}
