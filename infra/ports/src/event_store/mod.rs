//! The event store port: an append-only log of streams.
//!
//! Promises of every adapter:
//!
//! - **Atomic per stream.** The events of one [`StreamAppend`] are stored together or not at all, one after another
//!   in their stream. Appends of one batch are independent: a conflict fails its own stream only.
//! - **Durable.** An append returns when its events are on disk (fsync) or acknowledged by the cluster.
//! - **Ordered.** Positions rise in commit order: after a read up to a position, no new event appears before that
//!   position. Revisions of a stream are 0, 1, 2 … without a gap.
//! - **Idempotent.** If a stored append is repeated with the same event ids and expected revision, the call stores
//!   nothing and returns the receipt of the stored events. An adapter may, but need not, refuse an id that is already
//!   stored in another stream or at another revision.
//! - **Bounded.** An adapter accepts [`MAX_APPEND_BYTES`] in one [`StreamAppend`], and may refuse more.
//! - **Retryable.** [`EventStoreError::Unavailable`] and [`AppendError::Unavailable`] are worth a retry. After
//!   [`AppendError::OutcomeUnknown`], a retry of the same append returns its outcome.

mod append_gate;
pub mod creation_lookup;
mod lineage;
pub mod stream_reader;
mod truncation;

use std::error::Error as StdError;
use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::event::{DecodeError, SchemaVersion};
use chat_domain::metadata::EventId;
use chat_domain::{Event, ExpectedRevision, Position, Revision, Timestamp};
use thiserror::Error;

pub use lineage::{Incarnation, LogId, LogLineage, LogMismatch, NewIncarnation};

pub use truncation::{TruncatedStream, TruncationCause};

pub use append_gate::{AppendGate, GatedEventStore};

/// The largest size of one [`StreamAppend`], payloads and metadata together. A message of 65,536 bytes fits even if
/// JSON escapes each of them as six bytes. KurrentDB refuses more than 1 MiB by default.
pub const MAX_APPEND_BYTES: usize = 512 << 10;

/// An append-only log of streams.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Reads the identity of the log's current incarnation: generated when the log was created or the incarnation
    /// began, and stored in the log. A projection of another log must not be used.
    async fn log_id(&self) -> Result<LogId, EventStoreError>;

    /// Reads all incarnations of the log.
    async fn lineage(&self) -> Result<LogLineage, EventStoreError>;

    /// Begins a new incarnation after the head of the log: from now on [`EventStore::log_id`] returns its id. Durable
    /// when it returns. A repeated call with the same id returns the stored incarnation.
    ///
    /// Meant for logs that no process appends to. Other handles are still on the previous incarnation and must be
    /// opened again. An adapter refuses their appends, if it is able to.
    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError>;

    /// Appends each item to its stream and returns the outcomes in the same order. A batch names a stream at most once.
    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>>;

    /// Checks that the log takes appends, by a durable write that changes no event. Fails as an append would.
    ///
    /// The default only reads the head. That is enough for a store whose reads need the same server as its appends,
    /// such as the leader of a cluster.
    async fn probe_write(&self) -> Result<(), AppendError> {
        self.head().await.map(drop).map_err(|error| AppendError::Unavailable(error.into()))
    }

    /// Reads one stream. May return fewer events than the limit, to bound its memory, but returns none only if no
    /// further event passes the filter or if the stream does not exist.
    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError>;

    /// Reads up to `limit` events of all streams after `after`, in order of position. May return fewer, to bound its
    /// memory, but returns none only at the end of the log.
    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError>;

    /// Reads as [`EventStore::read_all`] does, from the storage rather than from a cache, and checks what lookups of
    /// these events depend on, such as indexes. Fails with [`EventStoreError::Damaged`] where a check fails.
    ///
    /// The default only reads, because database servers check their own files.
    async fn read_all_checked(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.read_all(after, limit).await
    }

    /// Checks the file of the log as a whole by the means of its engine, including what [`Self::read_all_checked`]
    /// does not read. Returns the problems that the engine reports; none if the file is sound. `None` if the log is not
    /// in a file of this process, which is the default: a server checks its own files.
    ///
    /// Reads the whole file in one snapshot, so it may take minutes.
    async fn check_file(&self) -> Result<Option<Vec<String>>, EventStoreError> {
        Ok(None)
    }

    /// Reads up to `limit` events of all streams before `before` (or before the end of the log), the latest first. May
    /// return fewer, to bound its memory, but returns none only at the start of the log.
    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError>;

    /// Returns the event at a position, or `None` if no event of this system has that position.
    async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, EventStoreError> {
        let Some(previous) = position.get().checked_sub(1) else { return Ok(None) };
        let next = self.read_all(Position::new(previous), 1).await?.into_iter().next();
        Ok(next.filter(|event| event.position == position))
    }

    /// Finds an event by its id, at least if the event is in [`EventLookup::stream`] and was not recorded before
    /// [`EventLookup::since`]. An adapter with an index of ids also finds older events and events of other streams.
    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError>;

    /// Checks that this handle is still on the log that it opened: its files are in place, and no other incarnation has
    /// begun. Also `Ok` if the store can't be reached, because that says nothing about the log.
    async fn verify_identity(&self) -> Result<(), LogReplaced>;

    /// Prepares for the end of the process, after the last append: does the work that the adapter has postponed, such
    /// as copying a WAL into its database file.
    async fn close(&self) -> Result<(), EventStoreError> {
        Ok(())
    }

    /// Returns the position of the last event, or [`Position::START`] if there is none. In a store that is shared with
    /// other applications this may be an event of theirs.
    ///
    /// Never below the position of an append that was acknowledged to any process before the call. So no client has
    /// been given a position beyond the head. Never below an [`EventBatch::up_to`] that a subscription returned: a head
    /// below a projection's checkpoint means that the log lost events.
    async fn head(&self) -> Result<Position, EventStoreError>;

    /// Subscribes to all streams after `after`: first the stored events, then new ones as they are appended.
    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError>;

    /// The streams of this system that were deleted or truncated in the store, as far as this handle has met them. They
    /// take no appends.
    fn truncated_streams(&self) -> Vec<TruncatedStream> {
        Vec::new()
    }

    /// Why the log takes no appends now, in one sentence, if an [`AppendGate`] is closed for it.
    fn closed_because(&self) -> Option<String> {
        None
    }

    /// Whether positions have no gaps, so that the difference of two positions is a number of events. If not, positions
    /// can only be compared.
    fn has_contiguous_positions(&self) -> bool {
        true
    }
}

