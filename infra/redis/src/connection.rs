//! The Redis connection: a background task connects, and reconnects after a failure.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::link::{Connector, Link};
use super::pipeline::{Pipeline, Reply};
use super::url::{InvalidRedisUrl, RedisUrl};
use chat_ports::backoff::Backoff;

// Short pauses between connection attempts, so that Redis is used again soon after its return.
const INITIAL_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// A connection to Redis, shared by its clones. Redis need not be available at the start; a lost connection is replaced
/// automatically.
#[derive(Clone)]
pub struct RedisConnection {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<watch::Sender<LinkState>>,
    /// The number of the latest link that failed.
    last_failed_link: watch::Sender<u64>,
    link_task: JoinHandle<()>,
    /// See [`RedisConnection::TIMEOUT`].
    timeout: Duration,
}

/// Whether a link is connected.
enum LinkState {
    /// The number of the link, and the link.
    Up(u64, Link),
    Down {
        since: Instant,
        cause: Option<Arc<RedisError>>,
    },
}

/// The error of a call that failed as a whole: there was no connection or it broke, Redis executed no commands at the
/// moment, or no reply came in time. The commands may have been executed. Worth a retry.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct RedisUnavailable(ConnectionError);

#[derive(Debug, Error)]
enum ConnectionError {
    #[error("there is no connection to Redis")]
    NotConnected(#[source] Option<Arc<RedisError>>),
    #[error("Redis did not reply in time")]
    Timeout,
    #[error("the call to Redis failed")]
    Failed(#[source] RedisError),
}

impl RedisConnection {
    /// The default time limit of a pipeline, including the wait for a connection. If the connection was lost longer ago
    /// than this, calls fail at once.
    pub const TIMEOUT: Duration = Duration::from_millis(400);

    /// Starts the task that connects, on the current runtime. Succeeds even if Redis is unavailable.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn open(url: &RedisUrl) -> Result<Self, InvalidRedisUrl> {
        Self::open_with_timeout(url, Self::TIMEOUT)
    }

    /// Like [`Self::open`], with another time limit than [`Self::TIMEOUT`].
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn open_with_timeout(url: &RedisUrl, timeout: Duration) -> Result<Self, InvalidRedisUrl> {
        let connector = Connector::new(url, timeout).map_err(|_| InvalidRedisUrl::Server)?;
        let state = Arc::new(watch::Sender::new(LinkState::Down { since: Instant::now(), cause: None }));
        let (last_failed_link, failures) = watch::channel(0);
        let link_task = tokio::spawn(maintain_link(url.clone(), connector, Arc::clone(&state), failures));
        Ok(Self { shared: Arc::new(Shared { state, last_failed_link, link_task, timeout }) })
    }

    /// Checks that Redis replies.
    pub async fn ping(&self) -> Result<(), RedisUnavailable> {
        let mut ping = Pipeline::default();
        ping.command(redis::cmd("PING"));
        let reply = self.run(&ping).await?.pop();
        reply.transpose().map(drop).map_err(|error| RedisUnavailable(ConnectionError::Failed(error)))
    }

    /// Sends a pipeline and waits for the replies, one for each command, in order. Takes one round trip, and a second
    /// one if Redis has not loaded a script. If the connection breaks, commands may be executed twice.
    pub(crate) async fn run(&self, pipeline: &Pipeline<'_>) -> Result<Vec<Reply>, RedisUnavailable> {
        let deadline = Instant::now() + self.shared.timeout;
        let mut replies = self.send_with_retry(&pipeline.commands, deadline).await?;
        let is_unknown_script = |reply: &Reply| {
            let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
            reply.as_ref().is_err_and(|error| error.kind() == no_script)
        };
        let not_run: Vec<_> = pipeline
            .invocations
            .iter()
            .filter(|invocation| is_unknown_script(&replies[invocation.index]))
            .collect();
        if not_run.is_empty() {
            return Ok(replies);
        }
        let evals: Vec<Cmd> = not_run
            .iter()
            .map(|invocation| invocation.with_script_text(&pipeline.commands[invocation.index]))
            .collect();
        let eval_replies = self.send_with_retry(&evals, deadline).await?;
        for (invocation, reply) in not_run.into_iter().zip(eval_replies) {
            replies[invocation.index] = reply;
        }
        Ok(replies)
    }

    async fn send_with_retry(
        &self,
        commands: &[Cmd],
        deadline: Instant,
    ) -> Result<Vec<Reply>, RedisUnavailable> {
        let started = Instant::now();
        let mut is_first_attempt = true;
        loop {
            let (number, mut link) = self.current_link(deadline).await?;
            let failure = match timeout_at(deadline, link.send(commands)).await {
                Ok(Ok(replies)) => return Ok(replies),
                Ok(Err(error)) => ConnectionError::Failed(error),
                Err(_) => ConnectionError::Timeout,
            };
            self.report_failed_link(number, started);
            // The connection may have been closed while idle, so the first failure is retried.
            if !is_first_attempt || matches!(failure, ConnectionError::Timeout) {
                return Err(RedisUnavailable(failure));
            }
            is_first_attempt = false;
        }
    }

    /// Returns the current link with its number. If the link was lost recently, waits for a new one.
    async fn current_link(&self, deadline: Instant) -> Result<(u64, Link), RedisUnavailable> {
        let mut state = self.shared.state.subscribe();
        let until = match &*state.borrow() {
            LinkState::Up(number, link) => return Ok((*number, link.clone())),
            LinkState::Down { since, .. } => deadline.min(*since + self.shared.timeout),
        };
        let is_up = |state: &LinkState| matches!(state, LinkState::Up(..));
        // The sender lives as long as this connection.
        let _ = timeout_at(until, state.wait_for(is_up)).await;
        match &*state.borrow() {
            LinkState::Up(number, link) => Ok((*number, link.clone())),
            LinkState::Down { cause, .. } => {
                Err(RedisUnavailable(ConnectionError::NotConnected(cause.clone())))
            }
        }
    }

    /// Requests a replacement for the link with this number. A link to a single server counts as lost from `since` on
    /// and is not used any more; a link to a cluster stays in use meanwhile, since its other servers may be healthy.
    fn report_failed_link(&self, number: u64, since: Instant) {
        self.shared.state.send_if_modified(|state| match state {
            LinkState::Up(current, Link::Single(_)) if *current == number => {
                *state = LinkState::Down { since, cause: None };
                true
            }
            _ => false,
        });
        self.shared.last_failed_link.send_if_modified(|latest| {
            let is_newer = number > *latest;
            *latest = number.max(*latest);
            is_newer
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link_task.abort();
    }
}

/// Connects a link, and replaces it whenever it is reported as failed.
async fn maintain_link(
    url: RedisUrl,
    mut connector: Connector,
    state: Arc<watch::Sender<LinkState>>,
    mut last_failed_link: watch::Receiver<u64>,
) {
    let mut number = 0;
    loop {
        number += 1;
        let link = connect(&url, &mut connector, &state).await;
        let since = Instant::now();
        state.send_replace(LinkState::Up(number, link));
        if last_failed_link.wait_for(|failed| *failed >= number).await.is_err() {
            return;
        }
        // A server may accept connections and then refuse commands: avoid a busy loop.
        if since.elapsed() < MAX_BACKOFF {
            tokio::time::sleep(INITIAL_BACKOFF).await;
        }
    }
}

async fn connect(url: &RedisUrl, connector: &mut Connector, state: &watch::Sender<LinkState>) -> Link {
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    let mut failure_logged = false;
    loop {
        let error = match connector.connect().await {
            Ok(link) if failure_logged => {
                tracing::info!(redis = %url, "connected to Redis");
                return link;
            }
            Ok(link) => return link,
            Err(error) => Arc::new(error),
        };
        if !failure_logged {
            tracing::warn!(redis = %url, error = &*error as &dyn std::error::Error, "Redis is unreachable; retrying");
            failure_logged = true;
        }
        state.send_if_modified(|state| {
            if let LinkState::Down { cause, .. } = state {
                *cause = Some(error);
            }
            false
        });
        tokio::time::sleep(backoff.next_pause()).await;
    }
}
