//! The projector: follows the log, folds it into one projection, and recovers from failures.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use chat_domain::Position;
use chat_ports::backoff::Backoff;
use chat_ports::event_store::{EventBatch, EventStore, EventStoreError, LogId, LogMismatch};
use chat_ports::projection_checkpoint::StorageOrigin;
use chat_ports::{clock, error_chain};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::dead_letters::advance_projection;
use crate::generations::heartbeats::publish_heartbeats;
use crate::projection::{Projection, ProjectionError, ProjectionStore, ensure_log_matches};
use crate::read_ahead::ReadAhead;
use crate::status::{PERMISSION_DENIED, ProjectorState, ProjectorStatus, StatusReporter};

/// The interval at which the head of the log and the stored checkpoint are checked.
const HEAD_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A projector counts as live if the first event of a batch is younger than this once the batch is applied. For a store
/// with pauses between batches, [`LIVE_EVENT_AGE_PAUSES`] times `min_live_rest` is added to this age.
const MAX_LIVE_EVENT_AGE: Duration = Duration::from_secs(1);
/// How many of a store's pauses are added to [`MAX_LIVE_EVENT_AGE`]: events wait for the end of a pause, and the large
/// batches after it take time to apply.
const LIVE_EVENT_AGE_PAUSES: u32 = 4;
/// A live projector returns to catching up after a batch of at least this many events, if the first of them is too old
/// and more events wait.
const CATCHING_UP_BATCH_EVENTS: usize = 8_192;
/// The interval at which a standby projector tries to take over.
const TAKEOVER_INTERVAL: Duration = Duration::from_millis(250);
/// The first pause before a retry after a failure.
const INITIAL_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before a retry.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The handling of a projection that is damaged or does not follow from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryPolicy {
    /// Quarantines the stored projection and folds the log from its start. If the projection is of another log or ahead
    /// of the log, waits for an operator's decision instead.
    Rebuild,
    /// Leaves the stored projection as it is and stops; [`ProjectorStatus::last_error`] says why.
    Stop,
}

/// A running projector.
#[derive(Debug)]
pub struct ProjectorHandle {
    /// Its state and progress. Cheap to clone; changes wake the receivers.
    pub status: watch::Receiver<ProjectorStatus>,
    /// The projector's task. It ends after a shutdown request, once the current batch is finished.
    pub join: JoinHandle<()>,
    is_in_use: Arc<AtomicBool>,
}

impl ProjectorHandle {
    /// Waits until everything up to `position` is folded in; `false` if the projector stops before.
    pub async fn wait_for_position(&self, position: Position) -> bool {
        self.status.clone().wait_for(|status| status.position >= position).await.is_ok()
    }

    /// Sets whether queries are answered from what the projector writes. Only then does it publish the gauges of its
    /// projection, and begin the [upkeep](crate::projection::Projection::begin_live) that makes queries fast. A new projector is in
    /// use. Of several projectors for one projection, only one may be.
    pub fn set_in_use(&self, is_in_use: bool) {
        self.is_in_use.store(is_in_use, Ordering::Relaxed);
    }
}

/// Starts a projector on the current runtime. It runs until `shutdown` is true or its sender is dropped, and retries
/// after all failures of the log and of the storage, except those after which [`RecoveryPolicy::Stop`] ends it.
pub fn spawn_projector(
    store: Arc<dyn ProjectionStore>,
    event_store: Arc<dyn EventStore>,
    policy: RecoveryPolicy,
    shutdown: watch::Receiver<bool>,
) -> ProjectorHandle {
    let reporter = StatusReporter::new(store.projection());
    let status = reporter.subscribe();
    let is_in_use = reporter.in_use_switch();
    let heartbeats = publish_heartbeats(store.heartbeats(), status.clone());
    let task = ProjectorTask {
        policy,
        event_store,
        store,
        reporter,
        shutdown,
        backoff: Backoff::new(INITIAL_RETRY_PAUSE, MAX_RETRY_PAUSE),
        start_over: None,
        last_logged_error: None,
        lag_refreshed_at: None,
    };
    let join = tokio::spawn(async move {
        // `run` drops the sender of the status when it returns. Without a sender, the heartbeats end too.
        tokio::join!(task.run(), heartbeats);
    });
    ProjectorHandle { status, join, is_in_use }
}

