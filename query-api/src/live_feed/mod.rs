//! The live feed: the events of an app or a chat as they are appended, from any position of the log.
//!
//! All followers of a process share one subscription to the log. The first follower begins it. The hub holds the newest
//! events, and wakes the followers of a scope when the scope has new events. A [`Follower`] reads events that are older
//! than those in the hub from the log.

mod catch_up;
mod event;
mod filter;
mod follower;
mod hub;
mod subscription;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_web::consistency::LogTag;
use chat_web::{ErrorCode, Problem};
use metrics::{Gauge, counter, gauge};
use tokio::sync::{OnceCell, watch};

use crate::fair_share::{FairPermits, FairTurns, Permit, Tenant};

pub(crate) use self::catch_up::last_chat;
pub(crate) use self::event::{FeedEvent, FeedEventType, Scope};
pub(crate) use self::filter::FeedFilter;
pub(crate) use self::follower::{Batch, FollowError, Follower};

use self::follower::FeedSources;
use self::subscription::{Heartbeats, LogSubscription};

/// The most followers that read pages from the log at a time. Apps get these turns one after another.
const CONCURRENT_CATCH_UPS: usize = 8;

/// The bounds of a process's live feed, and the signal that ends it.
#[derive(Clone, Debug)]
pub struct LiveFeedOptions {
    /// Clients that may follow at a time. An app may add a client while it has fewer clients than there are free places.
    pub max_followers: usize,
    /// The most bytes of the newest events that are held for followers.
    pub buffer_bytes: usize,
    /// Set when the process is stopping, which ends all feeds. They end too if the sender is dropped.
    pub stopping: watch::Receiver<bool>,
}

impl LiveFeedOptions {
    /// The followers that a process takes by default: fewer than the connections that it takes by default, so that
    /// other clients can connect too.
    pub const DEFAULT_FOLLOWERS: usize = 8_000;

    /// The bytes of events that a process holds by default.
    pub const DEFAULT_BUFFER_BYTES: usize = 16 * 1024 * 1024;

    /// The default bounds.
    pub fn new(stopping: watch::Receiver<bool>) -> Self {
        let (max_followers, buffer_bytes) = (Self::DEFAULT_FOLLOWERS, Self::DEFAULT_BUFFER_BYTES);
        Self { max_followers, buffer_bytes, stopping }
    }
}

/// The live feed of a process.
pub(crate) struct LiveFeed {
    sources: Arc<FeedSources>,
    options: LiveFeedOptions,
    permits: FairPermits,
    /// Begun by the first follower.
    subscription: OnceCell<LogSubscription>,
    /// The number of the next follower.
    next_number: AtomicUsize,
}

/// The permit of a client to follow the feed, with what its response needs besides the events.
pub(crate) struct FollowerPermit {
    /// The number of the client, different for each, to spread the clients' heartbeats and reconnects over time.
    pub(crate) number: usize,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) stopping: Stopping,
    pub(crate) log_tag: LogTag,
    gauge: Gauge,
    _permit: Permit,
}

impl LiveFeed {
    pub(crate) fn new(log: Arc<dyn EventStore>, log_tag: LogTag, options: LiveFeedOptions) -> Self {
        let sources = FeedSources { log, log_tag, catch_up_turns: FairTurns::new(CONCURRENT_CATCH_UPS) };
        Self {
            sources: Arc::new(sources),
            permits: FairPermits::new(options.max_followers),
            options,
            subscription: OnceCell::new(),
            next_number: AtomicUsize::new(0),
        }
    }

    /// Follows a scope that exists, from the first event after `after`.
    pub(crate) async fn follow(
        &self,
        scope: Scope,
        filter: FeedFilter,
        after: Position,
    ) -> Result<(Follower, FollowerPermit), Problem> {
        let permit = self.permits.try_acquire(Tenant::App(scope.app())).ok_or_else(|| {
            counter!("chat_feed_refused_total").increment(1);
            Problem::new(ErrorCode::Overloaded, "too many clients follow events; try again later")
        })?;
        let subscription = self.subscription.get_or_try_init(|| self.subscribe()).await?;
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let gauge = gauge!("chat_feed_followers");
        gauge.increment(1.0);
        let permit = FollowerPermit {
            number,
            heartbeats: subscription.heartbeats(number),
            stopping: Stopping(self.options.stopping.clone()),
            log_tag: self.sources.log_tag,
            gauge,
            _permit: permit,
        };
        let reader = subscription.hub().follow(scope);
        Ok((Follower::new(Arc::clone(&self.sources), scope, reader, filter, after), permit))
    }

    async fn subscribe(&self) -> Result<LogSubscription, EventStoreError> {
        LogSubscription::begin(Arc::clone(&self.sources.log), self.options.buffer_bytes).await
    }
}

/// The signal that the process is stopping.
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the signal. Cancel safe.
    pub(crate) async fn stopped(&mut self) {
        // An error means that the sender was dropped, so the process is ending.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

impl Drop for FollowerPermit {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}

/// Counts events that are sent to a client.
pub(crate) fn count_sent(events: u64) {
    counter!("chat_feed_events_sent_total").increment(events);
}
