//! A connection that is kept: a task makes it, and makes another one where it fails.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::link::{Link, Opener};
use super::pipeline::{Pipeline, Reply};
use super::url::{InvalidRedisUrl, RedisUrl};

/// Pauses between attempts to connect double up to the longest, so that Redis is found again soon after it is back.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A connection to Redis that is shared by whoever has a clone. It need not be there from the start, and is made again
/// by itself when it is lost.
#[derive(Clone)]
pub struct RedisConnection {
    shared: Arc<Shared>,
}

struct Shared {
    standing: Arc<watch::Sender<Standing>>,
    /// The number of the latest link that did not do.
    complaints: watch::Sender<u64>,
    keeper: JoinHandle<()>,
}

/// Whether there is a connection.
enum Standing {
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
pub struct RedisUnavailable(Failure);

#[derive(Debug, Error)]
enum Failure {
    #[error("there is no connection to Redis")]
    NotConnected(#[source] Option<Arc<RedisError>>),
    #[error("Redis did not answer in time")]
    TooSlow,
    #[error("Redis did not answer")]
    Failed(#[source] RedisError),
}

impl RedisConnection {
    /// How long a pipeline waits for its answer, or for a connection. A connection that was lost longer ago than this
    /// is not waited for.
    pub const PATIENCE: Duration = Duration::from_millis(400);

    /// Starts a task, on the runtime that calls, that connects and keeps the connection. This succeeds wherever the
    /// address can be one, whether Redis is there or not.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn open(url: &RedisUrl) -> Result<Self, InvalidRedisUrl> {
        let opener = Opener::new(url).map_err(|_| InvalidRedisUrl::Server)?;
        let standing = Arc::new(watch::Sender::new(Standing::Down { since: Instant::now(), cause: None }));
        let (complaints, heard) = watch::channel(0);
        let keeper = tokio::spawn(keep(url.clone(), opener, Arc::clone(&standing), heard));
        Ok(Self { shared: Arc::new(Shared { standing, complaints, keeper }) })
    }

    /// Whether Redis answers now.
    pub async fn check(&self) -> Result<(), RedisUnavailable> {
        let mut ping = Pipeline::default();
        ping.command(redis::cmd("PING"));
        let reply = self.run(&ping).await?.pop();
        reply.transpose().map(drop).map_err(|error| RedisUnavailable(Failure::Failed(error)))
    }

    /// Sends a pipeline and waits for the answers, one for each command, in order. One round trip; a second, where
    /// Redis does not remember a script. Commands whose connection breaks may be carried out twice.
    pub(crate) async fn run(&self, pipeline: &Pipeline<'_>) -> Result<Vec<Reply>, RedisUnavailable> {
        let deadline = Instant::now() + Self::PATIENCE;
        let mut replies = self.exchange(&pipeline.commands, deadline).await?;
        let forgotten = |reply: &Reply| {
            let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
            reply.as_ref().is_err_and(|error| error.kind() == no_script)
        };
        let forgotten: Vec<_> =
            pipeline.scripts.iter().filter(|script| forgotten(&replies[script.place])).collect();
        if forgotten.is_empty() {
            return Ok(replies);
        }
        let in_full: Vec<Cmd> =
            forgotten.iter().map(|script| script.in_full(&pipeline.commands[script.place])).collect();
        let answered = self.exchange(&in_full, deadline).await?;
        for (script, reply) in forgotten.into_iter().zip(answered) {
            replies[script.place] = reply;
        }
        Ok(replies)
    }

    async fn exchange(&self, commands: &[Cmd], deadline: Instant) -> Result<Vec<Reply>, RedisUnavailable> {
        let begun = Instant::now();
        let mut first = true;
        loop {
            let (number, mut link) = self.link(deadline).await?;
            let failure = match timeout_at(deadline, link.send(commands)).await {
                Ok(Ok(replies)) => return Ok(replies),
                Ok(Err(error)) => Failure::Failed(error),
                Err(_) => Failure::TooSlow,
            };
            self.complain(number, begun);
            // A connection may have been closed long before it was used.
            if !first || matches!(failure, Failure::TooSlow) {
                return Err(RedisUnavailable(failure));
            }
            first = false;
        }
    }

    /// The link, which is waited for where it was lost just now.
    async fn link(&self, deadline: Instant) -> Result<(u64, Link), RedisUnavailable> {
        let mut standing = self.shared.standing.subscribe();
        let until = match &*standing.borrow() {
            Standing::Up(number, link) => return Ok((*number, link.clone())),
            Standing::Down { since, .. } => deadline.min(*since + Self::PATIENCE),
        };
        let is_up = |standing: &Standing| matches!(standing, Standing::Up(..));
        // The sender is there as long as this connection is.
        let _ = timeout_at(until, standing.wait_for(is_up)).await;
        match &*standing.borrow() {
            Standing::Up(number, link) => Ok((*number, link.clone())),
            Standing::Down { cause, .. } => Err(RedisUnavailable(Failure::NotConnected(cause.clone()))),
        }
    }

    /// Asks for another link instead of a numbered one. One that goes to a single server is not used any more; a
    /// cluster's goes on, since most of its servers may be well.
    fn complain(&self, number: u64, since: Instant) {
        self.shared.standing.send_if_modified(|standing| match standing {
            Standing::Up(current, Link::One(_)) if *current == number => {
                *standing = Standing::Down { since, cause: None };
                true
            }
            _ => false,
        });
        self.shared.complaints.send_if_modified(|latest| {
            let newer = number > *latest;
            *latest = number.max(*latest);
            newer
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Makes a link, and another one whenever somebody complains.
async fn keep(
    url: RedisUrl,
    mut opener: Opener,
    standing: Arc<watch::Sender<Standing>>,
    mut complaints: watch::Receiver<u64>,
) {
    let mut number = 0;
    loop {
        number += 1;
        let link = open(&url, &mut opener, &standing).await;
        let since = Instant::now();
        standing.send_replace(Standing::Up(number, link));
        if complaints.wait_for(|complaint| *complaint >= number).await.is_err() {
            return;
        }
        // Connecting does not help where a server accepts connections and refuses to work.
        if since.elapsed() < LONGEST_PAUSE {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }
}

async fn open(url: &RedisUrl, opener: &mut Opener, standing: &watch::Sender<Standing>) -> Link {
    let mut pause = FIRST_PAUSE;
    let mut noted = false;
    loop {
        let error = match opener.open().await {
            Ok(link) if noted => {
                tracing::info!(redis = %url, "Redis is there again");
                return link;
            }
            Ok(link) => return link,
            Err(error) => Arc::new(error),
        };
        if !noted {
            tracing::warn!(redis = %url, error = &*error as &dyn std::error::Error, "Redis can't be reached; trying again");
            noted = true;
        }
        standing.send_if_modified(|standing| {
            if let Standing::Down { cause, .. } = standing {
                *cause = Some(error);
            }
            false
        });
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
