//! Traces: the requests of a correlation, and the events that each caused.

use chat_domain::{Actor, Metadata, Position};
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::event_store::{EventStore, EventStoreError};
use serde::Serialize;
use utoipa::ToSchema;

use super::event::AuditedEvent;
use super::filter::EventFilter;
use super::scan::{Order, Scan};
use crate::envelope::{Diagnostic, Report};

/// The maximal number of events of a trace. A trace also ends at [`MAX_PAGE_BYTES`] of payloads and metadata. Both
/// limits bound memory, because a client may use one correlation id for any number of requests.
pub const MAX_TRACED_EVENTS: usize = 1_000;

/// A correlation across streams: its requests, in the order of their first events.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Trace {
    /// The trace id of `traceparent`, or the request's id.
    pub correlation_id: String,
    /// The requests.
    pub requests: Vec<TracedRequest>,
    /// The number of scanned events.
    pub looked_at: u64,
    /// The position after which the trace can continue; `null` if it is complete.
    #[schema(value_type = Option<u64>)]
    pub next: Option<Position>,
}

/// A request and the events that it caused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TracedRequest {
    /// Its id.
    pub request_id: String,
    /// Its command.
    pub command: String,
    /// The actor who sent it.
    #[schema(value_type = Object)]
    pub actor: Actor,
    /// The events, in the order of the log.
    pub events: Vec<AuditedEvent>,
}

/// Traces a correlation among the events that match a filter. Scans about `max_scanned_events` events at most.
pub async fn trace(
    log: &dyn EventStore,
    correlation_id: &str,
    filter: EventFilter,
    max_scanned_events: u64,
) -> Result<Trace, EventStoreError> {
    let filter = EventFilter { correlation_id: Some(correlation_id.to_owned()), ..filter };
    let mut trace =
        Trace { correlation_id: correlation_id.to_owned(), requests: Vec::new(), looked_at: 0, next: None };
    let mut scan = Scan::new(filter, Order::OldestFirst);
    let (mut event_count, mut bytes) = (0, 0);
    while let Some(batch) = scan.next_batch(log).await? {
        trace.looked_at += batch.scanned_events;
        for event in &batch.events {
            bytes += event.data.len() + event.metadata.len();
            if event_count == MAX_TRACED_EVENTS || (bytes > MAX_PAGE_BYTES && event_count > 0) {
                return Ok(trace);
            }
            // Parsing can't fail here, because the filter has already parsed the metadata.
            let Ok(metadata) = serde_json::from_slice::<Metadata>(&event.metadata) else { continue };
            trace.add(metadata, event.into());
            trace.next = Some(event.position);
            event_count += 1;
        }
        if trace.looked_at >= max_scanned_events {
            trace.next = Some(batch.last_scanned);
            return Ok(trace);
        }
    }
    trace.next = None;
    Ok(trace)
}

impl Trace {
    fn add(&mut self, metadata: Metadata, event: AuditedEvent) {
        let request = self.requests.iter_mut().find(|request| request.request_id == metadata.causation_id);
        if let Some(request) = request {
            request.events.push(event);
            return;
        }
        self.requests.push(TracedRequest {
            request_id: metadata.causation_id,
            command: metadata.command,
            actor: metadata.actor,
            events: vec![event],
        });
    }
}

impl Report for Trace {
    fn diagnostics(&self) -> Vec<Diagnostic> {
        let more = self.next.map(|next| {
            Diagnostic::note(format!(
                "there may be more: continue after position {next}, or restrict the time"
            ))
        });
        more.into_iter().collect()
    }
}
