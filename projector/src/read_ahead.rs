//! A read-ahead buffer that gathers events into batches: large under a backlog, small for low latency.
//!
//! A task reads ahead while a batch is applied and during the pause after it. The events that arrive meanwhile form the
//! next batch. An event that arrives later is returned at once.

use std::mem;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::batch_pacing::BatchPacing;
use chat_ports::event_store::{EventBatch, EventStoreError, RecordedEvent, Subscription};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::status::ProjectorState;

/// The largest number of chunks that are read ahead. That many chunks of the largest size are half of the read model's
/// largest batch.
const MAX_CHUNKS_AHEAD: usize = 32;
/// The largest chunk, in events.
const MAX_CHUNK_EVENTS: usize = 512;
/// The smallest chunk, in events.
const MIN_CHUNK_EVENTS: usize = 16;
/// The approximate size of a chunk: the larger the events, the fewer are read at once.
const TARGET_CHUNK_BYTES: usize = 1 << 20;
/// The approximate memory of an event beside its payload and metadata.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// The read-ahead buffer of one subscription. Dropping it stops the reading task.
pub(crate) struct ReadAhead {
    chunks: mpsc::Receiver<Result<EventBatch, EventStoreError>>,
    reader_task: JoinHandle<()>,
    pacing: BatchPacing,
    /// The end of the pause after the last batch. Events are gathered until then.
    rest_until: Instant,
    /// The events that were received and not returned yet.
    pending: EventBatch,
    pending_bytes: usize,
    /// The end of the last returned batch.
    returned_up_to: Position,
    /// The failure that ended the reading. It is returned after the pending events.
    error: Option<EventStoreError>,
}

impl ReadAhead {
    /// Starts reading from a subscription that starts after `position`.
    pub(crate) fn new(subscription: Box<dyn Subscription>, position: Position, pacing: BatchPacing) -> Self {
        let (sender, chunks) = mpsc::channel(MAX_CHUNKS_AHEAD);
        Self {
            chunks,
            reader_task: tokio::spawn(read_chunks(subscription, sender)),
            pacing,
            rest_until: Instant::now(),
            pending: EventBatch { events: Vec::new(), up_to: position },
            pending_bytes: 0,
            returned_up_to: position,
            error: None,
        }
    }

    /// Waits for events, and then until the pause ends or the batch is full. Returns the events that have arrived.
    /// There may be none, if only the position has moved. Cancel-safe: dropping the future loses no events.
    pub(crate) async fn next_batch(&mut self) -> Result<EventBatch, EventStoreError> {
        while !self.is_full() && self.error.is_none() {
            let chunk = match self.chunks.try_recv() {
                Ok(chunk) => Some(chunk),
                Err(_) if self.is_empty() => self.chunks.recv().await,
                Err(_) => match timeout_at(self.rest_until, self.chunks.recv()).await {
                    Ok(chunk) => chunk,
                    Err(_) => break,
                },
            };
            match chunk {
                Some(Ok(chunk)) => self.push_chunk(chunk),
                Some(Err(error)) => self.error = Some(error),
                None => self.error = Some(EventStoreError::Unavailable("the subscription ended".into())),
            }
        }
        if self.is_empty()
            && let Some(error) = self.error.take()
        {
            return Err(error);
        }
        self.pending_bytes = 0;
        self.returned_up_to = self.pending.up_to;
        Ok(EventBatch { events: mem::take(&mut self.pending.events), up_to: self.pending.up_to })
    }

    /// Returns whether more events have arrived.
    pub(crate) fn has_more(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// The shortest pause after a batch, once the projector has caught up.
    pub(crate) fn min_live_rest(&self) -> Duration {
        self.pacing.min_live_rest
    }

    /// Begins the pause after a batch that took `apply_time` to apply and left the projector in `state`.
    pub(crate) fn rest(&mut self, apply_time: Duration, state: ProjectorState) {
        let BatchPacing { rest_factor, max_rest, min_live_rest, .. } = self.pacing;
        let mut rest = apply_time.mul_f64(rest_factor).min(max_rest);
        if state == ProjectorState::Live {
            rest = rest.max(min_live_rest);
        }
        self.rest_until = Instant::now() + rest;
    }

    fn is_empty(&self) -> bool {
        self.pending.events.is_empty() && self.pending.up_to == self.returned_up_to
    }

    fn is_full(&self) -> bool {
        self.pending.events.len() >= self.pacing.max_events || self.pending_bytes >= self.pacing.max_bytes
    }

    fn push_chunk(&mut self, chunk: EventBatch) {
        self.pending_bytes += chunk.events.iter().map(event_size).sum::<usize>();
        self.pending.up_to = chunk.up_to;
        if self.pending.events.is_empty() {
            self.pending.events = chunk.events;
        } else {
            self.pending.events.extend(chunk.events);
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.reader_task.abort();
    }
}

async fn read_chunks(
    mut subscription: Box<dyn Subscription>,
    chunks: mpsc::Sender<Result<EventBatch, EventStoreError>>,
) {
    let mut mean_size = EVENT_OVERHEAD_BYTES;
    loop {
        let chunk = subscription
            .next((TARGET_CHUNK_BYTES / mean_size).clamp(MIN_CHUNK_EVENTS, MAX_CHUNK_EVENTS))
            .await;
        let is_error = chunk.is_err();
        if let Ok(EventBatch { events, .. }) = &chunk
            && !events.is_empty()
        {
            mean_size =
                mean_size.midpoint(events.iter().map(event_size).sum::<usize>() / events.len()).max(1);
        }
        if chunks.send(chunk).await.is_err() || is_error {
            return;
        }
    }
}

fn event_size(event: &RecordedEvent) -> usize {
    EVENT_OVERHEAD_BYTES + event.data.len() + event.metadata.len()
}
