//! The event source of a replay: reads the log page by page, with retries.

use std::time::Duration;

use chat_domain::Position;
use chat_ports::backoff::Backoff;
use chat_ports::error_chain;
use chat_ports::event_store::{EventBatch, EventStore, EventStoreError, RecordedEvent, Subscription};

use super::stop_signal::StatusCallback;

/// The maximal number of events per read.
const PAGE_EVENTS: usize = 512;

/// The pause before the first retry of a failed read.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause before a retry.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// The maximal number of retries of a read if the replay does not follow the log.
const MAX_RETRIES: u32 = 8;

/// Consecutive events of the log.
pub(super) struct Page {
    pub(super) events: Vec<RecordedEvent>,
    /// The position up to which the log has been read.
    pub(super) up_to: Position,
    /// Whether this is the last page.
    pub(super) is_last: bool,
}

/// Reads the log after a position, page by page, up to an end if there is one.
pub(super) struct EventSource<'a> {
    log: &'a dyn EventStore,
    on_status: StatusCallback<'a>,
    after: Position,
    end: Option<Position>,
    /// Opened at the first page of a replay that follows the log, and again after an error.
    subscription: Option<Box<dyn Subscription>>,
    follow: bool,
    backoff: Backoff,
    retries: u32,
}

impl<'a> EventSource<'a> {
    /// Creates a source of the events after a position, up to `end`. With `follow`, the source waits for new events at
    /// the head.
    pub(super) fn new(
        log: &'a dyn EventStore,
        after: Position,
        end: Option<Position>,
        follow: bool,
        on_status: StatusCallback<'a>,
    ) -> Self {
        let backoff = Backoff::new(FIRST_RETRY_PAUSE, MAX_RETRY_PAUSE);
        Self { log, on_status, after, end, subscription: None, follow, backoff, retries: 0 }
    }

    /// Returns the next page, and waits for it if necessary. Cancel safe.
    pub(super) async fn next_page(&mut self) -> Result<Page, EventStoreError> {
        loop {
            match self.read_page().await {
                Ok(page) => {
                    self.backoff.reset();
                    self.retries = 0;
                    self.after = page.up_to;
                    return Ok(page);
                }
                Err(error) if error.is_retryable() && (self.follow || self.retries < MAX_RETRIES) => {
                    // A subscription may be unusable after an error.
                    self.subscription = None;
                    self.retries += 1;
                    (self.on_status)(&format!("{}; retrying", error_chain(&error)));
                    tokio::time::sleep(self.backoff.next_pause()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_page(&mut self) -> Result<Page, EventStoreError> {
        let after = self.after;
        let is_end_reached = |position| self.end.is_some_and(|end| position >= end);
        if is_end_reached(after) {
            return Ok(Page { events: Vec::new(), up_to: after, is_last: true });
        }
        let (mut events, up_to, is_exhausted) = if self.follow {
            if self.subscription.is_none() {
                self.subscription = Some(self.log.subscribe(after).await?);
            }
            let Some(subscription) = &mut self.subscription else {
                return Ok(Page { events: Vec::new(), up_to: after, is_last: false });
            };
            let EventBatch { events, up_to } = subscription.next(PAGE_EVENTS).await?;
            (events, up_to, false)
        } else {
            let events = self.log.read_all(after, PAGE_EVENTS).await?;
            let up_to = events.last().map(|last| last.position);
            (events, up_to.or(self.end).unwrap_or(after), up_to.is_none())
        };
        let is_last = is_exhausted || is_end_reached(up_to);
        if let Some(end) = self.end {
            events.retain(|event| event.position <= end);
            return Ok(Page { events, up_to: up_to.min(end), is_last });
        }
        Ok(Page { events, up_to, is_last })
    }
}
