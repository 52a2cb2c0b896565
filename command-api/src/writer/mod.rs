//! The writer: decides commands and appends their events.
//!
//! Commands that arrive together form a batch: one call to the counters and one durable append, for any number of
//! streams. A stream's state is folded from the log once and kept in a bounded cache. A stream that is not in the cache is
//! loaded concurrently with the batches, so that commands on other streams do not wait for it.
//!
//! Several writers may share a log, in one process or in many. Each append expects the revision that the decision was based
//! on. After a conflict, the writer loads the stream again and repeats the decision.

mod batch;
mod command_request;
mod config;
mod load_state;
mod refused_streams;
mod stream_state;
mod writer_health;
mod writer_task;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chat_domain::{Metadata, Position};
use chat_ports::event_store::EventStore;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::command::{Command, CommandError, CommandOutcome};
use crate::idempotency::{AgeClock, ReservedKey};
use command_request::CommandRequest;
pub use config::WriterConfig;
use refused_streams::RefusedStreams;
use writer_health::WriterHealth;
use writer_task::Writer;

/// A handle that sends commands to the writer task. Cheap to clone.
#[derive(Clone)]
pub struct WriterHandle {
    requests: mpsc::UnboundedSender<CommandRequest>,
    permits: Arc<Semaphore>,
    observed_position: Arc<AtomicU64>,
    event_store: Arc<dyn EventStore>,
    age_clock: AgeClock,
    refused_streams: Arc<RefusedStreams>,
    health: WriterHealth,
}

/// Reads the last position that a writer has seen in the log, in its own appends and in the states that it decided on. All
/// events up to it are durable.
#[derive(Clone, Debug)]
pub struct PositionReader(Arc<AtomicU64>);

impl PositionReader {
    /// The position.
    pub fn position(&self) -> Position {
        Position::new(self.0.load(Ordering::Acquire))
    }
}

/// The writer task ended while handles still exist.
#[derive(Debug, Error)]
#[error("the writer has stopped")]
struct WriterStopped;

impl WriterHandle {
    /// Starts a writer task. It ends once the last handle is dropped and every command is answered. An earlier end is a
    /// defect, after which the process should stop.
    pub fn spawn(config: WriterConfig) -> (Self, JoinHandle<()>) {
        // The semaphore, not the channel, is the bound: it also counts the commands that the writer has received.
        let (requests, queue) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(config.queue_capacity));
        let observed_position = Arc::new(AtomicU64::new(config.head.get()));
        let (event_store, age_clock) = (Arc::clone(&config.event_store), AgeClock::start(config.clock));
        let refused_streams = RefusedStreams::spawn(Arc::clone(&config.event_store));
        let health = WriterHealth::spawn(&config);
        let writer = Writer::new(
            config,
            age_clock,
            Arc::clone(&observed_position),
            Arc::clone(&refused_streams),
            health.clone(),
        );
        let handle =
            Self { requests, permits, observed_position, event_store, age_clock, refused_streams, health };
        (handle, tokio::spawn(writer.run(queue)))
    }

    /// The log that the writer appends to.
    pub(crate) fn event_store(&self) -> &Arc<dyn EventStore> {
        &self.event_store
    }

    /// The clock that measures the age of events.
    pub(crate) fn age_clock(&self) -> AgeClock {
        self.age_clock
    }

    /// Acquires a permit for one unanswered command.
    pub(crate) fn try_acquire_permit(&self) -> Result<OwnedSemaphorePermit, CommandError> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| CommandError::Overloaded)
    }

    /// Sends a command to the writer and waits for its outcome.
    pub(crate) async fn submit(
        &self,
        command: Command,
        metadata: &Metadata,
        reserved_key: Option<ReservedKey>,
        permit: OwnedSemaphorePermit,
    ) -> Result<CommandOutcome, CommandError> {
        let metadata =
            serde_json::to_string(metadata).map_err(|error| CommandError::Internal(Arc::new(error)))?;
        let (reply_to, reply) = oneshot::channel();
        let request = CommandRequest {
            estimated_bytes: command.payload_bytes() + metadata.len(),
            command,
            metadata: metadata.into(),
            reserved_key,
            reply_to,
            enqueued: Instant::now(),
            _permit: permit,
        };
        let stopped = || CommandError::Internal(Arc::new(WriterStopped));
        self.requests.send(request).map_err(|_| stopped())?;
        reply.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The last position that this writer has seen in the log, in its own appends and in the states that it decided on.
    /// A reader at this position sees the effects of every command that this writer has executed.
    pub fn observed_position(&self) -> Position {
        Position::new(self.observed_position.load(Ordering::Acquire))
    }

    /// The reason why the last append or the last reservation of numbers failed, if one of them did.
    pub(crate) fn write_failure(&self) -> Option<String> {
        self.health.appends.failure().or_else(|| self.health.reservations.failure())
    }

    /// The positions of unreadable events because of which commands are refused, up to 1,000 of them.
    pub fn refused_positions(&self) -> Vec<Position> {
        self.refused_streams.positions()
    }

    /// Rechecks the streams that refused commands: loads each, and forgets those that can be read. The writer also does
    /// this every five seconds.
    pub async fn recheck_refused_streams(&self) {
        self.refused_streams.recheck().await;
    }

    /// A reader of the [`Self::observed_position()`]. It does not keep the writer running.
    pub fn position_reader(&self) -> PositionReader {
        PositionReader(Arc::clone(&self.observed_position))
    }

    /// The number of further commands that the queue accepts.
    pub fn available_capacity(&self) -> usize {
        self.permits.available_permits()
    }
}
