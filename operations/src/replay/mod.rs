//! Replaying the log to something outside: a program, a file, or an HTTP endpoint.
//!
//! Events go out in the order of the log, as lines of JSON, in batches ([`batch`]). A bookmark ([`bookmark`])
//! keeps up to where they were surely delivered: whoever starts again with it goes on from there, to the same place and
//! with the same events ([`whereto`]). So a file gets each event exactly once, because what an interrupted replay wrote
//! beyond what the bookmark knows of is cut off; a program or an endpoint gets each at least
//! once, some of them again after an interruption.

pub mod batch;
pub mod bookmark;
mod endpoint;
mod file;
pub mod pace;
mod program;
mod source;
pub mod target;
pub mod whereto;

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

use batch::Batch;
use bookmark::{Bookmark, BookmarkFile};
use pace::{Pace, Rate};
use source::{Page, Source};
use target::{Settled, Target};
use whereto::Whereto;

pub use endpoint::{EndpointOptions, InvalidEndpoint, Shape};
pub use target::Destination;

/// How often the bookmark is written, and how often a quiet target is looked at.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// What to replay.
pub struct Replay<'a> {
    /// Only what comes after this, unless a bookmark is further on.
    pub after: Position,
    /// Only what comes up to this.
    pub until: Option<Position>,
    /// Which events.
    pub wanted: &'a (dyn Fn(&RecordedEvent) -> bool + Send + Sync),
    /// How it was said which events: a bookmark is of these alone.
    pub meant: &'a str,
    /// How fast at most.
    pub rate: Option<Rate>,
    /// Whether to go on with what comes, until it is stopped.
    pub follow: bool,
    /// Where it is kept up to where events were delivered.
    pub bookmark: Option<PathBuf>,
    /// Is told, in a sentence, what is waited for.
    pub tell: Tell<'a>,
}

