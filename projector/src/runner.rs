//! The loop that keeps a projection fed: opens it, follows the log, and starts over when something fails.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use chat_domain::Position;
use chat_ports::clock;
use chat_ports::event_store::{EventBatch, EventStore, EventStoreError, LogId};
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::backoff::Backoff;
use crate::dead_letters::advance_projection;
use crate::projection::{Projection, ProjectionError, ProjectionStore};
use crate::read_ahead::ReadAhead;
use crate::status::{ProjectorState, ProjectorStatus, StatusReporter};

/// How often the end of the log is looked up, and whether the projection is still where it was.
const HEAD_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A stretch whose first event is no older than this when it is applied, is of events as they come.
const MAX_LIVE_EVENT_AGE: Duration = Duration::from_secs(1);
/// A projection that gets so many events at once is no longer live, unless they are of those as they come.
const CATCHING_UP_BATCH_EVENTS: usize = 8_192;
/// How often a projector that stands by tries to take over.
const TAKEOVER_INTERVAL: Duration = Duration::from_millis(250);

/// Why following the log ended.
#[derive(Debug, Error)]
pub(crate) enum FollowError {
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error("the projection was folded from another log")]
    LogMismatch,
    #[error("the log ends at {head}, before the projection at {position}")]
    LogTruncated { head: Position, position: Position },
    #[error("the projector panicked")]
    Panicked,
}

impl FollowError {
    /// Whether what is stored is of no use any more, and has to be folded anew.
    fn needs_rebuild(&self) -> bool {
        matches!(
            self,
            Self::Projection(ProjectionError::Damaged(_)) | Self::LogMismatch | Self::LogTruncated { .. }
        )
    }
}

/// What a projector does about a projection that is of no use any more: damaged, or of another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryPolicy {
    /// Puts it aside, and folds the log from its start.
    Rebuild,
    /// Leaves it as it is, and stops; [`Status::last_error`] says why.
    Stop,
}

pub(crate) struct ProjectorTask<T: ProjectionStore> {
    pub(crate) policy: RecoveryPolicy,
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) store: T,
    pub(crate) reporter: StatusReporter,
    pub(crate) shutdown: watch::Receiver<bool>,
}

