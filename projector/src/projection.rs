//! What the runner needs of a projection and of the place where it is kept.

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_ports::event_store::{EventStoreError, LogId, RecordedEvent};
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::read_model::ReadModelError;
use chat_ports::search_index::SearchError;
use thiserror::Error;

use crate::dead_letters::DeadLetterQueue;
use crate::heartbeats::HeartbeatPublisher;

/// A projection, open for writing.
///
/// It is a fold: the same log makes the same content, whatever the stretches that it is given in. After an error it is
/// dropped and opened again.
#[async_trait]
pub trait Projection: Send + 'static {
    /// Where it stands.
    fn checkpoint(&self) -> ProjectionCheckpoint;

    /// How many events it has parked.
    fn dead_letter_count(&self) -> u64;

    /// How many of them were discarded, and nobody has acknowledged it.
    fn discarded_count(&self) -> u64;

    /// What it has parked, for operators' acts.
    fn dead_letter_queue(&mut self) -> &mut dyn DeadLetterQueue;

    /// Looks whether what is stored still stands where this does. An engine elsewhere may have lost the end of it, and
    /// where no event comes, nothing else would show that.
    async fn verify_checkpoint(&mut self) -> Result<(), ProjectionError> {
        Ok(())
    }

    /// Folds the events that follow its checkpoint, and moves it to `up_to`. A long stretch may be stored in pieces, of
    /// which each moves the checkpoint to its end, both or neither. Passes over what operators do: whoever feeds a
    /// projection from the log calls [`advance`](crate::dead_letters::advance), which carries that out.
    async fn fold(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError>;
}

/// A place where a projection is kept.
#[async_trait]
pub trait ProjectionStore: Send + Sync + 'static {
    /// The projection kept there.
    type Projection: Projection;

    /// The projection's name, in logs, metrics and health reports.
    fn name(&self) -> &'static str;

    /// How events are gathered for it.
    fn pacing(&self) -> BatchPacing;

    /// Opens what is there, and creates it where there is nothing.
    async fn open(&self) -> Result<(Self::Projection, StorageOrigin), ProjectionError>;

    /// Reads all that is there, and fails with [`ProjectionError::Damaged`] where it finds what opening did not show.
    /// Runs beside the fold; dropping the future ends it.
    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(())
    }

    /// Where the projector tells other processes what it does.
    fn heartbeats(&self) -> Option<Box<dyn HeartbeatPublisher>> {
        None
    }

    /// Puts aside what is there, and opens a new one, at the start of the log.
    async fn recreate(&self) -> Result<Self::Projection, ProjectionError>;
}

/// How many events go into one stretch, and how soon one stretch follows another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchPacing {
    /// At most so many events.
    pub max_events: usize,
    /// Enough, once the events have so many bytes.
    pub max_bytes: usize,
    /// After a stretch, events are gathered for so many times as long as it took to apply, so that applying takes a
    /// share of the time only. An event that comes later than that is applied at once. Finite and not negative; 0: no rest.
    pub rest_factor: f64,
    /// The longest rest.
    pub max_rest: Duration,
}

/// Why a projection can't go on.
#[derive(Debug, Error)]
pub enum ProjectionError {
    /// Its engine is out of reach or busy; worth a retry.
    #[error("its storage can't be reached now")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// What is stored can't be understood; it has to be folded anew.
    #[error("its storage is damaged")]
    Damaged(#[source] Box<dyn StdError + Send + Sync>),
    /// Another projector moved the checkpoint.
    #[error("another projector moved its checkpoint")]
    CheckpointMoved,
    /// The log could not be read, where an operator's act asks for events again.
    #[error("the event store")]
    EventStore(#[from] EventStoreError),
    /// Another projector has it open for writing.
    #[error("another projector is at work on it")]
    InUse,
}

impl From<ReadModelError> for ProjectionError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::CheckpointMoved => Self::CheckpointMoved,
            ReadModelError::InUse => Self::InUse,
            ReadModelError::Unavailable(source) => Self::Unavailable(source),
            ReadModelError::Damaged(source) => Self::Damaged(source),
        }
    }
}

impl From<SearchError> for ProjectionError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::CheckpointMoved => Self::CheckpointMoved,
            SearchError::InUse(_) => Self::InUse,
            SearchError::Unavailable(source) => Self::Unavailable(source),
            SearchError::NotCreated => Self::Unavailable(Box::new(error)),
            SearchError::Damaged(source) => Self::Damaged(source),
        }
    }
}

/// Events up to which a stretch is folded where it is; more go to a thread for blocking work, so that a long fold does
/// not hold up the requests that share the runtime.
const MAX_INLINE_EVENTS: usize = 256;

/// Runs work over `events` events, elsewhere if it is long.
pub(crate) async fn run_inline_or_blocking<T: Send + 'static>(
    events: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProjectionError> {
    if events <= MAX_INLINE_EVENTS {
        return Ok(work());
    }
    let ended = |error| ProjectionError::Unavailable(Box::new(error));
    tokio::task::spawn_blocking(work).await.map_err(ended)
}
