//! Follows the head of the log for the subscriptions of a process.
//!
//! Each append notifies the channel of the log, and a task of the process listens to it. Notifications only save time,
//! because the task also polls the head. While notifications work, the task polls after each second without one. While
//! they don't work, it polls many times a second. Whether they work is tested each time that the task starts to listen.
//! They don't work through a connection pooler in transaction mode: after each transaction, the pooler may give another
//! client the connection on which the task listens.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chat_domain::Position;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Error, query};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::server::LogServer;

/// The channel of the log. `append` in schema.sql notifies it with the new head.
const CHANNEL: &str = "chat_event_log";

/// The payload of the test notification.
const TEST_PAYLOAD: &str = "test";

/// The time without a notification after which the head is polled, while notifications work.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The interval of polling while notifications don't work.
const POLL_INTERVAL_WITHOUT_NOTIFICATIONS: Duration = Duration::from_millis(50);

/// The time limit of the arrival of the test notification. Connecting and the test together may take twice this time.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause before listening again after listening or a poll failed.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// The pause before listening again after notifications did not arrive.
const PAUSE_WITHOUT_NOTIFICATIONS: Duration = Duration::from_secs(30);

/// The head of the log as this process knows it. The task that follows it starts with the first subscription.
pub(super) struct HeadWatch {
    server: Arc<LogServer>,
    head: Arc<watch::Sender<Position>>,
    task: OnceLock<JoinHandle<()>>,
}

impl HeadWatch {
    pub(super) fn new(server: Arc<LogServer>, head: Position) -> Self {
        Self { server, head: Arc::new(watch::Sender::new(head)), task: OnceLock::new() }
    }

    /// Records that the log has reached a position, and wakes the subscriptions.
    pub(super) fn advance(&self, head: Position) {
        advance(&self.head, head);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Position> {
        self.task.get_or_init(|| {
            tokio::spawn(
                HeadFollower {
                    server: Arc::clone(&self.server),
                    head: Arc::clone(&self.head),
                    warned: false,
                }
                .run(),
            )
        });
        self.head.subscribe()
    }
}

impl Drop for HeadWatch {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

fn advance(head: &watch::Sender<Position>, to: Position) {
    head.send_if_modified(|head| {
        let is_later = to > *head;
        *head = to.max(*head);
        is_later
    });
}

/// The task that follows the head.
struct HeadFollower {
    server: Arc<LogServer>,
    head: Arc<watch::Sender<Position>>,
    /// Whether a warning was logged since notifications last arrived.
    warned: bool,
}

/// Why a listener can't be used.
enum ListenError {
    /// The server can't be reached.
    Failed,
    /// The listener is connected, but the test notification did not arrive.
    NothingArrives,
}

impl From<Error> for ListenError {
    fn from(_: Error) -> Self {
        Self::Failed
    }
}

impl HeadFollower {
    async fn run(mut self) {
        loop {
            let pause = match timeout(2 * LISTEN_TIMEOUT, self.listen()).await {
                Ok(Ok(listener)) => {
                    self.warned = false;
                    self.follow(listener).await
                }
                Ok(Err(ListenError::NothingArrives)) => {
                    self.warn_once();
                    PAUSE_WITHOUT_NOTIFICATIONS
                }
                Ok(Err(ListenError::Failed)) | Err(_) => RECONNECT_PAUSE,
            };
            let until = Instant::now() + pause;
            while Instant::now() < until {
                self.poll().await;
                sleep(POLL_INTERVAL_WITHOUT_NOTIFICATIONS).await;
            }
        }
    }

    /// Listens, and checks that a notification from another connection arrives.
    async fn listen(&self) -> Result<PgListener, ListenError> {
        let pool =
            PgPoolOptions::new().max_connections(1).connect_lazy_with(self.server.plain_options().clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        let mut other = self.server.connect().await.map_err(|_| ListenError::Failed)?;
        query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(TEST_PAYLOAD).execute(&mut other).await?;
        match timeout(LISTEN_TIMEOUT, listener.try_recv()).await {
            Ok(Ok(Some(_))) => Ok(listener),
            Ok(Ok(None) | Err(_)) => Err(ListenError::Failed),
            Err(_) => Err(ListenError::NothingArrives),
        }
    }

    /// Follows the notifications until they no longer arrive. Returns how long to poll before listening again.
    async fn follow(&mut self, mut listener: PgListener) -> Duration {
        // The highest head that a notification has announced; at first, the head that was polled.
        let Some(mut notified) = self.poll().await else { return RECONNECT_PAUSE };
        let mut polled = notified;
        loop {
            tokio::select! {
                notification = listener.try_recv() => match notification {
                    Ok(Some(notification)) => {
                        if let Ok(head) = notification.payload().parse() {
                            notified = notified.max(Position::new(head));
                            advance(&self.head, notified);
                        }
                    }
                    Ok(None) | Err(_) => return Duration::ZERO,
                },
                () = sleep(POLL_INTERVAL) => {
                    // A notification of the head of the previous poll should have arrived by now.
                    if polled > notified {
                        self.warn_once();
                        return PAUSE_WITHOUT_NOTIFICATIONS;
                    }
                    match self.poll().await {
                        Some(head) => polled = head,
                        None => return RECONNECT_PAUSE,
                    }
                }
            }
        }
    }

    async fn poll(&self) -> Option<Position> {
        let head = self.server.head().await.ok()?;
        advance(&self.head, head);
        Some(head)
    }

    fn warn_once(&mut self) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                "notifications of the event log in Postgres do not arrive, as behind a connection pooler in transaction mode; \
                 the log is polled every {} ms instead",
                POLL_INTERVAL_WITHOUT_NOTIFICATIONS.as_millis()
            );
        }
    }
}
