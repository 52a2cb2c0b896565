//! Lists events page by page.

use chat_domain::{Event, OperatorAction, Position};
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::event_store::{EventStore, EventStoreError};
use serde::Serialize;
use utoipa::ToSchema;

use super::event::AuditedEvent;
use super::filter::EventFilter;
use super::near_names::suggestion;
use super::scan::{Order, Scan};
use crate::envelope::{Diagnostic, Report};

/// Options of a list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// The filter.
    pub filter: EventFilter,
    /// The order of events.
    pub order: Order,
    /// The maximal number of events on the page. The page ends early at [`MAX_PAGE_BYTES`] of payloads and metadata.
    pub limit: usize,
    /// The approximate maximal number of events to scan for the page, so that a query with a selective filter does not
    /// read the whole log.
    pub max_scanned_events: u64,
}

/// A page of events.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// The events, in the requested order.
    pub events: Vec<AuditedEvent>,
    /// Where the next page begins: before this position if the newest events are first, else after it. `null` on the
    /// last page.
    #[schema(value_type = Option<u64>)]
    pub next: Option<Position>,
    /// The number of scanned events.
    pub looked_at: u64,
    /// Types of the filter that do not exist.
    #[serde(skip)]
    pub unknown_types: Vec<String>,
}

/// Lists events.
pub async fn list(log: &dyn EventStore, request: ListRequest) -> Result<EventPage, EventStoreError> {
    let ListRequest { filter, order, limit, max_scanned_events } = request;
    let unknown_types = filter.unknown_types().map(str::to_owned).collect();
    let mut page = EventPage { events: Vec::new(), next: None, looked_at: 0, unknown_types };
    let mut scan = Scan::new(filter, order).with_batch_events(limit.saturating_add(1).clamp(64, 512));
    let mut bytes = 0;
    while let Some(batch) = scan.next_batch(log).await? {
        page.looked_at += batch.scanned_events;
        for event in &batch.events {
            bytes += event.data.len() + event.metadata.len();
            let is_full = page.events.len() == limit || bytes > MAX_PAGE_BYTES;
            if is_full && !page.events.is_empty() {
                page.next = page.events.last().map(|last| last.position);
                return Ok(page);
            }
            page.events.push(event.into());
        }
        if page.looked_at >= max_scanned_events {
            page.next = Some(batch.last_scanned);
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

/// Returns a warning for each of `unknown_types`.
pub fn unknown_type_diagnostics(unknown_types: &[String]) -> Vec<Diagnostic> {
    let known = || Event::TYPES.iter().chain(OperatorAction::TYPES).copied();
    let warning = |name: &String| {
        Diagnostic::warning(format!("no event type is called {name:?}{}", suggestion(name, known())))
    };
    unknown_types.iter().map(warning).collect()
}