impl<T: ProjectionStore> ProjectorTask<T> {
    /// Runs until told to stop. A stretch at hand is finished first.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut fresh = false;
        let mut said = None;
        loop {
            let mut stop = self.shutdown.clone();
            let followed = catch_panic(self.follow(&mut stop, &mut fresh, &mut backoff)).await;
            let followed = followed.unwrap_or(Err(FollowError::Panicked));
            let Err(setback) = followed else { break };
            if self.reporter.state() == ProjectorState::Live {
                said = None;
            }
            if self.policy == RecoveryPolicy::Stop && setback.needs_rebuild() {
                let (projection, error) = (self.store.name(), error_chain(&setback));
                tracing::warn!(projection, error = error.as_str(), "leaving what is stored as it is");
                self.reporter.update(|status| status.last_error = Some(setback.to_string()));
                break;
            }
            let pause = self.handle_failure(&setback, &mut fresh, &mut said, &mut backoff);
            self.refresh_lag_while_waiting().await;
            tokio::select! {
                () = wait_for_shutdown(&mut self.shutdown) => break,
                () = sleep(pause) => {}
            }
        }
        self.reporter.update(|status| status.state = ProjectorState::Stopped);
    }

    /// Says what went wrong, once, and how long to wait before the next attempt.
    fn handle_failure(
        &self,
        setback: &FollowError,
        start_over: &mut bool,
        last_logged_error: &mut Option<String>,
        backoff: &mut Backoff,
    ) -> Duration {
        let projection = self.store.name();
        if matches!(setback, FollowError::Projection(ProjectionError::InUse)) {
            if self.reporter.state() != ProjectorState::StandingBy {
                tracing::info!(projection, "another process projects here; standing by to take over");
            }
            self.reporter.update(|status| {
                status.state = ProjectorState::StandingBy;
                status.last_error = None;
            });
            return TAKEOVER_INTERVAL;
        }
        if matches!(setback, FollowError::Projection(ProjectionError::CheckpointMoved)) {
            tracing::info!(projection, "another projector moved the checkpoint; going on from there");
        }
        let error = error_chain(setback);
        if setback.needs_rebuild() {
            *start_over = true;
            tracing::warn!(
                projection,
                error = error.as_str(),
                "putting aside what is stored, and folding the log from its start"
            );
        } else if last_logged_error.as_ref() != Some(&error) {
            tracing::warn!(projection, error = error.as_str(), "can't go on; trying again until it works");
        }
        self.reporter.update(|status| {
            status.state = ProjectorState::Waiting;
            status.last_error = Some(setback.to_string());
        });
        *last_logged_error = Some(error);
        backoff.next_pause()
    }

    /// While nothing goes on, looks since when: the lag of a projector that waits grows all the same. Where it stands by,
    /// another process moves the projection, and this one does not know how far.
    async fn refresh_lag_while_waiting(&self) {
        let ProjectorStatus { state, position, behind_since, .. } = self.reporter.status();
        if state != ProjectorState::Waiting {
            return;
        }
        let mut since = behind_since;
        // Before the projection was opened it is not known where it stands.
        if since.is_none()
            && position > Position::START
            && let Ok(events) = self.event_store.read_all(position, 1).await
        {
            since = events.first().map(|event| event.recorded_at);
        }
        self.reporter.update(|status| status.behind_since = since);
    }

    /// Opens the projection and follows the log; returns when told to stop.
    async fn follow(
        &self,
        stop: &mut watch::Receiver<bool>,
        start_over: &mut bool,
        backoff: &mut Backoff,
    ) -> Result<(), FollowError> {
        let opened = tokio::select! {
            () = wait_for_shutdown(stop) => return Ok(()),
            opened = self.open(start_over) => opened?,
        };
        let OpenedProjection { log, mut projection, read_ahead: mut feed, origin: opened } = opened;
        let rebuild = projection.checkpoint().position == Position::START;
        let folding = if rebuild { ProjectorState::Rebuilding } else { ProjectorState::CatchingUp };
        self.reporter.update(|status| {
            let position = projection.checkpoint().position;
            status.state = if position >= status.head { ProjectorState::Live } else { folding };
            status.position = position;
            status.dead_letters = projection.dead_letter_count();
            status.discarded = projection.discarded_count();
            status.behind_since = None;
            status.last_error = None;
        });
        let verify = self.store.verify();
        tokio::pin!(verify);
        let mut verified = opened == StorageOrigin::Created;
        let mut head_poll = interval(HEAD_POLL_INTERVAL);
        head_poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = wait_for_shutdown(stop) => return Ok(()),
                sound = &mut verify, if !verified => {
                    sound?;
                    verified = true;
                }
                _ = head_poll.tick() => {
                    self.check_head(projection.checkpoint()).await?;
                    projection.verify_checkpoint().await?;
                }
                batch = feed.next_batch() => {
                    self.apply_batch(log, &mut projection, &mut feed, batch?).await?;
                    // Not sooner: what fails at the same place each time is not to be folded without a pause.
                    if self.reporter.state() == ProjectorState::Live {
                        backoff.reset();
                    }
                }
            }
        }
    }

    async fn open(&self, fresh: &mut bool) -> Result<OpenedProjection<T::Projection>, FollowError> {
        let log = self.event_store.log_id().await?;
        let head = self.event_store.head().await?;
        let (projection, opened) = if *fresh {
            (self.store.recreate().await?, StorageOrigin::Created)
        } else {
            self.store.open().await?
        };
        *fresh = false;
        let checkpoint = projection.checkpoint();
        if checkpoint.log.is_some_and(|of| of != log) {
            return Err(FollowError::LogMismatch);
        }
        if checkpoint.position > head {
            return Err(FollowError::LogTruncated { head, position: checkpoint.position });
        }
        let subscription = self.event_store.subscribe(checkpoint.position).await?;
        let feed = ReadAhead::new(subscription, checkpoint.position, self.store.pacing());
        self.reporter.update(|status| status.head = head);
        tracing::info!(
            projection = self.store.name(),
            position = checkpoint.position.get(),
            head = head.get(),
            created = opened == StorageOrigin::Created,
            "following the log"
        );
        Ok(OpenedProjection { log, projection, read_ahead: feed, origin: opened })
    }

    async fn apply_batch(
        &self,
        log: LogId,
        projection: &mut T::Projection,
        feed: &mut ReadAhead,
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
        feed.record_apply_time(took);
        self.reporter.record_batch(count, took);
        let wait_until_caught_up = !feed.has_more();
        self.reporter.update(|status| {
            status.position = up_to;
            status.dead_letters = projection.dead_letter_count();
            status.discarded = projection.discarded_count();
            if wait_until_caught_up && up_to >= status.head {
                status.state = ProjectorState::Live;
                status.behind_since = None;
            } else if status.behind_since.is_some() && status.lag(clock::now()) < MAX_LIVE_EVENT_AGE {
                // Under load there is always more by the time that a stretch is applied.
                status.state = ProjectorState::Live;
            } else if status.state == ProjectorState::Live && count >= CATCHING_UP_BATCH_EVENTS {
                status.state = ProjectorState::CatchingUp;
            }
        });
        Ok(())
    }

    /// Learns how long the log is. One that became shorter is another one, or one that lost events: what was folded
    /// from it is not what it holds.
    async fn check_head(&self, checkpoint: ProjectionCheckpoint) -> Result<(), FollowError> {
        let head = self.event_store.head().await?;
        if head < checkpoint.position {
            return Err(FollowError::LogTruncated { head, position: checkpoint.position });
        }
        self.reporter.update(|status| status.head = head);
        Ok(())
    }
}

struct OpenedProjection<P> {
    log: LogId,
    projection: P,
    read_ahead: ReadAhead,
    origin: StorageOrigin,
}

/// Runs a future to its end; `None` where it panicked. The panic's own report tells where.
async fn catch_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // What the future held is dropped and opened again, so that nothing half done is seen.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Returns when told to stop, or when nobody is left who could tell.
async fn wait_for_shutdown(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The error with what caused it, in one line.
fn error_chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
