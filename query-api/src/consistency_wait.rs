//! Consistency waits: repeats a query until its snapshot has reached the position that its client requires.

use std::time::Duration;

use chat_domain::Position;
use chat_ports::read_model::Snapshot;
use chat_web::consistency::Freshness;
use chat_web::{ErrorCode, Problem};
use metrics::{counter, histogram};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// The number of queries that may wait at a time. Each polls the engine, so this also bounds the engine's load.
const MAX_WAITING_QUERIES: usize = 512;

/// How often a waiting query polls if another process projects.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How often it polls although a projector of this process wakes it: that projector may be a standby of another process.
const FALLBACK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Runs queries that may have to wait, a bounded number at a time.
pub(crate) struct ConsistencyWaiter(Semaphore);

impl ConsistencyWaiter {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(MAX_WAITING_QUERIES))
    }

    /// Runs `query` until its snapshot is at `freshness.min_position` or later, at most for `freshness.max_wait`.
    ///
    /// The query runs before the position is known: mostly it is fresh enough, and no separate read was needed.
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
        let Some(min_position) = freshness.min_position.filter(|position| first.position < *position) else {
            return Ok(first);
        };
        drop(first);
        let _waiting = self.0.try_acquire().map_err(|_| {
            Problem::new(
                ErrorCode::ReadModelBehind,
                "too many queries are waiting for their consistency token",
            )
        })?;
        counter!("query_waits_total").increment(1);
        let started = Instant::now();
        let deadline = started + freshness.max_wait;
        let mut progress = progress.cloned();
        loop {
            let before_deadline =
                timeout_at(deadline, wait_for_retry(&mut progress, min_position)).await.is_ok();
            let snapshot = query().await?;
            if snapshot.position >= min_position {
                histogram!("query_wait_duration_seconds").record(started.elapsed());
                return Ok(snapshot);
            }
            if !before_deadline {
                return Err(ErrorCode::ReadModelBehind.into());
            }
        }
    }
}

/// Waits until the projector has reached the position, or until the next poll is due.
async fn wait_for_retry(progress: &mut Option<watch::Receiver<Position>>, min_position: Position) {
    let Some(receiver) = progress else { return sleep(POLL_INTERVAL).await };
    let reached = async { receiver.wait_for(|position| *position >= min_position).await.is_ok() };
    let woken = tokio::select! {
        _ = reached => true,
        () = sleep(FALLBACK_POLL_INTERVAL) => false,
    };
    if woken {
        // The receiver has nothing more to report. If the reader does not see the position yet, it is polled.
        *progress = None;
    }
}
