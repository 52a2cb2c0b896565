//! Replaying the log to something outside: a program, a file, or an HTTP endpoint.
//!
//! Events go out in the order of the log, as lines of JSON, in batches ([`batch`]). A bookmark ([`bookmark`])
//! keeps up to where they were surely delivered: whoever starts again with it goes on from there, to the same place and
//! with the same events ([`whereto`]). So a file gets each event exactly once, because what an interrupted replay wrote
//! beyond what the bookmark knows of is cut off; a program or an endpoint gets each at least
//! once, some of them again after an interruption.

pub mod batch;
pub mod checkpoint;
mod endpoint;
mod file;
mod program;
pub mod rate_limit;
mod source;
pub mod target;
pub mod target_fingerprint;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use http::StatusCode;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::watch;

use batch::ReplayBatch;
use checkpoint::{CheckpointFile, ReplayCheckpoint};
use rate_limit::{Rate, RateLimiter};
use source::{EventSource, Page};
use target::{DeliveryProgress, ReplayTarget};
use target_fingerprint::TargetFingerprint;

pub use endpoint::{BodyFormat, EndpointOptions, InvalidEndpoint};
pub use target::Destination;

/// How often the bookmark is written, and how often a quiet target is looked at.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// What to replay.
pub struct ReplayOptions<'a> {
    /// Only what comes after this, unless a bookmark is further on.
    pub after: Position,
    /// Only what comes up to this.
    pub until: Option<Position>,
    /// Which events.
    pub filter: &'a (dyn Fn(&RecordedEvent) -> bool + Send + Sync),
    /// How it was said which events: a bookmark is of these alone.
    pub filter_description: &'a str,
    /// How fast at most.
    pub rate: Option<Rate>,
    /// Whether to go on with what comes, until it is stopped.
    pub follow: bool,
    /// Where it is kept up to where events were delivered.
    pub bookmark: Option<PathBuf>,
    /// Is told, in a sentence, what is waited for.
    pub on_status: StatusCallback<'a>,
}

/// For what whoever watches should know.
pub type StatusCallback<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What came of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayOutcome {
    /// How many events were handed on.
    pub events: u64,
    /// Everything up to here has been delivered, as surely as can be known.
    pub position: Position,
    /// Whether it was stopped before it was done.
    pub stopped: bool,
}