/// Reasons why a projector stops following the log.
#[derive(Debug, Error)]
enum FollowError {
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error("another incarnation of the log has begun")]
    IncarnationBegan,
    #[error("the projector panicked")]
    Panicked,
}

impl FollowError {
    /// Returns the sentence that the status of the projector shows to operators. If a permission is missing, the
    /// sentence ends with that cause, because no retry helps against it. Otherwise, if an engine is unavailable, the
    /// sentence includes the causes. The causes of other errors are left out, because they may be confidential.
    fn description(&self, store: &dyn ProjectionStore) -> String {
        let chain = error_chain(self);
        match self {
            _ if chain.to_ascii_lowercase().contains(PERMISSION_DENIED) => {
                // Postgres names the database or table. Errors of the file system begin with an upper-case letter.
                let cause = chain.find(PERMISSION_DENIED).map_or(PERMISSION_DENIED, |start| &chain[start..]);
                format!("{store}: {self}: {cause}")
            }
            Self::Projection(ProjectionError::Unavailable(_)) => format!("{store}: {chain}"),
            Self::EventStore(EventStoreError::Unavailable(_)) => chain,
            other => other.to_string(),
        }
    }

    /// Whether the projection is damaged, or was folded from events that an operator gave up when the log was set back
    /// or replaced. No further decision of an operator is needed.
    fn needs_rebuild(&self) -> bool {
        matches!(
            self,
            Self::Projection(
                ProjectionError::Damaged(_) | ProjectionError::LogMismatch(LogMismatch::GivenUp { .. })
            )
        )
    }

    /// Whether the projection was folded from another log, or from events that the log has lost. It is left as it is
    /// until an operator's decision is recorded in the log.
    fn needs_decision(&self) -> bool {
        matches!(
            self,
            Self::Projection(ProjectionError::LogMismatch(
                LogMismatch::OtherLog { .. } | LogMismatch::Truncated { .. }
            ))
        )
    }
}

struct ProjectorTask {
    policy: RecoveryPolicy,
    event_store: Arc<dyn EventStore>,
    store: Arc<dyn ProjectionStore>,
    reporter: StatusReporter,
    shutdown: watch::Receiver<bool>,
    backoff: Backoff,
    /// Set when the stored projection has to be rebuilt, until the rebuild has begun.
    start_over: Option<StartOver>,
    last_logged_error: Option<String>,
    /// When the lag was last read while this projector was on standby.
    lag_refreshed_at: Option<Instant>,
}

/// Why the stored projection is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartOver {
    /// It is damaged.
    Damaged,
    /// It was folded from events that an operator gave up.
    EventsGivenUp,
}

struct OpenedProjection {
    log: LogId,
    projection: Box<dyn Projection>,
    read_ahead: ReadAhead,
    origin: StorageOrigin,
}

impl ProjectorTask {
    /// Follows the log until shutdown, or until [`RecoveryPolicy::Stop`] ends it. On shutdown, the current batch is
    /// finished first.
    async fn run(mut self) {
        loop {
            let followed = catch_panic(self.follow()).await.unwrap_or(Err(FollowError::Panicked));
            let Err(error) = followed else { break };
            if self.reporter.state() == ProjectorState::Live {
                self.last_logged_error = None;
            }
            if self.policy == RecoveryPolicy::Stop && (error.needs_rebuild() || error.needs_decision()) {
                tracing::warn!(
                    projection = self.projection(),
                    error = error_chain(&error),
                    "projector stopped; the stored projection stays as it is"
                );
                let description = error.description(&*self.store);
                self.reporter.update(|status| status.last_error = Some(description));
                break;
            }
            let pause = self.handle_failure(&error);
            // The timeout is for engines that do not answer.
            let _ = timeout(HEAD_POLL_INTERVAL, self.refresh_lag()).await;
            tokio::select! {
                () = wait_for_shutdown(&mut self.shutdown) => break,
                () = sleep(pause) => {}
            }
        }
        self.reporter.update(|status| status.state = ProjectorState::Stopped);
    }

