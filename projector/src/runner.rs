//! The loop that keeps a projection fed: opens it, follows the log, and starts over when something fails.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use chat_domain::Position;
use chat_ports::checkpoint::{Checkpoint, Opened};
use chat_ports::clock;
use chat_ports::event_store::{Batch, EventStore, EventStoreError, LogId};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::backoff::Backoff;
use crate::feed::Feed;
use crate::letters::advance;
use crate::projection::{Projection, ProjectionError, Target};
use crate::status::{Reporter, State, Status};

/// How often the end of the log is looked up, and whether the projection is still where it was.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// A stretch whose first event is no older than this when it is applied, is of events as they come.
const AS_THEY_COME: Duration = Duration::from_secs(1);
/// A projection that gets so many events at once is no longer live, unless they are of those as they come.
const BEHIND: usize = 8_192;
/// How often a projector that stands by tries to take over.
const TAKE_OVER_EVERY: Duration = Duration::from_millis(250);

/// Why following the log ended.
#[derive(Debug, Error)]
pub(crate) enum Setback {
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error("the projection was folded from another log")]
    OtherLog,
    #[error("the log ends at {head}, before the projection at {position}")]
    ShorterLog { head: Position, position: Position },
    #[error("the projector panicked")]
    Panicked,
}

impl Setback {
    /// Whether what is stored is of no use any more, and has to be folded anew.
    fn asks_for_rebuild(&self) -> bool {
        matches!(
            self,
            Self::Projection(ProjectionError::Damaged(_)) | Self::OtherLog | Self::ShorterLog { .. }
        )
    }
}

/// What a projector does about a projection that is of no use any more: damaged, or of another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Puts it aside, and folds the log from its start.
    Mend,
    /// Leaves it as it is, and stops; [`Status::last_error`] says why.
    Leave,
}

pub(crate) struct Runner<T: Target> {
    pub(crate) policy: Policy,
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) target: T,
    pub(crate) report: Reporter,
    pub(crate) shutdown: watch::Receiver<bool>,
}

