//! Following the log: what is stored, then what comes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use tokio::sync::watch;

use super::reader::{self, ReaderPool};
use crate::event_store::{Batch, EventStoreError, Subscription};

/// How often to look for events that another process appended. Those of this process wake the subscription at once.
const POLL: Duration = Duration::from_millis(20);

pub(super) struct SqliteSubscription {
    readers: Arc<ReaderPool>,
    head: watch::Receiver<Position>,
    after: Position,
}

impl SqliteSubscription {
    pub(super) fn new(readers: Arc<ReaderPool>, head: watch::Receiver<Position>, after: Position) -> Self {
        Self { readers, head, after }
    }
}

#[async_trait]
impl Subscription for SqliteSubscription {
    async fn next(&mut self, max: usize) -> Result<Batch, EventStoreError> {
        loop {
            // Marked as seen before reading: an append during the read wakes the wait after it.
            self.head.borrow_and_update();
            let after = self.after;
            let events = self.readers.run(move |connection| reader::all(connection, after, max)).await?;
            if let Some(last) = events.last() {
                self.after = last.position;
                return Ok(Batch { up_to: self.after, events });
            }
            // A sender that is gone leaves the poll, which will fail as the store does.
            if let Ok(Err(_)) = tokio::time::timeout(POLL, self.head.changed()).await {
                tokio::time::sleep(POLL).await;
            }
        }
    }
}
