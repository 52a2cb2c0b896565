//! The event store in KurrentDB (formerly EventStoreDB).
//!
//! Streams, ids, types, payloads and revisions are native; a position is KurrentDB's commit position, a byte offset.
//! All reads and appends go to the leader, so that every process reads the events that another one has appended. Only
//! subscriptions may run on any node (`nodePreference` in the URL).
//!
//! An append without a reply is repeated for a few seconds: KurrentDB detects ids that are already stored at the
//! expected revision of the stream. If no reply arrives in this time, the append fails with
//! [`AppendError::OutcomeUnknown`].
//!
//! Streams of this system must never be deleted, truncated or given a maximum age or count. The adapter checks the
//! metadata of a stream when it reads the stream's end, and follows changes of metadata from the first append on. A
//! stream that was deleted or truncated takes no appends until it is restored.

mod append;
mod batch_append;
mod call_error;
mod connection;
mod diagnosis;
mod event_encoding;
mod log_identity;
mod read;
mod subscription;
mod transport;
mod truncated_streams;
mod truncation;
mod url;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use chat_domain::Position;
use futures::StreamExt;
use futures::stream;

use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription, TruncatedStream,
};
use connection::Connection;
use subscription::KurrentDbSubscription;
use truncation::MetadataWatcher;

pub use connection::CallTimeouts;
pub use url::{InvalidKurrentDbUrl, KurrentDbUrl};

/// The largest number of appends of one batch that wait for their answers at the same time. One call carries them all.
const CONCURRENT_APPENDS: usize = 512;

/// Registers the metrics, which stay 0 where the log is not in KurrentDB.
pub fn register_metrics() {
    metrics::describe_gauge!(
        "chat_event_log_truncated_streams",
        "Streams that were deleted or truncated in KurrentDB, as far as this process has met them."
    );
    metrics::gauge!("chat_event_log_truncated_streams").set(0.0);
}

/// An event log in KurrentDB.
pub struct KurrentDbEventStore {
    connection: Arc<Connection>,
    /// The head of the log when it was opened.
    head_at_open: Position,
    /// Started with the first append.
    watcher: OnceLock<MetadataWatcher>,
    /// The incarnation of the log when it was opened.
    incarnation: LogId,
}

impl KurrentDbEventStore {
    /// Opens the log and reads its identity, or writes one to a new log, so that missing rights are reported at
    /// startup.
    ///
    /// Fails with [`EventStoreError::Unavailable`] if the server is unreachable, which is worth a retry, and with
    /// [`EventStoreError::Refused`] if a setting has to be changed.
    pub async fn open(url: &KurrentDbUrl) -> Result<Self, EventStoreError> {
        Self::open_with_timeouts(url, CallTimeouts::default()).await
    }

    /// As [`Self::open`], but writes nothing: fails with [`EventStoreError::Refused`] if the server has no log.
    pub async fn open_existing(url: &KurrentDbUrl) -> Result<Self, EventStoreError> {
        let connection = Connection::to_leader(url.clone(), CallTimeouts::default());
        Self::open_identified(connection, async |connection| connection.existing_log_id().await).await
    }

    /// Whether the server has a log.
    pub async fn exists(url: &KurrentDbUrl) -> Result<bool, EventStoreError> {
        let connection = Connection::to_leader(url.clone(), CallTimeouts::default());
        Ok(connection.read_log_id().await?.is_some())
    }

    /// Like [`Self::open`], with other time limits.
    pub async fn open_with_timeouts(
        url: &KurrentDbUrl,
        timeouts: CallTimeouts,
    ) -> Result<Self, EventStoreError> {
        let connection = Connection::to_leader(url.clone(), timeouts);
        Self::open_identified(connection, async |connection| connection.log_id().await).await
    }

    async fn open_identified(
        connection: Connection,
        log_id: impl AsyncFnOnce(&Connection) -> Result<LogId, EventStoreError>,
    ) -> Result<Self, EventStoreError> {
        let connection = Arc::new(connection);
        let incarnation = match log_id(&connection).await {
            Ok(incarnation) => incarnation,
            Err(EventStoreError::Unavailable(error)) => {
                let failure = connection.find_connect_failure().await;
                return Err(failure.map_or(EventStoreError::Unavailable(error), Into::into));
            }
            Err(error) => return Err(error),
        };
        let head_at_open = connection.head().await?;
        Ok(Self { connection, head_at_open, watcher: OnceLock::new(), incarnation })
    }
}

#[async_trait]
impl EventStore for KurrentDbEventStore {
    /// Reads the id on each call, or writes a new one: the server behind the URL may have been replaced.
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.connection.log_id().await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.connection.lineage().await
    }

    /// Handles that were opened before can still append. Before this call, stop the processes that append.
    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.connection.begin_incarnation(incarnation).await
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        let found = match self.connection.read_log_id().await {
            Ok(Some(log)) if log != self.incarnation => log.0.to_string(),
            Ok(None) => "missing".to_owned(),
            // The same log, or no answer, which says nothing about the log.
            _ => return Ok(()),
        };
        Err(LogReplaced(format!(
            "the log in KurrentDB is {found} now, and was {} when the process started",
            self.incarnation.0
        )))
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        self.watcher.get_or_init(|| MetadataWatcher::spawn(&self.connection, self.head_at_open));
        let append = |append: StreamAppend| async move { self.connection.append(&append).await };
        stream::iter(appends).map(append).buffered(CONCURRENT_APPENDS).collect().await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        Ok(self.connection.read_stream(&read).await?)
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        Ok(self.connection.read_all(after, limit).await?)
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        Ok(self.connection.read_all_backwards(before, limit).await?)
    }

    async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, EventStoreError> {
        Ok(self.connection.event_at(position).await?)
    }

    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        Ok(self.connection.find_event(&lookup).await?)
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        Ok(self.connection.head().await?)
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        Ok(Box::new(KurrentDbSubscription::start(Arc::clone(&self.connection), after).await?))
    }

    fn truncated_streams(&self) -> Vec<TruncatedStream> {
        self.connection.truncated.all()
    }

    fn has_contiguous_positions(&self) -> bool {
        false
    }
}
