//! The event store port: an append-only log of streams.
//!
//! Promises of every adapter:
//!
//! - **Atomic per stream.** The events of one [`StreamAppend`] are stored together or not at all, one after another
//!   in their stream. Appends of one batch are independent: a conflict fails its own stream only.
//! - **Durable.** An append is answered when its events are on disk (fsync) or acknowledged by the cluster.
//! - **Ordered.** Positions rise in commit order: whoever has read up to a position never later finds a new event
//!   before it. Revisions of a stream are 0, 1, 2 … without a gap.
//! - **Idempotent.** An append sent again with the same event ids and expected revision, after it was stored,
//!   answers as the first time and stores nothing. What becomes of an id that is stored elsewhere, in another stream or
//!   at another revision, is up to the adapter: whoever gives ids must not count on its being refused.
//! - **Bounded.** An adapter takes [`MAX_APPEND_BYTES`] in one [`StreamAppend`], and may refuse more.

pub mod creation_lookup;

use std::error::Error as StdError;
use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::event::{DecodeError, SchemaVersion};
use chat_domain::metadata::EventId;
use chat_domain::{Event, ExpectedRevision, Position, Revision, Timestamp};
use thiserror::Error;
use uuid::Uuid;

/// What one [`StreamAppend`] may hold, payloads and metadata together. A message of 65,536 bytes fits, whatever its
/// JSON makes of it (six bytes for one, at worst). KurrentDB refuses more than 1 MiB unless told otherwise.
pub const MAX_APPEND_BYTES: usize = 512 << 10;

/// The log.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Which log this is: drawn when it was created, and kept with it. A projection built from another log is of
    /// no use.
    async fn log_id(&self) -> Result<LogId, EventStoreError>;

    /// Stores each append, and answers for each, in the order given. A batch names a stream at most once.
    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>>;

    /// Reads one stream. A read may return fewer events than its limit, to bound its memory; it returns none only where
    /// there are none: the stream ends there or does not exist.
    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError>;

    /// Reads up to `limit` events of all streams, in order of position, after `after`. May return fewer, to bound its
    /// memory, but none only where there are none.
    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError>;

    /// Reads up to `limit` events of all streams from the end of the log towards its start, those before `before`, or
    /// the last ones. May return fewer, to bound its memory, but none only where there are none.
    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError>;

    /// The event at a position, `None` where none of this system is there.
    async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, EventStoreError> {
        let Some(before) = position.get().checked_sub(1) else { return Ok(None) };
        let next = self.read_all(Position::new(before), 1).await?.into_iter().next();
        Ok(next.filter(|event| event.position == position))
    }

    /// The event of an id, `None` where the stream has none recorded since then. An adapter that finds ids without
    /// reading streams also answers with older events and those of other streams.
    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError>;

    /// The position of the last event, [`Position::START`] where there is none. In a store that others share it may
    /// be an event of theirs. Never before what a subscription reported as [`Batch::up_to`]: a head below a checkpoint
    /// means that the log lost events.
    async fn head(&self) -> Result<Position, EventStoreError>;

    /// Follows all streams from after `after`: first what is stored, then what comes.
    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError>;

    /// Whether the distance between two positions is the number of events between them. Otherwise it only tells more
    /// from less.
    fn has_contiguous_positions(&self) -> bool {
        true
    }
}

/// A catch-up subscription.
#[async_trait]
pub trait Subscription: Send {
    /// Waits until there is something after what was returned before, and returns it: at most `max` events, in order
    /// of position. Dropping the future loses nothing.
    async fn next(&mut self, max: usize) -> Result<EventBatch, EventStoreError>;
}

/// What a subscription returns at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// The events, in order of position. May be empty, where the store reports progress past events that are not
    /// of this system.
    pub events: Vec<RecordedEvent>,
    /// Everything up to here has been returned: a subscription may start again from after it.
    pub up_to: Position,
}

/// The identity of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct LogId(pub Uuid);

/// Events to be stored together at the end of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAppend {
    /// The stream's name.
    pub stream: Arc<str>,
    /// Where the stream must end for the append to succeed.
    pub expected_revision: ExpectedRevision,
    /// The events, at least one, and no more than [`MAX_APPEND_BYTES`].
    pub events: Vec<NewEvent>,
}

