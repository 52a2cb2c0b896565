//! The event store in KurrentDB (EventStoreDB before it had that name).
//!
//! Streams, ids, types, payloads and revisions are KurrentDB's own; a position is its commit position, an offset in
//! bytes. Everything that decides is read from the leader and written through it, so that what one process was
//! answered, another one reads. Subscriptions may run on any node (`nodePreference` in the URL).
//!
//! An append that was not answered is sent again, for a few seconds: KurrentDB recognises ids that it has stored at
//! that place of the stream. What stays open after that is [`AppendError::OutcomeUnknown`].
//!
//! Streams of this system must never be deleted, truncated or given a maximum age or count: where the adapter notices,
//! it reports damage. A stream that was deleted softly can't be told from one that never was.

mod append;
mod call_error;
mod connection;
mod event_encoding;
mod log_identity;
mod read;
mod subscription;
mod url;

use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::Position;
use futures::StreamExt;
use futures::stream;
use kurrentdb::Credentials;

use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, LogId, RecordedEvent, StreamAppend,
    StreamRead, Subscription,
};
use connection::Connection;
use subscription::KurrentDbSubscription;

pub use connection::CallTimeouts;
pub use url::{InvalidKurrentDbUrl, KurrentDbUrl};

/// How the names of this system's streams begin. All other events of the server are left out, by the server.
const STREAM_PREFIXES: &[&str] = &["app-", "chat-"];

/// After how many events of others the server tells of its progress.
const CHECKPOINT_INTERVAL: u32 = 256;

/// Streams that are appended to at once: servers take 100 calls on one connection, and reads need some.
const CONCURRENT_APPENDS: usize = 64;

/// An event log in KurrentDB.
pub struct KurrentDbEventStore {
    connection: Arc<Connection>,
}

impl KurrentDbEventStore {
    /// Opens the log, and reads its identity, which is written where there is none: so that what stands in the way of
    /// reading or writing is known at once.
    ///
    /// Fails as [`EventStoreError::Unavailable`] where the server is away: try again. [`EventStoreError::Refused`] says
    /// what is to be changed.
    pub async fn open(url: &KurrentDbUrl) -> Result<Self, EventStoreError> {
        Self::open_with_timeouts(url, CallTimeouts::default()).await
    }

    /// As [`Self::open`], with other times to wait.
    pub async fn open_with_timeouts(
        url: &KurrentDbUrl,
        patience: CallTimeouts,
    ) -> Result<Self, EventStoreError> {
        let connection = Arc::new(Connection::new(url.clone(), patience));
        connection.log_id().await?;
        Ok(Self { connection })
    }
}

#[async_trait]
impl EventStore for KurrentDbEventStore {
    /// Read each time: behind a URL there may be another log than a moment ago.
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.connection.log_id().await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let append = |append| self.connection.append(Arc::new(append));
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

    async fn find_event(&self, wanted: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        Ok(self.connection.find_event(&wanted).await?)
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        Ok(self.connection.head().await?)
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        Ok(Box::new(KurrentDbSubscription::start(Arc::clone(&self.connection), after).await?))
    }

    fn has_contiguous_positions(&self) -> bool {
        false
    }
}

impl Connection {
    /// Options with the user of the URL, if it names one.
    fn authenticated<O>(&self, options: O, with: impl FnOnce(O, Credentials) -> O) -> O {
        match self.url.credentials.clone() {
            Some(credentials) => with(options, credentials),
            None => options,
        }
    }
}
