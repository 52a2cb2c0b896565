//! Reading the log event by event.

use std::time::Duration;

use chat_domain::Position;
use chat_infra::event_store::{EventStore, EventStoreError, RecordedEvent};

/// Events that are read at once.
const PAGE: usize = 512;

/// How often a read is tried again where that may help.
const ATTEMPTS: u32 = 5;

/// How long to wait before that, at first.
const PAUSE: Duration = Duration::from_millis(200);

/// A walk from one event of the log to the next.
pub(super) struct Walk<'a> {
    log: &'a dyn EventStore,
    page: std::vec::IntoIter<RecordedEvent>,
    /// How many to read at once: one where a page can't be read, so that what comes before it is.
    size: usize,
    /// The last event that was returned.
    after: Position,
    until: Option<Position>,
}

impl<'a> Walk<'a> {
    /// From the log's start to an event, or to where the log ends.
    pub(super) fn new(log: &'a dyn EventStore, until: Option<Position>) -> Self {
        Self { log, page: Vec::new().into_iter(), size: PAGE, after: Position::START, until }
    }

    /// The next event. Where it fails as [`EventStoreError::Damaged`], it is the event after [`Self::after`] that can't
    /// be read.
    pub(super) async fn next(&mut self) -> Result<Option<RecordedEvent>, EventStoreError> {
        if self.page.len() == 0 {
            self.page = self.read().await?.into_iter();
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

    async fn read(&mut self) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let mut attempts = 0;
        loop {
            match self.log.read_all(self.after, self.size).await {
                Ok(events) => return Ok(events),
                Err(EventStoreError::Damaged(_)) if self.size > 1 => self.size = 1,
                Err(error) if error.retryable() && attempts < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * 2_u32.pow(attempts)).await;
                    attempts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
