//! The catch-up subscription to the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::call_error::CallError;
use super::head_watch::HeadWatch;
use super::server::LogServer;
use chat_ports::event_store::{EventBatch, EventStoreError, RecordedEvent, Subscription};

/// The longest wait for a new head. The subscription reads after the wait even without a new head, so that it reports a
/// server that can't be reached.
const READ_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct PostgresSubscription {
    server: Arc<LogServer>,
    /// Keeps the task running that follows the head.
    _head_watch: Arc<HeadWatch>,
    head: watch::Receiver<Position>,
    /// The position of the last event that was returned; at first, the start of the subscription.
    after: Position,
    /// Events that were read and not returned yet.
    unreturned: VecDeque<RecordedEvent>,
    /// The running read. It goes on when a call of [`Subscription::next`] is cancelled, and the next call waits for it.
    read: Option<JoinHandle<Result<Vec<RecordedEvent>, CallError>>>,
}

impl PostgresSubscription {
    pub(super) fn new(server: Arc<LogServer>, head_watch: Arc<HeadWatch>, after: Position) -> Self {
        let head = head_watch.subscribe();
        Self { server, _head_watch: head_watch, head, after, unreturned: VecDeque::new(), read: None }
    }

    /// Reads the events after the last one that was returned.
    async fn read(&mut self, max: usize) -> Result<(), EventStoreError> {
        let read = self.read.get_or_insert_with(|| {
            // Marks the head as seen before the read begins, so that an append during the read ends the wait that
            // follows.
            self.head.borrow_and_update();
            let (server, after) = (Arc::clone(&self.server), self.after);
            tokio::spawn(async move { server.read_all(after, max).await })
        });
        let events = read.await;
        self.read = None;
        self.unreturned = events.map_err(|error| EventStoreError::Unavailable(error.into()))??.into();
        Ok(())
    }
}

#[async_trait]
impl Subscription for PostgresSubscription {
    async fn next(&mut self, max: usize) -> Result<EventBatch, EventStoreError> {
        loop {
            let count = self.unreturned.len().min(max.max(1));
            let events: Vec<_> = self.unreturned.drain(..count).collect();
            if let Some(last) = events.last() {
                self.after = last.position;
                return Ok(EventBatch { up_to: self.after, events });
            }
            self.read(max.max(1)).await?;
            if self.unreturned.is_empty() {
                // The sender exists as long as `_head_watch`.
                let _ = timeout(READ_INTERVAL, self.head.changed()).await;
            }
        }
    }
}

impl Drop for PostgresSubscription {
    fn drop(&mut self) {
        if let Some(read) = &self.read {
            read.abort();
        }
    }
}