/// A catch-up subscription.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for events after those already returned, and returns at most `max` of them, in order of position. Cancel
    /// safe: dropping the future loses no event. After an error, subscribe again from the last [`EventBatch::up_to`].
    async fn next(&mut self, max: usize) -> Result<EventBatch, EventStoreError>;
}

/// A batch of events from a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// The events, in order of position. Empty if the store only reports progress past events of other applications.
    pub events: Vec<RecordedEvent>,
    /// All events up to this position have been returned: a new subscription may start after it.
    pub up_to: Position,
}

/// Events to be stored together at the end of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAppend {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The revision at which the stream must end for the append to succeed.
    pub expected_revision: ExpectedRevision,
    /// The events: at least one, and together no larger than [`MAX_APPEND_BYTES`].
    pub events: Vec<NewEvent>,
}

/// An event to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The event's id, unique in the log.
    pub id: EventId,
    /// The event type.
    pub event_type: &'static str,
    /// The schema version of the payload.
    pub schema_version: SchemaVersion,
    /// When the event was decided, by the writer's clock.
    pub recorded_at: Timestamp,
    /// The payload, as JSON.
    pub data: String,
    /// The metadata ([`chat_domain::Metadata`]), as JSON. Shared by the events of one request.
    pub metadata: Arc<str>,
}

/// Position and revision of a stored append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReceipt {
    /// The position of the last event of the append.
    pub position: Position,
    /// The revision of the last event of the append.
    pub revision: Revision,
}

/// A stored event. The payload is unparsed: see [`RecordedEvent::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The position in the log.
    pub position: Position,
    /// The name of the stream.
    pub stream: Arc<str>,
    /// The revision in the stream.
    pub revision: Revision,
    /// The event's id.
    pub id: EventId,
    /// The event type.
    pub event_type: String,
    /// The schema version of the payload.
    pub schema_version: SchemaVersion,
    /// When the event was decided, by the writer's clock.
    pub recorded_at: Timestamp,
    /// The payload: JSON, unless it is damaged.
    pub data: Vec<u8>,
    /// The metadata: JSON, unless it is damaged.
    pub metadata: Vec<u8>,
}

impl RecordedEvent {
    /// Decodes the payload and upcasts older schema versions.
    pub fn decode(&self) -> Result<Event, DecodeError> {
        Event::decode(&self.event_type, self.schema_version, &self.data)
    }
}

/// A request to read one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRead {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The first revision and the direction.
    pub start: ReadStart,
    /// The event types to return.
    pub filter: EventTypeFilter,
    /// The largest number of events to return.
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

/// A search for one event by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLookup {
    /// The event's id.
    pub id: EventId,
    /// The stream that the event was meant for.
    pub stream: Arc<str>,
    /// The event was not recorded before this time.
    pub since: Timestamp,
}

/// The start and the direction of a stream read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// From this revision (inclusive) towards the end.
    Forwards(Revision),
    /// From the last event towards the start.
    End,
    /// From this revision (inclusive) towards the start.
    Backwards(Revision),
}

/// A filter on event types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTypeFilter {
    /// Passes every event.
    All,
    /// Passes events of this type only.
    Only(&'static str),
    /// Passes all events except those of this type.
    Except(&'static str),
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// The log was removed, replaced or set back while it was open. The message says so in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct LogReplaced(pub String);

/// An error of appending to one stream.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The stream's last revision is not the expected one. Nothing was stored; fold the stream again and repeat the
    /// decision.
    #[error("the stream does not end at the expected revision")]
    Conflict,
    /// The store is unreachable or can't write. Nothing was stored; worth a retry.
    #[error("the event store can't store events now")]
    Unavailable(#[source] BoxError),
    /// The stream was deleted or truncated in the store. Nothing was stored; a retry fails in the same way until an
    /// operator has restored the stream.
    #[error("the stream was deleted or truncated in the event store")]
    StreamTruncated(#[source] TruncatedStream),
    /// The store's reply was lost: the events may be stored or not. Repeat the append with the same event ids and
    /// expected revision to find out.
    #[error("the event store's reply was lost")]
    OutcomeUnknown(#[source] BoxError),
}

/// An error of reading the store.
#[derive(Debug, Error)]
pub enum EventStoreError {
    /// The store is unreachable or busy; worth a retry.
    #[error("the event store can't be read now")]
    Unavailable(#[source] BoxError),
    /// The stored data is invalid; a retry fails in the same way.
    #[error("the event store is damaged")]
    Damaged(#[source] BoxError),
    /// The stream was deleted or truncated in the store; a retry fails in the same way until an operator has restored
    /// it.
    #[error("the stream was deleted or truncated in the event store")]
    StreamTruncated(#[source] TruncatedStream),
    /// The store denies access, is not an event store of this program, or has a setting that does not fit. The source
    /// says why.
    #[error("the event store refuses this program")]
    Refused(#[source] BoxError),
}

impl EventStoreError {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
