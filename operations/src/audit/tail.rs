//! Following the log through a filter.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError, Subscription};

use super::event::AuditedEvent;
use super::filter::EventFilter;
use super::scan::{Order, Scan};

/// Events taken from the log at once.
const BATCH_EVENTS: usize = 512;

/// Between two attempts to reach a log that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A log that is followed. Nothing is left out and nothing comes twice, also where the log is away for a while.
pub struct Tail {
    log: Arc<dyn EventStore>,
    filter: EventFilter,
    up_to: Position,
    subscription: Option<Box<dyn Subscription>>,
}

/// What has come.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// The events that the filter fits, in the order of the log. May be none.
    pub events: Vec<AuditedEvent>,
    /// Everything up to here has been looked at.
    pub up_to: Position,
}

impl Tail {
    /// Follows the log from after a position.
    pub fn start_after(log: Arc<dyn EventStore>, filter: EventFilter, after: Position) -> Self {
        Self { log, filter, up_to: after, subscription: None }
    }

    /// Follows the log from its end; also returns the last `count` events before that, oldest first,
    /// as far as they are among the newest `look_at_most`.
    pub async fn start_at_end(
        log: Arc<dyn EventStore>,
        filter: EventFilter,
        count: usize,
        max_scanned_events: u64,
    ) -> Result<(Vec<AuditedEvent>, Self), EventStoreError> {
        let head = log.head().await?;
        let (mut last, mut looked_at) = (Vec::new(), 0);
        let mut scan =
            Scan::new(filter.clone(), Order::NewestFirst).with_batch_events(count.clamp(16, BATCH_EVENTS));
        while last.len() < count
            && looked_at < max_scanned_events
            && let Some(found) = scan.next_batch(&*log).await?
        {
            looked_at += found.scanned_events;
            // What came since is for the subscription to bring.
            let before = found.events.iter().filter(|event| event.position <= head);
            last.extend(before.map(AuditedEvent::from));
        }
        last.truncate(count);
        last.reverse();
        Ok((last, Self::start_after(log, filter, head)))
    }

    /// Up to where the log has been looked at.
    pub fn up_to(&self) -> Position {
        self.up_to
    }

    /// Waits for what comes. A log that is away is waited for; dropping the future loses nothing.
    pub async fn next_batch(&mut self) -> Result<TailBatch, EventStoreError> {
        loop {
            match self.try_next_batch().await {
                Ok(news) => return Ok(news),
                Err(error) if error.is_retryable() => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the log is away");
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
        let meant = batch.events.iter().filter(|event| self.filter.matches(event));
        Ok(TailBatch { events: meant.map(AuditedEvent::from).collect(), up_to: batch.up_to })
    }
}
