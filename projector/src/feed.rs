//! Events from the log, gathered into stretches: as large as the backlog allows, as small as latency wants.
//!
//! A task of its own reads ahead while a stretch is applied. What has come by then makes the next stretch: a lone event
//! goes at once, a backlog goes in bulk.

use std::mem;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::{Batch, EventStoreError, RecordedEvent, Subscription};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::projection::Pace;

/// Chunks that are read ahead: half of the longest stretch of the read model.
const READ_AHEAD: usize = 32;
/// The largest chunk, in events.
const CHUNK: usize = 512;
/// The smallest chunk, in events.
const SMALL_CHUNK: usize = 16;
/// About how many bytes a chunk is to have: where events are large, fewer are asked for.
const CHUNK_BYTES: usize = 1 << 20;
/// What an event takes beside its payload and metadata, about.
const EVENT_BYTES: usize = 256;

/// The feed of one subscription. Ends its reader when dropped.
pub(crate) struct Feed {
    chunks: mpsc::Receiver<Result<Batch, EventStoreError>>,
    reader: JoinHandle<()>,
    pace: Pace,
    /// Until when events are gathered even if there are none.
    rests_until: Instant,
    gathered: Batch,
    bytes: usize,
    /// Where the last returned stretch ended.
    returned: Position,
    failed: Option<EventStoreError>,
}

impl Feed {
    /// Feeds from a subscription that starts after `position`.
    pub(crate) fn new(subscription: Box<dyn Subscription>, position: Position, pace: Pace) -> Self {
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        Self {
            chunks,
            reader: tokio::spawn(read(subscription, sender)),
            pace,
            rests_until: Instant::now(),
            gathered: Batch { events: Vec::new(), up_to: position },
            bytes: 0,
            returned: position,
            failed: None,
        }
    }

    /// Waits for events, and returns what is there. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Batch, EventStoreError> {
        while !self.is_enough() && self.failed.is_none() {
            let chunk = match self.chunks.try_recv() {
                Ok(chunk) => Some(chunk),
                Err(_) if self.is_empty() => self.chunks.recv().await,
                Err(_) => match timeout_at(self.rests_until, self.chunks.recv()).await {
                    Ok(chunk) => chunk,
                    Err(_) => break,
                },
            };
            match chunk {
                Some(Ok(chunk)) => self.gather(chunk),
                Some(Err(error)) => self.failed = Some(error),
                None => self.failed = Some(EventStoreError::Unavailable("the subscription ended".into())),
            }
        }
        if self.is_empty()
            && let Some(error) = self.failed.take()
        {
            return Err(error);
        }
        self.bytes = 0;
        self.returned = self.gathered.up_to;
        Ok(Batch { events: mem::take(&mut self.gathered.events), up_to: self.gathered.up_to })
    }

    /// Whether there is more to be had at once.
    pub(crate) fn has_more(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Tells how long the last stretch took to apply.
    pub(crate) fn applied_in(&mut self, took: Duration) {
        self.rests_until = Instant::now() + took.mul_f64(self.pace.rest).min(self.pace.max_rest);
    }

    fn is_empty(&self) -> bool {
        self.gathered.events.is_empty() && self.gathered.up_to == self.returned
    }

    fn is_enough(&self) -> bool {
        self.gathered.events.len() >= self.pace.max_events || self.bytes >= self.pace.max_bytes
    }

    fn gather(&mut self, chunk: Batch) {
        self.bytes += chunk.events.iter().map(size).sum::<usize>();
        self.gathered.up_to = chunk.up_to;
        if self.gathered.events.is_empty() {
            self.gathered.events = chunk.events;
        } else {
            self.gathered.events.extend(chunk.events);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut subscription: Box<dyn Subscription>, chunks: mpsc::Sender<Result<Batch, EventStoreError>>) {
    let mut mean = EVENT_BYTES;
    loop {
        let chunk = subscription.next((CHUNK_BYTES / mean).clamp(SMALL_CHUNK, CHUNK)).await;
        let failed = chunk.is_err();
        if let Ok(Batch { events, .. }) = &chunk
            && !events.is_empty()
        {
            mean = mean.midpoint(events.iter().map(size).sum::<usize>() / events.len()).max(1);
        }
        if chunks.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

fn size(event: &RecordedEvent) -> usize {
    EVENT_BYTES + event.data.len() + event.metadata.len()
}