impl<T: Target> Runner<T> {
    /// Runs until told to stop. A stretch at hand is finished first.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut fresh = false;
        let mut said = None;
        loop {
            let mut stop = self.shutdown.clone();
            let followed = unless_panic(self.follow(&mut stop, &mut fresh, &mut backoff)).await;
            let followed = followed.unwrap_or(Err(Setback::Panicked));
            let Err(setback) = followed else { break };
            if self.report.state() == State::Live {
                said = None;
            }
            if self.policy == Policy::Leave && setback.asks_for_rebuild() {
                let (projection, error) = (self.target.name(), with_causes(&setback));
                tracing::warn!(projection, error = error.as_str(), "leaving what is stored as it is");
                self.report.update(|status| status.last_error = Some(setback.to_string()));
                break;
            }
            let pause = self.note(&setback, &mut fresh, &mut said, &mut backoff);
            self.look_behind().await;
            tokio::select! {
                () = stopped(&mut self.shutdown) => break,
                () = sleep(pause) => {}
            }
        }
        self.report.update(|status| status.state = State::Stopped);
    }

    /// Says what went wrong, once, and how long to wait before the next attempt.
    fn note(
        &self,
        setback: &Setback,
        fresh: &mut bool,
        said: &mut Option<String>,
        backoff: &mut Backoff,
    ) -> Duration {
        let projection = self.target.name();
        if matches!(setback, Setback::Projection(ProjectionError::InUse)) {
            if self.report.state() != State::StandingBy {
                tracing::info!(projection, "another process projects here; standing by to take over");
            }
            self.report.update(|status| {
                status.state = State::StandingBy;
                status.last_error = None;
            });
            return TAKE_OVER_EVERY;
        }
        if matches!(setback, Setback::Projection(ProjectionError::CheckpointMoved)) {
            tracing::info!(projection, "another projector moved the checkpoint; going on from there");
        }
        let error = with_causes(setback);
        if setback.asks_for_rebuild() {
            *fresh = true;
            tracing::warn!(
                projection,
                error = error.as_str(),
                "putting aside what is stored, and folding the log from its start"
            );
        } else if said.as_ref() != Some(&error) {
            tracing::warn!(projection, error = error.as_str(), "can't go on; trying again until it works");
        }
        self.report.update(|status| {
            status.state = State::Waiting;
            status.last_error = Some(setback.to_string());
        });
        *said = Some(error);
        backoff.pause()
    }

    /// While nothing goes on, looks since when: the lag of a projector that waits grows all the same. Where it stands by,
    /// another process moves the projection, and this one does not know how far.
    async fn look_behind(&self) {
        let Status { state, position, behind_since, .. } = self.report.status();
        if state != State::Waiting {
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
        self.report.update(|status| status.behind_since = since);
    }

    /// Opens the projection and follows the log; returns when told to stop.
    async fn follow(
        &self,
        stop: &mut watch::Receiver<bool>,
        fresh: &mut bool,
        backoff: &mut Backoff,
    ) -> Result<(), Setback> {
        let opened = tokio::select! {
            () = stopped(stop) => return Ok(()),
            opened = self.open(fresh) => opened?,
        };
        let Opening { log, mut projection, mut feed, opened } = opened;
        let rebuild = projection.checkpoint().position == Position::START;
        let folding = if rebuild { State::Rebuilding } else { State::CatchingUp };
        self.report.update(|status| {
            let position = projection.checkpoint().position;
            status.state = if position >= status.head { State::Live } else { folding };
            status.position = position;
            status.parked = projection.parked();
            status.discarded = projection.discarded();
            status.behind_since = None;
            status.last_error = None;
        });
        let verify = self.target.verify();
        tokio::pin!(verify);
        let mut verified = opened == Opened::Created;
        let mut look_up = interval(HEAD_EVERY);
        look_up.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(stop) => return Ok(()),
                sound = &mut verify, if !verified => {
                    sound?;
                    verified = true;
                }
                _ = look_up.tick() => {
                    self.check_head(projection.checkpoint()).await?;
                    projection.check().await?;
                }
                batch = feed.next() => {
                    self.apply(log, &mut projection, &mut feed, batch?).await?;
                    // Not sooner: what fails at the same place each time is not to be folded without a pause.
                    if self.report.state() == State::Live {
                        backoff.reset();
                    }
                }
            }
        }
    }

    async fn open(&self, fresh: &mut bool) -> Result<Opening<T::Projection>, Setback> {
        let log = self.event_store.log_id().await?;
        let head = self.event_store.head().await?;
        let (projection, opened) = if *fresh {
            (self.target.open_fresh().await?, Opened::Created)
        } else {
            self.target.open().await?
        };
        *fresh = false;
        let checkpoint = projection.checkpoint();
        if checkpoint.log.is_some_and(|of| of != log) {
            return Err(Setback::OtherLog);
        }
        if checkpoint.position > head {
            return Err(Setback::ShorterLog { head, position: checkpoint.position });
        }
        let subscription = self.event_store.subscribe(checkpoint.position).await?;
        let feed = Feed::new(subscription, checkpoint.position, self.target.pace());
        self.report.update(|status| status.head = head);
        tracing::info!(
            projection = self.target.name(),
            position = checkpoint.position.get(),
            head = head.get(),
            created = opened == Opened::Created,
            "following the log"
        );
        Ok(Opening { log, projection, feed, opened })
    }

    async fn apply(
        &self,
        log: LogId,
        projection: &mut T::Projection,
        feed: &mut Feed,
        batch: Batch,
    ) -> Result<(), Setback> {
        let Batch { events, up_to } = batch;
        let (count, oldest) = (events.len(), events.first().map(|event| event.recorded_at));
        self.report.update(|status| {
            status.head = status.head.max(up_to);
            status.behind_since = oldest;
        });
        let started = Instant::now();
        advance(projection, &*self.event_store, log, events, up_to).await?;
        let took = started.elapsed();
        feed.applied_in(took);
        self.report.applied(count, took);
        let caught_up = !feed.has_more();
        self.report.update(|status| {
            status.position = up_to;
            status.parked = projection.parked();
            status.discarded = projection.discarded();
            if caught_up && up_to >= status.head {
                status.state = State::Live;
                status.behind_since = None;
            } else if status.behind_since.is_some() && status.lag(clock::now()) < AS_THEY_COME {
                // Under load there is always more by the time that a stretch is applied.
                status.state = State::Live;
            } else if status.state == State::Live && count >= BEHIND {
                status.state = State::CatchingUp;
            }
        });
        Ok(())
    }

    /// Learns how long the log is. One that became shorter is another one, or one that lost events: what was folded
    /// from it is not what it holds.
    async fn check_head(&self, checkpoint: Checkpoint) -> Result<(), Setback> {
        let head = self.event_store.head().await?;
        if head < checkpoint.position {
            return Err(Setback::ShorterLog { head, position: checkpoint.position });
        }
        self.report.update(|status| status.head = head);
        Ok(())
    }
}

struct Opening<P> {
    log: LogId,
    projection: P,
    feed: Feed,
    opened: Opened,
}

/// Runs a future to its end; `None` where it panicked. The panic's own report tells where.
async fn unless_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // What the future held is dropped and opened again, so that nothing half done is seen.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Returns when told to stop, or when nobody is left who could tell.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The error with what caused it, in one line.
fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
