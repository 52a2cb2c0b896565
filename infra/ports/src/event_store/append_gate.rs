//! The append gate: closes a log to appends, for example once it is known to have lost events.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use chat_domain::Position;
use thiserror::Error;

use super::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription, TruncatedStream,
};

/// A switch that closes a log to appends. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct AppendGate {
    reason: Arc<RwLock<Option<String>>>,
}

impl AppendGate {
    /// Closes the gate, for a reason in one sentence. If the gate is closed already, the new reason replaces the old one.
    pub fn close(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Opens the gate.
    pub fn open(&self) {
        self.set(None);
    }

    fn set(&self, reason: Option<String>) {
        *self.reason.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// The reason for which the gate is closed; `None` while it is open.
    pub fn closed_because(&self) -> Option<String> {
        self.reason.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The error for a log that takes no appends.
#[derive(Debug, Error)]
#[error("the log takes no appends: {0}")]
struct LogClosed(String);

fn refusal(reason: String) -> AppendError {
    AppendError::Unavailable(LogClosed(reason).into())
}

/// A log that takes appends while its gate is open, and can always be read.
pub struct GatedEventStore {
    event_store: Arc<dyn EventStore>,
    gate: AppendGate,
}

impl GatedEventStore {
    /// Puts a gate before a log.
    pub fn new(event_store: Arc<dyn EventStore>, gate: AppendGate) -> Self {
        Self { event_store, gate }
    }
}

#[async_trait]
impl EventStore for GatedEventStore {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.event_store.log_id().await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.event_store.lineage().await
    }

    /// Works even while the gate is closed, because operators begin an incarnation after a loss.
    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.event_store.begin_incarnation(incarnation).await
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        self.event_store.verify_identity().await
    }

    /// Does not close the event store while the gate is closed. Closing an event store may rewrite its files, and the
    /// files of a damaged log are kept as they are.
    async fn close(&self) -> Result<(), EventStoreError> {
        if self.gate.closed_because().is_some() { Ok(()) } else { self.event_store.close().await }
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let Some(reason) = self.gate.closed_because() else { return self.event_store.append(appends).await };
        appends.into_iter().map(|_| Err(refusal(reason.clone()))).collect()
    }

    async fn probe_write(&self) -> Result<(), AppendError> {
        self.gate.closed_because().map_or(Ok(()), |reason| Err(refusal(reason)))?;
        self.event_store.probe_write().await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.event_store.read_stream(read).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.event_store.read_all(after, limit).await
    }

    async fn read_all_checked(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.event_store.read_all_checked(after, limit).await
    }

    async fn check_file(&self) -> Result<Option<Vec<String>>, EventStoreError> {
        self.event_store.check_file().await
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.event_store.read_all_backwards(before, limit).await
    }

    async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.event_store.event_at(position).await
    }

    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.event_store.find_event(lookup).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.event_store.head().await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.event_store.subscribe(after).await
    }

    fn truncated_streams(&self) -> Vec<TruncatedStream> {
        self.event_store.truncated_streams()
    }

    fn closed_because(&self) -> Option<String> {
        self.gate.closed_because().or_else(|| self.event_store.closed_because())
    }

    fn has_contiguous_positions(&self) -> bool {
        self.event_store.has_contiguous_positions()
    }
}
