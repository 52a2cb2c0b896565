//! Consistency waits: repeats a query until its snapshot has reached the position that its client requires.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::read_model::Snapshot;
use chat_web::consistency::Freshness;
use chat_web::{ErrorCode, Problem};
use metrics::{counter, histogram};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::fair_share::{FairPermits, Tenant};
use crate::log_head::LogHead;

/// The number of queries that may wait at a time. Each polls the engine, so this also bounds the engine's load.
const MAX_WAITING_QUERIES: usize = 512;

/// The time between two polls of a waiting query that nothing wakes, for example because the projector runs in another
/// process.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The time between two polls if this process publishes positions, which wake the query. The polls are still needed:
/// this process's projector may be on standby while another process projects, and the tail of the search index may have
/// paused.
const FALLBACK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Runs queries, of which a bounded number may wait at a time. A query needs a permit to wait. The permits are shared
/// fairly between the apps.
pub(crate) struct ConsistencyWaiter {
    permits: FairPermits,
    log_head: Arc<LogHead>,
}

impl ConsistencyWaiter {
    pub(crate) fn new(log_head: Arc<LogHead>) -> Self {
        Self { permits: FairPermits::new(MAX_WAITING_QUERIES), log_head }
    }

    /// Runs `query` until its snapshot is at `freshness.min_position` or later, at most for `freshness.max_wait`. The
    /// wait is counted for the tenant that `tenant_of` returns. Rejects a position that the log has not reached.
    ///
    /// The query runs first, without a separate read of the position: its snapshot is usually fresh enough.
    pub(crate) async fn query_when_fresh<T, E, F>(
        &self,
        freshness: Freshness,
        progress: Option<&watch::Receiver<Position>>,
        tenant_of: impl FnOnce(&T) -> Tenant,
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
        let tenant = tenant_of(&first.value);
        drop(first);
        self.log_head.require(min_position).await?;
        let _permit = self.permits.try_acquire(tenant).ok_or_else(|| {
            Problem::new(
                ErrorCode::ReadModelBehind,
                "too many queries are waiting for their consistency token",
            )
        })?;
        counter!("chat_query_waits_total").increment(1);
        let started = Instant::now();
        let deadline = started + freshness.max_wait;
        let mut progress = progress.cloned();
        loop {
            let before_deadline =
                timeout_at(deadline, wait_for_retry(&mut progress, min_position)).await.is_ok();
            let snapshot = query().await?;
            if snapshot.position >= min_position {
                histogram!("chat_query_wait_duration_seconds").record(started.elapsed());
                return Ok(snapshot);
            }
            if !before_deadline {
                return Err(ErrorCode::ReadModelBehind.into());
            }
        }
    }
}

/// Waits until this process has published the position, or until the next poll is due.
async fn wait_for_retry(progress: &mut Option<watch::Receiver<Position>>, min_position: Position) {
    let Some(receiver) = progress else { return sleep(POLL_INTERVAL).await };
    let reached = async { receiver.wait_for(|position| *position >= min_position).await.is_ok() };
    let woken = tokio::select! {
        _ = reached => true,
        () = sleep(FALLBACK_POLL_INTERVAL) => false,
    };
    if woken {
        // Either this process has published the position. Then the query polls until its own snapshot has reached it
        // too. Or the publisher has ended, and will not wake the query again.
        *progress = None;
    }
}