/// An event to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Unique in the log.
    pub id: EventId,
    /// The type's name.
    pub event_type: &'static str,
    /// The version of the payload's shape.
    pub schema_version: SchemaVersion,
    /// When the writer decided it.
    pub recorded_at: Timestamp,
    /// The payload, JSON.
    pub data: String,
    /// The circumstances ([`chat_domain::Metadata`]), JSON. Shared: the events of one request have the same.
    pub metadata: Arc<str>,
}

/// Where an append ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReceipt {
    /// The position of the append's last event.
    pub position: Position,
    /// The revision of the append's last event.
    pub revision: Revision,
}

/// A stored event. The payload is as stored: [`RecordedEvent::decode`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its stream's name.
    pub stream: Arc<str>,
    /// Its place in the stream.
    pub revision: Revision,
    /// Its identity.
    pub id: EventId,
    /// The type's name.
    pub event_type: String,
    /// The version of the payload's shape.
    pub schema_version: SchemaVersion,
    /// When its writer decided it.
    pub recorded_at: Timestamp,
    /// The payload, JSON unless it was damaged.
    pub data: Vec<u8>,
    /// The circumstances, JSON unless damaged.
    pub metadata: Vec<u8>,
}

impl RecordedEvent {
    /// Reads the payload, lifting older schema versions.
    pub fn decode(&self) -> Result<Event, DecodeError> {
        Event::decode(&self.event_type, self.schema_version, &self.data)
    }
}

/// What to read of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRead {
    /// The stream's name.
    pub stream: Arc<str>,
    /// Where to start and which way to go.
    pub start: ReadStart,
    /// Which events to return.
    pub filter: EventTypeFilter,
    /// How many events to return at most.
    pub limit: usize,
}

impl StreamRead {
    /// Reads all events from `start`, at most `limit` of them.
    pub fn all(stream: impl Into<Arc<str>>, start: ReadStart, limit: usize) -> Self {
        Self { stream: stream.into(), start, filter: EventTypeFilter::All, limit }
    }

    /// Reads the last event of a stream.
    pub fn last_event(stream: impl Into<Arc<str>>) -> Self {
        Self::all(stream, ReadStart::End, 1)
    }

    /// Returns the same read of events that pass a filter.
    #[must_use]
    pub fn filtered(self, filter: EventTypeFilter) -> Self {
        Self { filter, ..self }
    }
}

/// An event that may be stored, and where to look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLookup {
    /// The event's id.
    pub id: EventId,
    /// The stream that it was meant for.
    pub stream: Arc<str>,
    /// No event recorded before this is it.
    pub since: Timestamp,
}

/// Where a read of a stream starts, and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// From this revision (inclusive) towards the end.
    Forwards(Revision),
    /// From the last event towards the start.
    End,
    /// From this revision (inclusive) towards the start.
    Backwards(Revision),
}

/// Which events of a stream a read returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTypeFilter {
    /// All of them.
    All,
    /// Only those of this type.
    Only(&'static str),
    /// All but those of this type.
    Except(&'static str),
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why one stream's append failed.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The stream does not end where it was expected to. Nothing was stored; fold the stream again and decide anew.
    #[error("the stream does not end where it was expected to")]
    Conflict,
    /// The store can't be reached or can't write. Nothing was stored; worth a retry.
    #[error("the event store can't take events now")]
    Unavailable(#[source] BoxError),
    /// The store's answer was lost: the events may be stored or not. An append with the same event ids and
    /// expected revision tells.
    #[error("the event store's answer was lost")]
    OutcomeUnknown(#[source] BoxError),
}

/// Why the store could not be read.
#[derive(Debug, Error)]
pub enum EventStoreError {
    /// Out of reach or busy; worth a retry.
    #[error("the event store can't be read now")]
    Unavailable(#[source] BoxError),
    /// What is stored can't be understood; a retry finds the same.
    #[error("the event store is damaged")]
    Damaged(#[source] BoxError),
    /// The store does not let this program in, or is of another kind. Somebody has to change that, as the source says.
    #[error("the event store refuses this program")]
    Refused(#[source] BoxError),
}

impl EventStoreError {
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
