//! Follows the log through a filter.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError, Subscription};

use super::event::AuditedEvent;
use super::filter::EventFilter;
use super::scan::{Order, Scan};

/// The maximal number of events per read of the log.
const BATCH_EVENTS: usize = 512;

/// The pause before a failed read is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Follows the log. Delivers each matching event exactly once, also across outages of the log.
pub struct Tail {
    log: Arc<dyn EventStore>,
    filter: EventFilter,
    /// The position up to which the log has been read.
    up_to: Position,
    subscription: Option<Box<dyn Subscription>>,
}

/// New events of the log.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// The events that match the filter, in the order of the log. May be empty.
    pub events: Vec<AuditedEvent>,
    /// The position up to which the log has been read.
    pub up_to: Position,
}

impl Tail {
    /// Follows the log, beginning with the first event after a position.
    pub fn start_after(log: Arc<dyn EventStore>, filter: EventFilter, after: Position) -> Self {
        Self { log, filter, up_to: after, subscription: None }
    }

    /// Follows the log from its end. Also returns the last `count` matching events before the end, oldest first. Scans
    /// at most about `max_scanned_events` events to find them, newest first.
    pub async fn start_at_end(
        log: Arc<dyn EventStore>,
        filter: EventFilter,
        count: usize,
        max_scanned_events: u64,
    ) -> Result<(Vec<AuditedEvent>, Self), EventStoreError> {
        let head = log.head().await?;
        let (mut last, mut scanned) = (Vec::new(), 0);
        let mut scan =
            Scan::new(filter.clone(), Order::NewestFirst).with_batch_events(count.clamp(16, BATCH_EVENTS));
        while last.len() < count
            && scanned < max_scanned_events
            && let Some(batch) = scan.next_batch(&*log).await?
        {
            scanned += batch.scanned_events;
            // The subscription delivers events after the head.
            let before = batch.events.iter().filter(|event| event.position <= head);
            last.extend(before.map(AuditedEvent::from));
        }
        last.truncate(count);
        last.reverse();
        Ok((last, Self::start_after(log, filter, head)))
    }

    /// The position up to which the log has been read.
    pub fn up_to(&self) -> Position {
        self.up_to
    }

    /// Waits for new events. Continues after outages of the log. Cancel safe.
    pub async fn next_batch(&mut self) -> Result<TailBatch, EventStoreError> {
        loop {
            match self.try_next_batch().await {
                Ok(batch) => return Ok(batch),
                Err(error) if error.is_retryable() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the log is unavailable; retrying"
                    );
                    self.subscription = None;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_next_batch(&mut self) -> Result<TailBatch, EventStoreError> {
        let subscription = match &mut self.subscription {
            Some(subscription) => subscription,
            None => self.subscription.insert(self.log.subscribe(self.up_to).await?),
        };
        let batch = subscription.next(BATCH_EVENTS).await?;
        self.up_to = batch.up_to;
        let matching = batch.events.iter().filter(|event| self.filter.matches(event));
        Ok(TailBatch { events: matching.map(AuditedEvent::from).collect(), up_to: batch.up_to })
    }
}
