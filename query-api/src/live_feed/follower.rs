//! A follower of the live feed: reads its scope from the log until the hub has the rest, and then from the hub.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_web::consistency::LogTag;
use metrics::counter;
use thiserror::Error;
use tokio::time::Instant;

use super::catch_up::CatchUp;
use super::event::{FeedEvent, Scope};
use super::filter::FeedFilter;
use super::hub::{NewEvents, ScopeReader};
use crate::fair_share::FairTurns;

/// The bounds of a batch from the hub.
const BATCH_EVENTS: usize = 128;
const BATCH_BYTES: usize = 64 * 1024;

/// How long a client may take for a batch before it counts as slow. When the hub drops events that a live follower has
/// not read, the follower ends if its client is slow. Otherwise the cause is, for example, a hub that reads on after an
/// outage, or a busy machine. The follower then reads the dropped events from the log.
const MAX_CLIENT_PAUSE: Duration = Duration::from_secs(1);

/// Reads the events of a scope after a position, in order and without a gap.
pub(crate) struct Follower {
    sources: Arc<FeedSources>,
    scope: Scope,
    reader: ScopeReader,
    filter: FeedFilter,
    /// All events of the scope up to this position were read.
    up_to: Position,
    /// The follower counts as caught up only once it has read up to this position, from the log if the hub has not
    /// reached it.
    log_head: Position,
    catch_up: Option<Box<CatchUp>>,
    /// When the last [`Batch::Events`] was returned. `None` if the follower has caught up since.
    last_batch: Option<Instant>,
    mode: Mode,
}

/// The parts of the feed that all followers share.
pub(crate) struct FeedSources {
    pub(crate) log: Arc<dyn EventStore>,
    pub(crate) log_tag: LogTag,
    /// Turns to read a page from the log and to encode it.
    pub(crate) catch_up_turns: FairTurns,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Reads from the log the events that the hub does not have.
    CatchingUp,
    /// Reads from the hub.
    Live,
}

/// The next events of a follower.
pub(crate) enum Batch {
    /// Events that pass the filter, encoded; possibly none. The next read may return more.
    Events(Vec<Arc<FeedEvent>>),
    /// There are no more events now.
    CaughtUp,
}

/// Why a follower can't read on.
#[derive(Debug, Error)]
pub(crate) enum FollowError {
    /// The client reads slowly, and the hub has dropped events that the follower had not read.
    #[error("the follower has fallen behind by more than the server keeps for it")]
    FallenBehind,
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] EventStoreError),
}

impl Follower {
    /// Follows a scope from the first event after `after`.
    pub(crate) fn new(
        sources: Arc<FeedSources>,
        scope: Scope,
        reader: ScopeReader,
        filter: FeedFilter,
        after: Position,
    ) -> Self {
        Self {
            sources,
            scope,
            reader,
            filter,
            up_to: after,
            log_head: Position::START,
            catch_up: None,
            last_batch: None,
            mode: Mode::CatchingUp,
        }
    }

    /// All events of the scope up to this position were read.
    pub(crate) fn up_to(&self) -> Position {
        self.up_to
    }

    /// Makes [`Self::next_batch`] read on up to `log_head`, a position that the log has reached, even if the hub has
    /// not reached it.
    pub(crate) fn set_log_head(&mut self, log_head: Position) {
        self.log_head = log_head;
    }

    /// Reads the next events, without waiting for new ones. After an error of the log, the same events can be read
    /// again. Cancel safe: the same events are read again.
    pub(crate) async fn next_batch(&mut self) -> Result<Batch, FollowError> {
        // `published` is read before the scope's list. So the list holds all events of the scope up to `published`, or
        // has dropped them.
        let published = self.reader.hub().up_to();
        self.reader.mark_known();
        match self.reader.read_after(self.up_to, BATCH_EVENTS, BATCH_BYTES) {
            NewEvents::Read(events) => {
                let Some(last) = events.last() else {
                    self.up_to = self.up_to.max(published);
                    if self.up_to < self.log_head {
                        return Ok(self.read_from_log(self.log_head).await?);
                    }
                    self.mode = Mode::Live;
                    self.catch_up = None;
                    self.last_batch = None;
                    return Ok(Batch::CaughtUp);
                };
                self.mode = Mode::Live;
                self.catch_up = None;
                let up_to = last.position();
                let passing = self.filter_events(events).await?;
                Ok(self.complete_batch(passing, up_to))
            }
            NewEvents::Dropped { up_to } => {
                let is_slow = self.last_batch.is_some_and(|last| last.elapsed() > MAX_CLIENT_PAUSE);
                if self.mode == Mode::Live && is_slow {
                    return Err(FollowError::FallenBehind);
                }
                self.mode = Mode::CatchingUp;
                Ok(self.read_from_log(up_to).await?)
            }
        }
    }