/// For what whoever watches should know.
pub type Tell<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What came of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
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
    Bookmark {
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
    NotTheFile {
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
    #[error("the endpoint answered {status}: {said}")]
    Refused {
        /// Its answer.
        status: StatusCode,
        /// The beginning of what it said.
        said: String,
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
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A replay that is stopped through the sender.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether it is to stop.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is to stop.
    pub async fn asked(&mut self) {
        // A sender that is gone can't be waited for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Replays to a destination. `watch` is told how many events were handed on, and up to where.
pub async fn run<'a>(
    log: &'a dyn EventStore,
    replay: &Replay<'a>,
    to: &Destination,
    stop: &mut Stop,
    watch: &mut (dyn FnMut(u64, Position) + Send),
) -> Result<Outcome, (ReplayError, Outcome)> {
    let mut outcome = Outcome { events: 0, position: replay.after, stopped: false };
    match begin(log, replay, to, &mut outcome).await {
        Err(error) => Err((error, outcome)),
        Ok((mut running, source)) => {
            let ended = running.go(source, replay, stop, watch, &mut outcome).await;
            let finished = match &ended {
                Ok(()) => running.target.finish().await.inspect(|_| running.bookmark.closed = true),
                // What was delivered before it failed is still worth a bookmark.
                Err(_) => running.target.settle().await,
            };
            let kept = match finished {
                Ok(settled) => running.keep(settled, &mut outcome).map(|()| None),
                Err(error) => Ok(Some(error)),
            };
            match (ended, kept) {
                (Err(error), _) | (Ok(()), Ok(Some(error)) | Err(error)) => Err((error, outcome)),
                (Ok(()), Ok(None)) => Ok(outcome),
            }
        }
    }
}

async fn begin<'a>(
    log: &'a dyn EventStore,
    replay: &Replay<'a>,
    to: &Destination,
    outcome: &mut Outcome,
) -> Result<(Running, Source<'a>), ReplayError> {
    let id = log.log_id().await?;
    let head = log.head().await?;
    let mut file = replay.bookmark.as_deref().map(BookmarkFile::open).transpose()?;
    let read = file.as_mut().map(|file| file.read(id, head)).transpose()?.flatten();
    let after = read.as_ref().map_or(replay.after, |read| read.position.max(replay.after));
    outcome.position = after;
    let meant = whereto::digest(replay.meant);
    if let (Some(file), Some(read)) = (&file, &read) {
        // A file that is not there is not the one it was.
        file.check(read, Whereto::of(to).ok().as_ref(), &meant)?;
    }
    let target = to.open(read.as_ref(), after)?;
    let bookmark = Bookmark {
        log: id,
        position: after,
        events: read.map_or(0, |read| read.events),
        to: Whereto::of(to).map_err(ReplayError::Destination)?,
        meant,
        closed: false,
        bytes: None,
    };
    let mut running = Running { target, file, bookmark, before: 0, written: Instant::now() };
    running.before = running.bookmark.events;
    // From the start on a file can be cut to what it was.
    let settled = running.target.settle().await?;
    running.keep(settled, outcome)?;
    let end = if replay.follow { None } else { Some(head) };
    let end = match (end, replay.until) {
        (Some(head), Some(until)) => Some(head.min(until)),
        (end, until) => end.or(until),
    };
    Ok((running, Source::new(log, after, end, replay.follow, replay.tell)))
}

/// A replay under way.
struct Running {
    target: Box<dyn Target>,
    file: Option<BookmarkFile>,
    bookmark: Bookmark,
    /// Events of earlier runs.
    before: u64,
    written: Instant,
}

impl Running {
    async fn go(
        &mut self,
        mut source: Source<'_>,
        replay: &Replay<'_>,
        stop: &mut Stop,
        watch: &mut (dyn FnMut(u64, Position) + Send),
        outcome: &mut Outcome,
    ) -> Result<(), ReplayError> {
        let mut pace = Pace::start(replay.rate);
        let size = self.target.size().at_most(replay.rate.map_or(u64::MAX, Rate::smooth));
        let mut batch = Batch::after(outcome.position);
        loop {
            let found = self.wait_for(&mut source, replay.follow, stop, outcome).await?;
            let Some(Page { events, up_to, last }) = found else { break };
            for event in events {
                if (replay.wanted)(&event) {
                    batch.push(&event);
                }
                batch.up_to = event.position;
                if batch.is_full(size) {
                    self.hand_on(&mut batch, &mut pace, (stop, replay.tell), outcome).await?;
                    watch(outcome.events, batch.up_to);
                    if stop.is_asked() {
                        break;
                    }
                }
            }
            if stop.is_asked() {
                break;
            }
            batch.up_to = batch.up_to.max(up_to);
            if replay.follow || last {
                self.hand_on(&mut batch, &mut pace, (stop, replay.tell), outcome).await?;
            }
            watch(outcome.events, batch.up_to);
            if self.written.elapsed() >= SETTLE_EVERY {
                self.settle(outcome).await?;
            }
            if last {
                return Ok(());
            }
        }
        outcome.stopped = true;
        Ok(())
    }

    /// What comes next, unless it is to stop before.
    async fn wait_for(
        &mut self,
        source: &mut Source<'_>,
        follow: bool,
        stop: &mut Stop,
        outcome: &mut Outcome,
    ) -> Result<Option<Page>, ReplayError> {
        // Dropped at each tick it would never get further than connecting, where that takes longer.
        let mut coming = pin!(source.next());
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(None),
                page = &mut coming => return Ok(Some(page?)),
                () = tokio::time::sleep(SETTLE_EVERY), if follow => self.settle(outcome).await?,
            }
        }
    }

    /// Hands a batch on, unless it is to stop before; then the batch stays as it is.
    async fn hand_on(
        &mut self,
        batch: &mut Batch,
        pace: &mut Pace,
        (stop, tell): (&mut Stop, Tell<'_>),
        outcome: &mut Outcome,
    ) -> Result<(), ReplayError> {
        tokio::select! {
            biased;
            () = stop.asked() => return Ok(()),
            () = pace.wait_for(batch.events) => {}
        }
        if self.target.deliver(batch, stop, tell).await? {
            outcome.events += batch.events;
            *batch = Batch::after(batch.up_to);
        }
        if self.written.elapsed() >= SETTLE_EVERY {
            self.settle(outcome).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, outcome: &mut Outcome) -> Result<(), ReplayError> {
        let settled = self.target.settle().await?;
        self.keep(settled, outcome)
    }

    /// Writes the bookmark.
    fn keep(&mut self, settled: Settled, outcome: &mut Outcome) -> Result<(), ReplayError> {
        outcome.position = settled.position;
        self.written = Instant::now();
        let Some(file) = &mut self.file else { return Ok(()) };
        self.bookmark.position = settled.position;
        self.bookmark.bytes = settled.bytes;
        self.bookmark.events = self.before + settled.events;
        file.write(&self.bookmark)
    }
}
