//! The event store in Postgres: a log that processes on many machines share.
//!
//! All changes are made by functions in the database ([schema.sql](schema.sql)), which run as one statement each. The
//! function `append` locks the one row of the table `log`, takes the next positions, and stores a batch of appends for
//! any number of streams. A call of `append` is one round trip and one transaction. So positions rise in commit order,
//! and the lock is never held while the server waits for a client. `append` also checks that the log has the last event
//! that the caller has seen. So a server that was set back takes no appends of processes that have seen the lost
//! events.
//!
//! Rows are only added: triggers refuse updates and deletions, also those of the owner.

mod append;
mod call_error;
mod head_watch;
mod incarnations;
mod read;
mod schema;
mod server;
mod subscription;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chat_domain::Position;

use crate::url::PostgresUrl;
use append::KnownLog;
use call_error::CallError;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription,
};
use head_watch::HeadWatch;
use schema::IfMissing;
use server::LogServer;
use subscription::PostgresSubscription;

/// An event log in a Postgres database.
pub struct PostgresEventStore {
    server: Arc<LogServer>,
    known: Mutex<KnownLog>,
    head_watch: Arc<HeadWatch>,
}

impl PostgresEventStore {
    /// Opens the log in a database, and creates it if there is none. The schema in the URL is not used.
    ///
    /// Fails with [`EventStoreError::Unavailable`] if the server can't be reached, which is worth a retry, and with
    /// [`EventStoreError::Refused`] if a setting has to be changed.
    pub async fn open(url: &PostgresUrl) -> Result<Self, EventStoreError> {
        Self::open_or(url, IfMissing::Create).await
    }

    /// As [`Self::open`], but fails with [`EventStoreError::Refused`] if the database has no log.
    pub async fn open_existing(url: &PostgresUrl) -> Result<Self, EventStoreError> {
        Self::open_or(url, IfMissing::Refuse).await
    }

    async fn open_or(url: &PostgresUrl, if_missing: IfMissing) -> Result<Self, EventStoreError> {
        let server = Arc::new(LogServer::new(url));
        let mut connection = server.connect().await?;
        server::within(server::SETUP_TIMEOUT, schema::prepare(&mut connection, if_missing)).await?;
        let identity = server.identity(None).await?;
        let head = identity.head.map_or(Position::START, |(position, _)| position);
        let known = KnownLog { incarnation: identity.log, seen: identity.head };
        let head_watch = Arc::new(HeadWatch::new(Arc::clone(&server), head));
        Ok(Self { server, known: Mutex::new(known), head_watch })
    }

    /// Whether the database has a log.
    pub async fn exists(url: &PostgresUrl) -> Result<bool, EventStoreError> {
        let mut connection = LogServer::new(url).connect().await?;
        Ok(server::within(server::SETUP_TIMEOUT, schema::has_log(&mut connection)).await?)
    }

    /// Creates the log, unless it exists, and grants `program_user` the rights that a process needs. The user who
    /// creates the log owns its tables, and may change them, so it must be another one than `program_user`.
    pub async fn set_up(url: &PostgresUrl, program_user: Option<&str>) -> Result<(), EventStoreError> {
        let mut connection = LogServer::new(url).connect().await?;
        let set_up = async {
            schema::set_up(&mut connection, program_user).await?;
            match program_user {
                Some(user) => schema::grant(&mut connection, user).await,
                None => Ok(()),
            }
        };
        Ok(server::within(server::SETUP_TIMEOUT, set_up).await?)
    }

    fn known(&self) -> MutexGuard<'_, KnownLog> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventStore for PostgresEventStore {
    /// Reads the id on each call, because another server may have taken over.
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        Ok(self.server.identity(None).await?.log)
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        Ok(self.server.lineage().await?)
    }

    /// Begins the incarnation in one transaction. From then on this handle appends to it, and the appends of other open
    /// handles are refused.
    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.server.begin_incarnation(&incarnation).await?;
        let identity = self.server.identity(None).await?;
        *self.known() = KnownLog { incarnation: identity.log, seen: identity.head };
        let lineage = self.server.lineage().await?;
        let begun = lineage.later().iter().find(|later| later.log == incarnation.log);
        Ok(begun.cloned().ok_or(CallError::from(sqlx::Error::RowNotFound))?)
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        let known = *self.known();
        let identity = match self.server.identity(known.seen).await {
            Ok(identity) => identity,
            Err(CallError::NoLog) => {
                return Err(LogReplaced("the event log is no longer in its database".to_owned()));
            }
            Err(_) => return Ok(()),
        };
        if identity.log != known.incarnation {
            return Err(LogReplaced(CallError::OtherIncarnation.to_string()));
        }
        if let (false, Some((seen, _))) = (identity.contains_seen_event, known.seen) {
            return Err(LogReplaced(format!(
                "the log no longer has the event at position {seen}, which this process has seen: the server was set back, \
                 or a standby that was behind took over"
            )));
        }
        if let Some((position, id)) = identity.head {
            self.known().record_seen(position, id);
        }
        Ok(())
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let results = self.server.append(appends, &self.known).await;
        let stored = results.iter().filter_map(|result| result.as_ref().ok());
        if let Some(head) = stored.map(|receipt| receipt.position).max() {
            self.head_watch.advance(head);
        }
        results
    }

    async fn probe_write(&self) -> Result<(), AppendError> {
        self.server.probe(&self.known).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        Ok(self.server.read_stream(&read).await?)
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        Ok(self.server.read_all(after, limit).await?)
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        Ok(self.server.read_all_backwards(before, limit).await?)
    }

    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        Ok(self.server.find_event(lookup.id).await?)
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        Ok(self.server.head().await?)
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        let (server, head_watch) = (Arc::clone(&self.server), Arc::clone(&self.head_watch));
        Ok(Box::new(PostgresSubscription::new(server, head_watch, after)))
    }
}
