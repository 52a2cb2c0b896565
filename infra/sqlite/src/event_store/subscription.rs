//! Following the log: what is stored, then what comes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use tokio::sync::watch;

use super::reader::{self, ReaderPool};
use super::recent::Recent;
use chat_ports::event_store::{Batch, EventStoreError, RecordedEvent, Subscription};

/// How often to look for events that another process appended. Those of this process wake the subscription at once.
const POLL: Duration = Duration::from_millis(20);

pub(super) struct SqliteSubscription {
    readers: Arc<ReaderPool>,
    recent: Arc<Recent>,
    head: watch::Receiver<Position>,
    after: Position,
    /// Whether the file may hold what is not known in memory: what another process appended.
    looks: bool,
}

impl SqliteSubscription {
    pub(super) fn new(
        readers: Arc<ReaderPool>,
        recent: Arc<Recent>,
        head: watch::Receiver<Position>,
        after: Position,
    ) -> Self {
        Self { readers, recent, head, after, looks: true }
    }

    async fn read(&self, max: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let after = self.after;
        match self.recent.after(after, max) {
            Some(events) if !self.looks || !events.is_empty() => Ok(events),
            _ => self.readers.run(move |connection| reader::all(connection, after, max)).await,
        }
    }
}

#[async_trait]
impl Subscription for SqliteSubscription {
    async fn next(&mut self, max: usize) -> Result<Batch, EventStoreError> {
        loop {
            // Marked as seen before reading: an append during the read wakes the wait after it.
            self.head.borrow_and_update();
            let events = self.read(max).await?;
            if let Some(last) = events.last() {
                self.after = last.position;
                return Ok(Batch { up_to: self.after, events });
            }
            self.looks = true;
            match tokio::time::timeout(POLL, self.head.changed()).await {
                Ok(Ok(())) => self.looks = false,
                // A sender that is gone leaves the poll, which will fail as the store does.
                Ok(Err(_)) => tokio::time::sleep(POLL).await,
                Err(_) => {}
            }
        }
    }
}