    /// [`Self::next_batch`] as a future that owns the follower, and returns it with the batch.
    pub(crate) async fn into_next_batch(mut self: Box<Self>) -> (Box<Self>, Result<Batch, FollowError>) {
        let batch = self.next_batch().await;
        (self, batch)
    }

    /// Reads a page from the log. If no catch-up is in progress, begins one that ends at `target`.
    async fn read_from_log(&mut self, target: Position) -> Result<Batch, EventStoreError> {
        let sources = Arc::clone(&self.sources);
        // Held until the events are encoded, because encoding may read from the log too. The queue has no bound of its
        // own: the number of followers bounds it.
        let _turn = sources.catch_up_turns.wait(self.scope.app(), usize::MAX).await.ok();
        // `self.catch_up` is put back only when the page failed, or together with the new `self.up_to`. If this read is
        // cancelled before, the next one begins a new catch-up.
        let mut catch_up = match self.catch_up.take() {
            Some(catch_up) => catch_up,
            None => Box::new(CatchUp::begin(Arc::clone(&sources.log), self.scope, target).await?),
        };
        counter!("chat_feed_catch_up_reads_total").increment(1);
        let page = match catch_up.next_page(self.up_to).await {
            Ok(page) => page,
            Err(error) => {
                self.catch_up = Some(catch_up);
                return Err(error);
            }
        };
        let events = page.events.into_iter().filter_map(FeedEvent::from_recorded).map(Arc::new);
        let passing = self.filter_events(events.collect()).await?;
        self.catch_up = Some(catch_up).filter(|_| !page.is_last);
        Ok(self.complete_batch(passing, page.up_to))
    }

    fn complete_batch(&mut self, events: Vec<Arc<FeedEvent>>, up_to: Position) -> Batch {
        self.up_to = up_to;
        self.last_batch = Some(Instant::now());
        Batch::Events(events)
    }

    /// Returns the events that pass the filter, encoded.
    async fn filter_events(
        &self,
        events: Vec<Arc<FeedEvent>>,
    ) -> Result<Vec<Arc<FeedEvent>>, EventStoreError> {
        let mut passing = Vec::new();
        for event in events {
            if self.passes_filter(&event).await? {
                passing.push(event);
            }
        }
        Ok(passing)
    }

    /// Returns whether an event passes the filter. Encodes it if its type passes.
    async fn passes_filter(&self, event: &FeedEvent) -> Result<bool, EventStoreError> {
        if !self.filter.passes_type(event.event_type) {
            return Ok(false);
        }
        let encoded = event.encode(&*self.sources.log, self.sources.log_tag).await?;
        Ok(encoded.is_some_and(|encoded| self.filter.passes_sender(encoded)))
    }

    /// Waits for new events after [`Batch::CaughtUp`]. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        self.reader.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::{AppToken, ChatNumber};
    use chat_ports::event_store::LogId;
    use chat_sqlite::SqliteEventStore;
    use futures::StreamExt;
    use futures::stream::FuturesUnordered;
    use uuid::Uuid;

    use super::super::hub::Hub;
    use super::*;

    #[tokio::test]
    async fn apps_take_turns_to_catch_up() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Arc::new(FeedSources {
            log: Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap()),
            log_tag: LogId(Uuid::from_u128(82)).into(),
            catch_up_turns: FairTurns::new(1),
        });
        // The hub does not have the events that the followers need.
        let hub = Hub::new(Position::new(10), usize::MAX);
        let app = |name: &str| AppToken::parse(&name.repeat(AppToken::LENGTH)).unwrap();
        let first_turn = sources.catch_up_turns.wait(app("a"), 1).await.unwrap();
        let mut followers = FuturesUnordered::new();
        for name in ["a", "a", "a", "b"] {
            let scope = Scope::Chat(app(name), ChatNumber::FIRST);
            let (reader, filter) = (hub.follow(scope), FeedFilter::default());
            let follower = Follower::new(Arc::clone(&sources), scope, reader, filter, Position::START);
            let mut read = Box::pin(Box::new(follower).into_next_batch());
            assert!(futures::poll!(&mut read).is_pending(), "waits for its turn");
            followers.push(async move {
                assert!(matches!(read.await.1, Ok(Batch::Events(_))));
                name
            });
        }
        drop(first_turn);
        let mut order = String::new();
        while let Some(name) = followers.next().await {
            order.push_str(name);
        }
        assert_eq!(order, "abaa");
    }
}
