//! A connection that is kept: a task makes it, and makes another one where it fails.

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

/// Pauses between attempts to connect double up to the longest, so that Redis is found again soon after it is back.
const INITIAL_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// A connection to Redis that is shared by whoever has a clone. It need not be there from the start, and is made again
/// by itself when it is lost.
#[derive(Clone)]
pub struct RedisConnection {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<watch::Sender<LinkState>>,
    /// The number of the latest link that did not do.
    failed_links: watch::Sender<u64>,
    link_task: JoinHandle<()>,
}

/// Whether there is a connection.
enum LinkState {
    /// Links are numbered.
    Up(u64, Link),
    Down {
        since: Instant,
        cause: Option<Arc<RedisError>>,
    },
}

/// Redis did not answer, or not in time. What was asked for may have been carried out or not. Worth a retry.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct RedisUnavailable(ConnectionError);

#[derive(Debug, Error)]
enum ConnectionError {
    #[error("there is no connection to Redis")]
    NotConnected(#[source] Option<Arc<RedisError>>),
    #[error("Redis did not answer in time")]
    Timeout,
    #[error("Redis did not answer")]
    Failed(#[source] RedisError),
}

impl RedisConnection {
    /// How long a pipeline waits for its answer, or for a connection. A connection that was lost longer ago than this
    /// is not waited for.
    pub const TIMEOUT: Duration = Duration::from_millis(400);

    /// Starts a task, on the runtime that calls, that connects and keeps the connection. This succeeds wherever the
    /// address can be one, whether Redis is there or not.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn open(url: &RedisUrl) -> Result<Self, InvalidRedisUrl> {
        let opener = Connector::new(url).map_err(|_| InvalidRedisUrl::Server)?;
        let standing = Arc::new(watch::Sender::new(LinkState::Down { since: Instant::now(), cause: None }));
        let (complaints, heard) = watch::channel(0);
        let keeper = tokio::spawn(maintain_link(url.clone(), opener, Arc::clone(&standing), heard));
        Ok(Self { shared: Arc::new(Shared { state: standing, failed_links: complaints, link_task: keeper }) })
    }

    /// Whether Redis answers now.
    pub async fn ping(&self) -> Result<(), RedisUnavailable> {
        let mut ping = Pipeline::default();
        ping.command(redis::cmd("PING"));
        let reply = self.run(&ping).await?.pop();
        reply.transpose().map(drop).map_err(|error| RedisUnavailable(ConnectionError::Failed(error)))
    }

    /// Sends a pipeline and waits for the answers, one for each command, in order. One round trip; a second, where
    /// Redis does not remember a script. Commands whose connection breaks may be carried out twice.
    pub(crate) async fn run(&self, pipeline: &Pipeline<'_>) -> Result<Vec<Reply>, RedisUnavailable> {
        let deadline = Instant::now() + Self::TIMEOUT;
        let mut replies = self.send_with_retry(&pipeline.commands, deadline).await?;
        let forgotten = |reply: &Reply| {
            let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
            reply.as_ref().is_err_and(|error| error.kind() == no_script)
        };
        let forgotten: Vec<_> =
            pipeline.invocations.iter().filter(|script| forgotten(&replies[script.index])).collect();
        if forgotten.is_empty() {
            return Ok(replies);
        }
        let evals: Vec<Cmd> = forgotten
            .iter()
            .map(|script| script.with_script_text(&pipeline.commands[script.index]))
            .collect();
        let answered = self.send_with_retry(&evals, deadline).await?;
        for (script, reply) in forgotten.into_iter().zip(answered) {
            replies[script.index] = reply;
        }
        Ok(replies)
    }

    async fn send_with_retry(
        &self,
        commands: &[Cmd],
        deadline: Instant,
    ) -> Result<Vec<Reply>, RedisUnavailable> {
        let begun = Instant::now();
        let mut first = true;
        loop {
            let (number, mut link) = self.current_link(deadline).await?;
            let failure = match timeout_at(deadline, link.send(commands)).await {
                Ok(Ok(replies)) => return Ok(replies),
                Ok(Err(error)) => ConnectionError::Failed(error),
                Err(_) => ConnectionError::Timeout,
            };
            self.report_failed_link(number, begun);
            // A connection may have been closed long before it was used.
            if !first || matches!(failure, ConnectionError::Timeout) {
                return Err(RedisUnavailable(failure));
            }
            first = false;
        }
    }

    /// The link, which is waited for where it was lost just now.
    async fn current_link(&self, deadline: Instant) -> Result<(u64, Link), RedisUnavailable> {
        let mut standing = self.shared.state.subscribe();
        let until = match &*standing.borrow() {
            LinkState::Up(number, link) => return Ok((*number, link.clone())),
            LinkState::Down { since, .. } => deadline.min(*since + Self::TIMEOUT),
        };
        let is_up = |standing: &LinkState| matches!(standing, LinkState::Up(..));
        // The sender is there as long as this connection is.
        let _ = timeout_at(until, standing.wait_for(is_up)).await;
        match &*standing.borrow() {
            LinkState::Up(number, link) => Ok((*number, link.clone())),
            LinkState::Down { cause, .. } => {
                Err(RedisUnavailable(ConnectionError::NotConnected(cause.clone())))
            }
        }
    }

    /// Asks for another link instead of a numbered one. One that goes to a single server is not used any more; a
    /// cluster's goes on, since most of its servers may be well.
    fn report_failed_link(&self, number: u64, since: Instant) {
        self.shared.state.send_if_modified(|standing| match standing {
            LinkState::Up(current, Link::Single(_)) if *current == number => {
                *standing = LinkState::Down { since, cause: None };
                true
            }
            _ => false,
        });
        self.shared.failed_links.send_if_modified(|latest| {
            let newer = number > *latest;
            *latest = number.max(*latest);
            newer
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link_task.abort();
    }
}

/// Makes a link, and another one whenever somebody complains.
async fn maintain_link(
    url: RedisUrl,
    mut connector: Connector,
    state: Arc<watch::Sender<LinkState>>,
    mut failed_links: watch::Receiver<u64>,
) {
    let mut number = 0;
    loop {
        number += 1;
        let link = connect(&url, &mut connector, &state).await;
        let since = Instant::now();
        state.send_replace(LinkState::Up(number, link));
        if failed_links.wait_for(|complaint| *complaint >= number).await.is_err() {
            return;
        }
        // Connecting does not help where a server accepts connections and refuses to work.
        if since.elapsed() < MAX_BACKOFF {
            tokio::time::sleep(INITIAL_BACKOFF).await;
        }
    }
}

async fn connect(url: &RedisUrl, opener: &mut Connector, standing: &watch::Sender<LinkState>) -> Link {
    let mut pause = INITIAL_BACKOFF;
    let mut failure_logged = false;
    loop {
        let error = match opener.connect().await {
            Ok(link) if failure_logged => {
                tracing::info!(redis = %url, "Redis is there again");
                return link;
            }
            Ok(link) => return link,
            Err(error) => Arc::new(error),
        };
        if !failure_logged {
            tracing::warn!(redis = %url, error = &*error as &dyn std::error::Error, "Redis can't be reached; trying again");
            failure_logged = true;
        }
        standing.send_if_modified(|standing| {
            if let LinkState::Down { cause, .. } = standing {
                *cause = Some(error);
            }
            false
        });
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_BACKOFF);
    }
}