    fn projection(&self) -> &'static str {
        self.store.projection().as_str()
    }

    /// Logs a failure, updates the status, and returns the pause before the next attempt. A warning that repeats the
    /// last one is left out, unless it announces a rebuild.
    fn handle_failure(&mut self, error: &FollowError) -> Duration {
        let projection = self.projection();
        if matches!(error, FollowError::Projection(ProjectionError::InUse)) {
            if self.reporter.state() != ProjectorState::StandingBy {
                tracing::info!(projection, "another process holds this projection; standing by");
            }
            self.reporter.update(|status| {
                status.state = ProjectorState::StandingBy;
                status.last_error = None;
            });
            return TAKEOVER_INTERVAL;
        }
        if matches!(error, FollowError::Projection(ProjectionError::CheckpointMoved)) {
            tracing::info!(
                projection,
                "another projector moved the checkpoint; opening the projection again"
            );
        }
        let chain = error_chain(error);
        if error.needs_rebuild() {
            self.start_over = Some(match error {
                FollowError::Projection(ProjectionError::LogMismatch(LogMismatch::GivenUp { .. })) => {
                    StartOver::EventsGivenUp
                }
                _ => StartOver::Damaged,
            });
            tracing::warn!(
                projection,
                error = chain.as_str(),
                "quarantining the stored projection and rebuilding it"
            );
        } else if self.last_logged_error.as_ref() != Some(&chain) {
            tracing::warn!(projection, error = chain.as_str(), "projector failed; retrying");
        }
        let description = error.description(&*self.store);
        self.reporter.update(|status| {
            status.state = ProjectorState::Waiting;
            status.last_error = Some(description);
        });
        self.last_logged_error = Some(chain);
        self.backoff.next_pause()
    }

    /// Updates the status while this projector does not advance the projection: while it waits for a retry, or while it
    /// is on standby and another process advances the projection.
    async fn refresh_lag(&mut self) {
        let ProjectorStatus { state, position, behind_since, .. } = self.reporter.status();
        let is_standing_by = match state {
            ProjectorState::StandingBy => true,
            ProjectorState::Waiting => false,
            _ => return,
        };
        if is_standing_by {
            if self.lag_refreshed_at.is_some_and(|at| at.elapsed() < HEAD_POLL_INTERVAL) {
                return;
            }
            self.lag_refreshed_at = Some(Instant::now());
        }
        let position =
            if is_standing_by { self.store.position().await.unwrap_or(position) } else { position };
        let head = self.event_store.head().await.unwrap_or(position);
        // While this projector waits for a retry, `behind_since` is kept once it is known, so that the lag keeps
        // growing. As long as the position of the projection is not known, `position` is the start of the log: then no
        // event is read.
        let mut since = behind_since.filter(|_| !is_standing_by);
        if since.is_none()
            && Position::START < position
            && position < head
            && let Ok(events) = self.event_store.read_all(position, 1).await
        {
            since = events.first().map(|event| event.recorded_at);
        }
        self.reporter.update(|status| {
            status.position = position;
            status.head = status.head.max(head);
            status.behind_since = since;
        });
    }

    /// Opens the projection and follows the log; returns at shutdown.
    async fn follow(&mut self) -> Result<(), FollowError> {
        let mut shutdown = self.shutdown.clone();
        let opened = tokio::select! {
            () = wait_for_shutdown(&mut shutdown) => return Ok(()),
            opened = self.open() => opened?,
        };
        let OpenedProjection { log, mut projection, mut read_ahead, origin } = opened;
        let is_rebuild = projection.checkpoint().position == Position::START;
        self.reporter.update(|status| {
            let position = projection.checkpoint().position;
            status.state = if position >= status.head {
                ProjectorState::Live
            } else if is_rebuild {
                ProjectorState::Rebuilding
            } else {
                ProjectorState::CatchingUp
            };
            status.position = position;
            status.dead_letters = projection.dead_letter_count();
            status.discarded = projection.discarded_count();
            status.behind_since = None;
            status.last_error = None;
        });
        let store = Arc::clone(&self.store);
        let mut verification = pin!(store.verify());
        let mut is_verified = origin == StorageOrigin::Created;
        let mut has_begun_live = false;
        let mut head_poll = interval(HEAD_POLL_INTERVAL);
        head_poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = wait_for_shutdown(&mut shutdown) => return Ok(()),
                result = &mut verification, if !is_verified => {
                    result?;
                    is_verified = true;
                }
                _ = head_poll.tick() => {
                    self.check_log(log, projection.checkpoint().position).await?;
                    projection.verify_checkpoint().await?;
                    if !has_begun_live && self.reporter.is_in_use() && self.reporter.state() == ProjectorState::Live
                    {
                        projection.begin_live().await?;
                        has_begun_live = true;
                    }
                }
                batch = read_ahead.next_batch() => {
                    self.apply_batch(log, &mut *projection, &mut read_ahead, batch?).await?;
                    // The back-off is reset only after a batch, not when the projection is opened. Otherwise a
                    // failure that repeats at the same event would be retried after the shortest pause each time.
                    if self.reporter.state() == ProjectorState::Live {
                        self.backoff.reset();
                    }
                }
            }
        }
    }

    async fn open(&mut self) -> Result<OpenedProjection, FollowError> {
        // If the log is no longer the one that this process opened, nothing is created or quarantined.
        if let Err(replaced) = self.event_store.verify_identity().await {
            return Err(EventStoreError::Unavailable(replaced.into()).into());
        }
        let (mut projection, origin) = match self.start_over {
            None => self.store.open().await?,
            Some(StartOver::Damaged) => (self.store.recreate().await?, StorageOrigin::Created),
            // The quarantined projection is kept for good: it may be the only place that has the given-up events.
            Some(StartOver::EventsGivenUp) => {
                (self.store.recreate_for_other_log().await?, StorageOrigin::Created)
            }
        };
        self.start_over = None;
        let checkpoint = projection.checkpoint();
        let log = ensure_log_matches(&mut *projection, &*self.event_store).await?;
        let head = self.event_store.head().await?;
        let subscription = self.event_store.subscribe(checkpoint.position).await?;
        let read_ahead = ReadAhead::new(subscription, checkpoint.position, self.store.pacing());
        self.reporter.update(|status| status.head = head);
        tracing::info!(
            projection = self.projection(),
            position = checkpoint.position.get(),
            head = head.get(),
            created = origin == StorageOrigin::Created,
            "following the log"
        );
        Ok(OpenedProjection { log, projection, read_ahead, origin })
    }

    async fn apply_batch(
        &self,
        log: LogId,
        projection: &mut dyn Projection,
        read_ahead: &mut ReadAhead,
        batch: EventBatch,
    ) -> Result<(), FollowError> {
        let EventBatch { events, up_to } = batch;
        let (count, oldest) = (events.len(), events.first().map(|event| event.recorded_at));
        self.reporter.update(|status| {
            status.head = status.head.max(up_to);
            status.behind_since = oldest;
        });
        let started = Instant::now();
        advance_projection(projection, &*self.event_store, log, events, up_to).await?;
        let took = started.elapsed();
        self.reporter.record_batch(count, took);
        let is_drained = !read_ahead.has_more();
        let max_live_age = MAX_LIVE_EVENT_AGE + read_ahead.min_live_rest() * LIVE_EVENT_AGE_PAUSES;
        self.reporter.update(|status| {
            status.position = up_to;
            status.dead_letters = projection.dead_letter_count();
            status.discarded = projection.discarded_count();
            if is_drained && up_to >= status.head {
                status.state = ProjectorState::Live;
                status.behind_since = None;
            } else if status.behind_since.is_some() && status.lag(clock::now()) < max_live_age {
                // Under load, more events have always arrived by the time that a batch is applied, so the buffer is
                // never drained.
                status.state = ProjectorState::Live;
            } else if status.state == ProjectorState::Live && count >= CATCHING_UP_BATCH_EVENTS {
                status.state = ProjectorState::CatchingUp;
            }
        });
        read_ahead.rest(took, self.reporter.state());
        Ok(())
    }

    /// Checks that the log is still the same, and reads its head. If the head is before the position of the projection,
    /// the log has lost events, and the projection no longer follows from it.
    async fn check_log(&self, log: LogId, position: Position) -> Result<(), FollowError> {
        if self.event_store.log_id().await? != log {
            return Err(FollowError::IncarnationBegan);
        }
        let head = self.event_store.head().await?;
        if head < position {
            return Err(ProjectionError::from(LogMismatch::Truncated { position, head }).into());
        }
        self.reporter.update(|status| status.head = head);
        Ok(())
    }
}

/// Runs a future to its end; `None` if it panics. The panic hook reports the location.
async fn catch_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // The projection is dropped and opened again afterwards, so that no half-changed state is used.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Returns when shutdown is requested, or the sender is dropped.
async fn wait_for_shutdown(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
