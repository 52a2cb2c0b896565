//! Reading the log event by event.

use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};

/// Events that are read at once.
const PAGE_EVENTS: usize = 512;

/// How often a read is tried again where that may help.
const MAX_ATTEMPTS: u32 = 5;

/// How long to wait before that, at first.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Where the first event stands that is appended to a log whose positions count events.
const FIRST_POSITION: Position = Position::new(1);

/// Somebody wrote an event where none is ever appended.
#[derive(Debug, thiserror::Error)]
#[error("what stands before the log's first place can't be read")]
struct EventBeforeStart(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A walk from one event of the log to the next.
pub(super) struct LogWalk<'a> {
    log: &'a dyn EventStore,
    /// Whether it is known that nothing stands before the log's first place, where no event ever is that was appended.
    is_start_checked: bool,
    page: std::vec::IntoIter<RecordedEvent>,
    /// How many to read at once: one where a page can't be read, so that what comes before it is.
    page_size: usize,
    /// The last event that was returned.
    after: Position,
    until: Option<Position>,
}

impl<'a> LogWalk<'a> {
    /// From the log's start to an event, or to where the log ends.
    pub(super) fn new(log: &'a dyn EventStore, until: Option<Position>) -> Self {
        // Positions that don't count events are the server's, where nobody can write them by hand.
        let is_start_checked = !log.has_contiguous_positions();
        Self {
            log,
            is_start_checked,
            page: Vec::new().into_iter(),
            page_size: PAGE_EVENTS,
            after: Position::START,
            until,
        }
    }

    /// The next event. Where it fails as [`EventStoreError::Damaged`], it is the event after [`Self::after`] that can't
    /// be read.
    pub(super) async fn next_event(&mut self) -> Result<Option<RecordedEvent>, EventStoreError> {
        if self.page.len() == 0 {
            self.page = self.read_page().await?.into_iter();
        }
        let event = self.page.next().filter(|event| self.until.is_none_or(|until| event.position <= until));
        if let Some(event) = &event {
            self.after = event.position;
        }
        Ok(event)
    }

    /// The last event that was returned.
    pub(super) fn after(&self) -> Position {
        self.after
    }

    async fn read_page(&mut self) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let mut attempts = 0;
        loop {
            let read = if self.is_start_checked {
                self.log.read_all(self.after, self.page_size).await
            } else {
                self.log.read_all_backwards(Some(FIRST_POSITION), 2).await
            };
            match read {
                Ok(events) if !self.is_start_checked && events.is_empty() => self.is_start_checked = true,
                Ok(events) => {
                    self.is_start_checked = true;
                    return Ok(events);
                }
                Err(EventStoreError::Damaged(error)) if !self.is_start_checked => {
                    return Err(EventStoreError::Damaged(EventBeforeStart(error).into()));
                }
                Err(EventStoreError::Damaged(_)) if self.page_size > 1 => self.page_size = 1,
                Err(error) if error.is_retryable() && attempts < MAX_ATTEMPTS => {
                    tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(attempts)).await;
                    attempts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