/// Why a replay ended before it was done. Its bookmark is written all the same.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The log could not be read.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// The bookmark is not one, is in use, or is of another log.
    #[error("{}: {reason}", .path.display())]
    Checkpoint {
        /// Its file.
        path: PathBuf,
        /// What is the matter with it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be told where events go.
    #[error("the destination can't be looked at")]
    Destination(#[source] io::Error),
    /// The file is not what the bookmark knows.
    #[error("{}: {reason}", .path.display())]
    FileMismatch {
        /// Which one.
        path: PathBuf,
        /// What is the matter with it.
        reason: &'static str,
    },
    /// The program could not be started or written to.
    #[error("the program can't be fed")]
    Program(#[source] io::Error),
    /// The program ended before it had everything.
    #[error("the program ended before it had everything ({0})")]
    ProgramEnded(ExitStatus),
    /// The program had everything, and failed.
    #[error("the program failed ({0})")]
    ProgramFailed(ExitStatus),
    /// The endpoint does not take this, and would not later.
    #[error("the endpoint answered {status}: {response_body}")]
    Refused {
        /// Its answer.
        status: StatusCode,
        /// The beginning of what it said.
        response_body: String,
    },
    /// The endpoint could not be reached, or could not take it, for too long.
    #[error("the endpoint has not taken the events for {} seconds: {last}", .after.as_secs())]
    GaveUp {
        /// How long it was tried.
        after: Duration,
        /// The last that was heard of it.
        last: String,
    },
}

/// Tells a replay that it is to stop: when its sender sends `true`, or is gone.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// A replay that is stopped through the sender.
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether it is to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is to stop.
    pub async fn requested(&mut self) {
        // A sender that is gone can't be waited for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Replays to a destination. `watch` is told how many events were handed on, and up to where.
pub async fn run<'a>(
    log: &'a dyn EventStore,
    replay: &ReplayOptions<'a>,
    to: &Destination,
    stop: &mut StopSignal,
    on_progress: &mut (dyn FnMut(u64, Position) + Send),
) -> Result<ReplayOutcome, (ReplayError, ReplayOutcome)> {
    let mut outcome = ReplayOutcome { events: 0, position: replay.after, stopped: false };
    match start(log, replay, to, &mut outcome).await {
        Err(error) => Err((error, outcome)),
        Ok((mut running, source)) => {
            let ended = running.run(source, replay, stop, on_progress, &mut outcome).await;
            let finished = match &ended {
                Ok(()) => running.target.finish().await.inspect(|_| running.checkpoint.closed = true),
                // What was delivered before it failed is still worth a bookmark.
                Err(_) => running.target.flush().await,
            };
            let kept = match finished {
                Ok(settled) => running.write_checkpoint(settled, &mut outcome).map(|()| None),
                Err(error) => Ok(Some(error)),
            };
            match (ended, kept) {
                (Err(error), _) | (Ok(()), Ok(Some(error)) | Err(error)) => Err((error, outcome)),
                (Ok(()), Ok(None)) => Ok(outcome),
            }
        }
    }
}

async fn start<'a>(
    log: &'a dyn EventStore,
    replay: &ReplayOptions<'a>,
    to: &Destination,
    outcome: &mut ReplayOutcome,
) -> Result<(RunningReplay, EventSource<'a>), ReplayError> {
    let id = log.log_id().await?;
    let head = log.head().await?;
    let mut file = replay.bookmark.as_deref().map(CheckpointFile::open).transpose()?;
    let read = file.as_mut().map(|file| file.read(id, head)).transpose()?.flatten();
    let after = read.as_ref().map_or(replay.after, |read| read.position.max(replay.after));
    outcome.position = after;
    let meant = target_fingerprint::sha256_hex(replay.filter_description);
    if let (Some(file), Some(read)) = (&file, &read) {
        // A file that is not there is not the one it was.
        file.ensure_matches(read, TargetFingerprint::from_destination(to).ok().as_ref(), &meant)?;
    }
    let target = to.open(read.as_ref(), after)?;
    let bookmark = ReplayCheckpoint {
        log: id,
        position: after,
        events: read.map_or(0, |read| read.events),
        to: TargetFingerprint::from_destination(to).map_err(ReplayError::Destination)?,
        meant,
        closed: false,
        bytes: None,
    };
    let mut running = RunningReplay {
        target,
        file,
        checkpoint: bookmark,
        events_before: 0,
        checkpoint_written_at: Instant::now(),
    };
    running.events_before = running.checkpoint.events;
    // From the start on a file can be cut to what it was.
    let settled = running.target.flush().await?;
    running.write_checkpoint(settled, outcome)?;
    let end = if replay.follow { None } else { Some(head) };
    let end = match (end, replay.until) {
        (Some(head), Some(until)) => Some(head.min(until)),
        (end, until) => end.or(until),
    };
    Ok((running, EventSource::new(log, after, end, replay.follow, replay.on_status)))
}

/// A replay under way.
struct RunningReplay {
    target: Box<dyn ReplayTarget>,
    file: Option<CheckpointFile>,
    checkpoint: ReplayCheckpoint,
    /// Events of earlier runs.
    events_before: u64,
    checkpoint_written_at: Instant,
}

impl RunningReplay {
    async fn run(
        &mut self,
        mut source: EventSource<'_>,
        replay: &ReplayOptions<'_>,
        stop: &mut StopSignal,
        on_progress: &mut (dyn FnMut(u64, Position) + Send),
        outcome: &mut ReplayOutcome,
    ) -> Result<(), ReplayError> {
        let mut pace = RateLimiter::new(replay.rate);
        let size =
            self.target.batch_limits().with_max_events(replay.rate.map_or(u64::MAX, Rate::max_batch_events));
        let mut batch = ReplayBatch::empty_after(outcome.position);
        loop {
            let found = self.next_page(&mut source, replay.follow, stop, outcome).await?;
            let Some(Page { events, up_to, last }) = found else { break };
            for event in events {
                if (replay.filter)(&event) {
                    batch.push(&event);
                }
                batch.up_to = event.position;
                if batch.is_full(size) {
                    self.deliver(&mut batch, &mut pace, (stop, replay.on_status), outcome).await?;
                    on_progress(outcome.events, batch.up_to);
                    if stop.is_requested() {
                        break;
                    }
                }
            }
            if stop.is_requested() {
                break;
            }
            batch.up_to = batch.up_to.max(up_to);
            if replay.follow || last {
                self.deliver(&mut batch, &mut pace, (stop, replay.on_status), outcome).await?;
            }
            on_progress(outcome.events, batch.up_to);
            if self.checkpoint_written_at.elapsed() >= CHECKPOINT_INTERVAL {
                self.flush(outcome).await?;
            }
            if last {
                return Ok(());
            }
        }
        outcome.stopped = true;
        Ok(())
    }

    /// What comes next, unless it is to stop before.
    async fn next_page(
        &mut self,
        source: &mut EventSource<'_>,
        follow: bool,
        stop: &mut StopSignal,
        outcome: &mut ReplayOutcome,
    ) -> Result<Option<Page>, ReplayError> {
        // Dropped at each tick it would never get further than connecting, where that takes longer.
        let mut coming = pin!(source.next_page());
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(None),
                page = &mut coming => return Ok(Some(page?)),
                () = tokio::time::sleep(CHECKPOINT_INTERVAL), if follow => self.flush(outcome).await?,
            }
        }
    }

    /// Hands a batch on, unless it is to stop before; then the batch stays as it is.
    async fn deliver(
        &mut self,
        batch: &mut ReplayBatch,
        pace: &mut RateLimiter,
        (stop, tell): (&mut StopSignal, StatusCallback<'_>),
        outcome: &mut ReplayOutcome,
    ) -> Result<(), ReplayError> {
        tokio::select! {
            biased;
            () = stop.requested() => return Ok(()),
            () = pace.acquire(batch.events) => {}
        }
        if self.target.deliver(batch, stop, tell).await? {
            outcome.events += batch.events;
            *batch = ReplayBatch::empty_after(batch.up_to);
        }
        if self.checkpoint_written_at.elapsed() >= CHECKPOINT_INTERVAL {
            self.flush(outcome).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, outcome: &mut ReplayOutcome) -> Result<(), ReplayError> {
        let settled = self.target.flush().await?;
        self.write_checkpoint(settled, outcome)
    }

    /// Writes the bookmark.
    fn write_checkpoint(
        &mut self,
        settled: DeliveryProgress,
        outcome: &mut ReplayOutcome,
    ) -> Result<(), ReplayError> {
        outcome.position = settled.position;
        self.checkpoint_written_at = Instant::now();
        let Some(file) = &mut self.file else { return Ok(()) };
        self.checkpoint.position = settled.position;
        self.checkpoint.bytes = settled.bytes;
        self.checkpoint.events = self.events_before + settled.events;
        file.write(&self.checkpoint)
    }
}
