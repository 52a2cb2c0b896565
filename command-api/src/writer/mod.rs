//! The writer: decides commands and appends their events.
//!
//! Commands that arrive together form a batch: one round trip to the counters, one durable append, whatever number of
//! streams. What a stream's decisions need is folded from the log once and remembered in a bounded cache; a stream that
//! is not remembered is loaded beside the batches, so that nobody waits for somebody else's stream.
//!
//! Several writers may share a log, in one process or in many. Each append expects its stream to end where the decision
//! was made; a writer that was wrong about that loads the stream again and decides anew, so a client notices nothing.
//!
//! The event of a command with an idempotency key is appended once, however often and wherever the command is sent
//! ([`crate::idempotency`]): `keyed` says when its event must be looked for first, `lookup` does so.

mod batch;
mod existing_event;
mod lease_timer;
mod load_state;
mod queue;
mod reserved_key;
mod stream_state;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chat_domain::{Metadata, Position, Timestamp};
use chat_ports::counters::Counters;
use chat_ports::event_store::EventStore;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::command::{AppendedEvent, Command, CommandError, CommandOutcome, ExecutionKind};
pub(crate) use existing_event::{ExistingEvent, ExistingEventQuery};
pub(crate) use lease_timer::{ClockReading, LeaseTimer};
use queue::{CommandRequest, Writer};
pub(crate) use reserved_key::{ReservedKey, replayed_outcome};

/// What a writer works with.
#[derive(Clone)]
pub struct WriterConfig {
    /// The log.
    pub event_store: Arc<dyn EventStore>,
    /// Who hands out numbers.
    pub counters: Arc<dyn Counters>,
    /// The time that events are stamped with.
    pub clock: fn() -> Timestamp,
    /// Commands that may wait; one more is answered [`CommandError::Overloaded`].
    pub queue_capacity: usize,
    /// Bytes of remembered stream states.
    pub cache_bytes: u64,
    /// The end of the log when the writer starts.
    pub head: Position,
}

impl WriterConfig {
    /// Commands that may wait, where nothing else is asked for: at 10,000 a second the last one waits 0.4 s.
    pub const DEFAULT_QUEUE_CAPACITY: usize = 4_096;
    /// Bytes of remembered stream states, where nothing else is asked for: some 150,000 streams.
    pub const DEFAULT_CACHE_BYTES: u64 = 32 << 20;
}

/// Takes commands to the writer. Cheap to clone; the writer ends when the last clone is gone and all is answered.
#[derive(Clone)]
pub struct WriterHandle {
    requests: mpsc::UnboundedSender<CommandRequest>,
    permits: Arc<Semaphore>,
    observed_position: Arc<AtomicU64>,
    event_store: Arc<dyn EventStore>,
    clock: fn() -> Timestamp,
}

/// The writer's task has ended although commands may still come.
#[derive(Debug, Error)]
#[error("the writer has stopped")]
struct WriterStopped;

impl WriterHandle {
    /// Starts a writer. The task ends after the last handler was dropped and every command answered; it ending before
    /// is a defect, after which the process should not go on.
    pub fn spawn(config: WriterConfig) -> (Self, JoinHandle<()>) {
        // The semaphore bounds the channel, and what the writer has taken from it, together.
        let (jobs, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(config.queue_capacity));
        let seen = Arc::new(AtomicU64::new(config.head.get()));
        let (event_store, clock) = (Arc::clone(&config.event_store), config.clock);
        let writer = Writer::new(config, Arc::clone(&seen));
        (
            Self { requests: jobs, permits: room, observed_position: seen, event_store, clock },
            tokio::spawn(writer.run(queue)),
        )
    }

    /// The log that the writer appends to.
    pub(crate) fn event_store(&self) -> &Arc<dyn EventStore> {
        &self.event_store
    }

    /// The time that events are stamped with.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Carries a command out: when it returns `Ok`, the event is durable. `metadata` is recorded with the event.
    ///
    /// The command is carried out even where the future is dropped.
    pub async fn execute(
        &self,
        command: Command,
        metadata: &Metadata,
    ) -> Result<AppendedEvent, CommandError> {
        let name = command.name();
        let carried = match self.try_acquire_permit() {
            Ok(room) => self.submit(command, metadata, None, room).await,
            Err(overloaded) => Err(overloaded),
        };
        record_command_metric(name, &carried);
        carried.map(|carried| carried.appended)
    }

    /// A place among the commands that wait.
    pub(crate) fn try_acquire_permit(&self) -> Result<OwnedSemaphorePermit, CommandError> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| CommandError::Overloaded)
    }

    pub(crate) async fn submit(
        &self,
        command: Command,
        metadata: &Metadata,
        reserved_key: Option<ReservedKey>,
        permit: OwnedSemaphorePermit,
    ) -> Result<CommandOutcome, CommandError> {
        let metadata =
            serde_json::to_string(metadata).map_err(|error| CommandError::Internal(Arc::new(error)))?;
        let (answer, answered) = oneshot::channel();
        let bytes = command.payload_bytes() + metadata.len();
        let (metadata, enqueued) = (metadata.into(), Instant::now());
        let job = CommandRequest {
            command,
            metadata,
            estimated_bytes: bytes,
            reserved_key,
            reply_to: answer,
            enqueued,
            _permit: permit,
        };
        let stopped = || CommandError::Internal(Arc::new(WriterStopped));
        self.requests.send(job).map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The last position of the log that this writer has appended or decided on: a reader that has got here sees the
    /// effect of every command that was answered.
    pub fn observed_position(&self) -> Position {
        Position::new(self.observed_position.load(Ordering::Acquire))
    }

    /// How many more commands may wait.
    pub fn available_capacity(&self) -> usize {
        self.permits.available_permits()
    }
}

/// Counts a command by what became of it.
pub(crate) fn record_command_metric(command: &'static str, outcome: &Result<CommandOutcome, CommandError>) {
    metrics::counter!("commands_total", "command" => command, "outcome" => outcome_label(outcome))
        .increment(1);
}

fn outcome_label(outcome: &Result<CommandOutcome, CommandError>) -> &'static str {
    match outcome {
        Ok(CommandOutcome { execution: ExecutionKind::New, .. }) => "recorded",
        Ok(CommandOutcome { execution: ExecutionKind::Replayed, .. }) => "replayed",
        Err(CommandError::Rejected(_) | CommandError::KeyReused) => "rejected",
        Err(CommandError::KeyInFlight) => "in_flight",
        Err(CommandError::Overloaded) => "overloaded",
        Err(
            CommandError::EventStoreUnavailable(_)
            | CommandError::CountersUnavailable(_)
            | CommandError::IdempotencyStoreUnavailable(_),
        ) => "unavailable",
        Err(CommandError::OutcomeUnknown(_)) => "unknown",
        Err(CommandError::Internal(_)) => "internal",
    }
}
