//! Where a replay's events come from.

use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::{EventBatch, EventStore, EventStoreError, RecordedEvent, Subscription};

use super::StatusCallback;

/// Events that are taken at once.
const PAGE_EVENTS: usize = 512;

/// The first pause before a log is asked again that did not answer, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How often it is asked again where it is only replayed to its end.
const MAX_ATTEMPTS: u32 = 8;

/// What comes next.
pub(super) struct Page {
    pub(super) events: Vec<RecordedEvent>,
    /// Everything up to here has come.
    pub(super) up_to: Position,
    /// Whether it was the last.
    pub(super) last: bool,
}

/// The log from some position on, to its end or for good.
pub(super) struct EventSource<'a> {
    log: &'a dyn EventStore,
    on_status: StatusCallback<'a>,
    after: Position,
    end: Option<Position>,
    /// Follows the log; opened when it is needed.
    subscription: Option<Box<dyn Subscription>>,
    follow: bool,
    attempts: u32,
}

impl<'a> EventSource<'a> {
    /// From after a position up to `end`, and on beyond the log's end where it is to `follow`.
    pub(super) fn new(
        log: &'a dyn EventStore,
        after: Position,
        end: Option<Position>,
        follow: bool,
        on_status: StatusCallback<'a>,
    ) -> Self {
        Self { log, on_status, after, end, subscription: None, follow, attempts: 0 }
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    pub(super) async fn next_page(&mut self) -> Result<Page, EventStoreError> {
        loop {
            match self.read_page().await {
                Ok(page) => {
                    self.attempts = 0;
                    self.after = page.up_to;
                    return Ok(page);
                }
                Err(error) if error.is_retryable() && (self.follow || self.attempts < MAX_ATTEMPTS) => {
                    // What follows may be left behind by whoever it follows.
                    self.subscription = None;
                    let pause = RETRY_PAUSES.0.saturating_mul(1 << self.attempts.min(16)).min(RETRY_PAUSES.1);
                    self.attempts += 1;
                    (self.on_status)(&format!("{error}; trying again"));
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_page(&mut self) -> Result<Page, EventStoreError> {
        let after = self.after;
        let beyond = |position| self.end.is_some_and(|end| position >= end);
        if beyond(after) {
            return Ok(Page { events: Vec::new(), up_to: after, last: true });
        }
        let (mut events, up_to, over) = if self.follow {
            if self.subscription.is_none() {
                self.subscription = Some(self.log.subscribe(after).await?);
            }
            let Some(subscription) = &mut self.subscription else {
                return Ok(Page { events: Vec::new(), up_to: after, last: false });
            };
            let EventBatch { events, up_to } = subscription.next(PAGE_EVENTS).await?;
            (events, up_to, false)
        } else {
            let events = self.log.read_all(after, PAGE_EVENTS).await?;
            let up_to = events.last().map(|last| last.position);
            (events, up_to.or(self.end).unwrap_or(after), up_to.is_none())
        };
        let last = over || beyond(up_to);
        if let Some(end) = self.end {
            events.retain(|event| event.position <= end);
            return Ok(Page { events, up_to: up_to.min(end), last });
        }
        Ok(Page { events, up_to, last })
    }
}
