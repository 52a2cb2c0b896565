//! Reads the log event by event.

use std::time::Duration;

use chat_domain::Position;
use chat_ports::backoff::Backoff;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};

/// The number of events per read.
const PAGE_EVENTS: usize = 512;

/// The maximal number of retries of a read.
const MAX_RETRIES: u32 = 5;

/// The pause before the first retry.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause before a retry.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// The position of the first appended event in a log with contiguous positions.
const FIRST_POSITION: Position = Position::new(1);

/// An event before the first position can't be read. It was not appended through the event store.
#[derive(Debug, thiserror::Error)]
#[error("an event before the first position of the log can't be read")]
struct EventBeforeStart(#[source] Box<dyn std::error::Error + Send + Sync>);

/// An iteration over the events of the log.
pub(super) struct LogWalk<'a> {
    log: &'a dyn EventStore,
    /// Whether the walk has looked for events before the first position. The event store never appends an event there.
    is_start_checked: bool,
    page: std::vec::IntoIter<RecordedEvent>,
    /// The number of events per read. Set to one after a page with a damaged event, so that the events before the
    /// damaged one are read.
    page_size: usize,
    /// The position of the last returned event.
    last_position: Position,
    until: Option<Position>,
}

impl<'a> LogWalk<'a> {
    /// Creates an iteration from the start of the log up to a position, or to the head.
    pub(super) fn new(log: &'a dyn EventStore, until: Option<Position>) -> Self {
        // If positions are not contiguous, a server assigns them, and no event can be inserted before the first one.
        let is_start_checked = !log.has_contiguous_positions();
        Self {
            log,
            is_start_checked,
            page: Vec::new().into_iter(),
            page_size: PAGE_EVENTS,
            last_position: Position::START,
            until,
        }
    }

    /// Reads the next event. If it fails with [`EventStoreError::Damaged`], the event after
    /// [`Self::last_position`] can't be read.
    pub(super) async fn next_event(&mut self) -> Result<Option<RecordedEvent>, EventStoreError> {
        // The walk ends at `until`. A further read could fail because of a damaged event after it.
        if self.is_start_checked && self.until.is_some_and(|until| self.last_position >= until) {
            return Ok(None);
        }
        if self.page.len() == 0 {
            self.page = self.read_page().await?.into_iter();
        }
        let event = self.page.next().filter(|event| self.until.is_none_or(|until| event.position <= until));
        if let Some(event) = &event {
            self.last_position = event.position;
        }
        Ok(event)
    }

    /// The position of the last returned event; [`Position::START`] if none was returned yet.
    pub(super) fn last_position(&self) -> Position {
        self.last_position
    }

    async fn read_page(&mut self) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let (mut retries, mut backoff) = (0, Backoff::new(FIRST_RETRY_PAUSE, MAX_RETRY_PAUSE));
        loop {
            let read = if self.is_start_checked {
                self.log.read_all(self.last_position, self.page_size).await
            } else {
                // The limit is two events, because only one can be at position 0. A second one has a negative position,
                // and the read fails.
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
                Err(error) if error.is_retryable() && retries < MAX_RETRIES => {
                    tokio::time::sleep(backoff.next_pause()).await;
                    retries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
