//! Waiting until a snapshot holds what a `Consistency-Token` asks for.

use std::time::Duration;

use chat_domain::Position;
use chat_ports::read_model::Snapshot;
use chat_web::consistency::Freshness;
use chat_web::{ErrorCode, Problem};
use metrics::{counter, histogram};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// Queries that wait at a time. Each looks every few milliseconds, so the bound is also one on the engine's load.
const MAX_WAITING_QUERIES: usize = 512;

/// How often a query looks while another process projects.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How often it looks where a projector of this process wakes it: that one may be standing by for another's.
const FALLBACK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Bounds the queries that wait.
pub(crate) struct ConsistencyWaiter(Semaphore);

impl ConsistencyWaiter {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(MAX_WAITING_QUERIES))
    }

    /// Answers `query` as of `freshness.at_least` or later.
    ///
    /// The query runs first and its snapshot is looked at then: mostly it is fresh enough, and nothing was spent on
    /// finding out.
    pub(crate) async fn query_when_fresh<T, E, F>(
        &self,
        freshness: Freshness,
        progress: Option<&watch::Receiver<Position>>,
        query: impl Fn() -> F,
    ) -> Result<Snapshot<T>, Problem>
    where
        F: Future<Output = Result<Snapshot<T>, E>>,
        Problem: From<E>,
    {
        let first = query().await?;
        let Some(at_least) = freshness.min_position.filter(|position| first.position < *position) else {
            return Ok(first);
        };
        drop(first);
        let _waiting = self.0.try_acquire().map_err(|_| {
            Problem::new(
                ErrorCode::ReadModelBehind,
                "too many queries wait for their consistency token already",
            )
        })?;
        counter!("query_waits_total").increment(1);
        let started = Instant::now();
        let deadline = started + freshness.max_wait;
        let mut progress = progress.cloned();
        loop {
            let before_deadline = timeout_at(deadline, wait_for_retry(&mut progress, at_least)).await.is_ok();
            let snapshot = query().await?;
            if snapshot.position >= at_least {
                histogram!("query_wait_duration_seconds").record(started.elapsed());
                return Ok(snapshot);
            }
            if !before_deadline {
                return Err(ErrorCode::ReadModelBehind.into());
            }
        }
    }
}

/// Returns when looking again makes sense.
async fn wait_for_retry(progress: &mut Option<watch::Receiver<Position>>, at_least: Position) {
    let Some(told) = progress else { return sleep(POLL_INTERVAL).await };
    let reached = async { told.wait_for(|position| *position >= at_least).await.is_ok() };
    let woken = tokio::select! {
        _ = reached => true,
        () = sleep(FALLBACK_POLL_INTERVAL) => false,
    };
    if woken {
        // It has told all that it can: if readers don't see the position yet, they are asked now and then.
        *progress = None;
    }
}
