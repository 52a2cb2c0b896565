//! The one subscription of a process to the log, and the heartbeats of the process's followers.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::error_chain;
use chat_ports::event_store::{EventStore, EventStoreError, Subscription};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error};

use super::hub::Hub;

/// The hub begins with about this number of the log's newest events, so that clients that reconnect after a short
/// restart don't have to read the log.
const INITIAL_EVENTS: usize = 2_048;

/// The most events in one batch of the subscription.
const BATCH_EVENTS: usize = 512;

/// The pause before a failed read is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The seconds between two heartbeats of a follower. Proxies close connections that are idle for longer, often after 30
/// or 60 seconds.
pub(crate) const HEARTBEAT_SECONDS: usize = 15;

/// The running subscription. It ends when it is dropped.
pub(crate) struct LogSubscription {
    hub: Arc<Hub>,
    /// Each sender notifies one group of followers. The groups take turns, one each second.
    heartbeats: Arc<[watch::Sender<()>]>,
    _tasks: JoinSet<()>,
}

/// The heartbeats of one follower.
pub(crate) struct Heartbeats(watch::Receiver<()>);

impl LogSubscription {
    /// Subscribes to the log, beginning with its newest events.
    pub(crate) async fn begin(
        log: Arc<dyn EventStore>,
        buffer_bytes: usize,
    ) -> Result<Self, EventStoreError> {
        let newest = log.read_all_backwards(None, INITIAL_EVENTS).await?;
        // The hub begins after the oldest event that was read, because the position before that event is not known. If
        // that event is the log's first one, the hub could include it. That is not worth a special case.
        let after = newest.last().map_or(Position::START, |oldest| oldest.position);
        let hub = Hub::new(after, buffer_bytes);
        let heartbeats: Arc<[_]> = (0..HEARTBEAT_SECONDS).map(|_| watch::Sender::new(())).collect();
        let mut tasks = JoinSet::new();
        tasks.spawn(publish_events(log, Arc::clone(&hub)));
        tasks.spawn(send_heartbeats(Arc::clone(&heartbeats)));
        Ok(Self { hub, heartbeats, _tasks: tasks })
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Returns the heartbeats of a follower. Its number decides in which group it is.
    pub(crate) fn heartbeats(&self, follower_number: usize) -> Heartbeats {
        Heartbeats(self.heartbeats[follower_number % HEARTBEAT_SECONDS].subscribe())
    }
}

impl Heartbeats {
    /// Waits for the next heartbeat. Cancel safe.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The process is ending.
            std::future::pending::<()>().await;
        }
    }
}

/// Publishes all events of the log after the hub's position. Continues after outages.
async fn publish_events(log: Arc<dyn EventStore>, hub: Arc<Hub>) {
    let mut subscription = None;
    let mut is_failing = false;
    loop {
        match publish_next(&*log, &hub, &mut subscription).await {
            Ok(()) => is_failing = false,
            Err(error) => {
                subscription = None;
                let (position, cause) = (hub.up_to().get(), error_chain(&error));
                if error.is_retryable() || is_failing {
                    debug!(position, cause, "the live feed can't read the log; retrying");
                } else {
                    error!(position, cause, "the live feed can't read the log; retrying");
                }
                is_failing = true;
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn publish_next(
    log: &dyn EventStore,
    hub: &Hub,
    subscription: &mut Option<Box<dyn Subscription>>,
) -> Result<(), EventStoreError> {
    let subscription = match subscription {
        Some(subscription) => subscription,
        None => subscription.insert(log.subscribe(hub.up_to()).await?),
    };
    let batch = subscription.next(BATCH_EVENTS).await?;
    hub.publish(batch.events, batch.up_to);
    Ok(())
}

/// Notifies one group of followers each second.
async fn send_heartbeats(groups: Arc<[watch::Sender<()>]>) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for group in groups.iter().cycle() {
        seconds.tick().await;
        group.send_replace(());
    }
}
