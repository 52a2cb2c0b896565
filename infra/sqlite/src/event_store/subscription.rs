//! The catch-up subscription to the event log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use tokio::sync::watch;

use super::reader::{self, ReaderPool};
use super::recent_events::RecentEvents;
use chat_ports::event_store::{EventBatch, EventStoreError, RecordedEvent, Subscription};

/// The interval of polling for events of other processes. Events of this process wake the subscription at once.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(super) struct SqliteSubscription {
    readers: Arc<ReaderPool>,
    recent: Arc<RecentEvents>,
    head: watch::Receiver<Position>,
    after: Position,
    /// Whether the file may hold later events than the buffer, such as those of other processes.
    file_may_be_ahead: bool,
}

impl SqliteSubscription {
    pub(super) fn new(
        readers: Arc<ReaderPool>,
        recent: Arc<RecentEvents>,
        head: watch::Receiver<Position>,
        after: Position,
    ) -> Self {
        Self { readers, recent, head, after, file_may_be_ahead: true }
    }

    async fn read_next(&self, max: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let after = self.after;
        match self.recent.read_after(after, max) {
            Some(events) if !self.file_may_be_ahead || !events.is_empty() => Ok(events),
            _ => self.readers.run(move |connection| reader::read_all(connection, after, max)).await,
        }
    }
}

#[async_trait]
impl Subscription for SqliteSubscription {
    async fn next(&mut self, max: usize) -> Result<EventBatch, EventStoreError> {
        loop {
            // The head is marked as seen before the read, so that an append during the read ends the wait that follows.
            self.head.borrow_and_update();
            let events = self.read_next(max).await?;
            if let Some(last) = events.last() {
                self.after = last.position;
                return Ok(EventBatch { up_to: self.after, events });
            }
            self.file_may_be_ahead = true;
            match tokio::time::timeout(POLL_INTERVAL, self.head.changed()).await {
                Ok(Ok(())) => self.file_may_be_ahead = false,
                // Without a writer thread, the subscription can only poll.
                Ok(Err(_)) => tokio::time::sleep(POLL_INTERVAL).await,
                Err(_) => {}
            }
        }
    }
}
