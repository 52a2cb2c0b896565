//! Projectors that a command runs: several at a time, watched, ended together.

use std::time::Duration;

use chat_domain::Position;
use chat_domain::operation::Copy;
use chat_projector::bounded::BoundedLog;
use chat_projector::{Policy, ProjectorHandle, State, Status};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Projections, ProjectionsError, asked_to_stop};

/// How often it is looked how far a projector is.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a projector may wait for what it needs before the command gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a command is about, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub phase: Phase,
    /// What it works on, and how far that is.
    pub copies: Vec<(Copy, Status)>,
}

/// A step of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Folding the log.
    Folding,
    /// Comparing with what is live.
    Comparing,
    /// Recording the act.
    Recording,
    /// Going on until the running system has taken over.
    HandingOver,
}

impl Phase {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Folding => "folding",
            Self::Comparing => "comparing",
            Self::Recording => "recording",
            Self::HandingOver => "handing over",
        }
    }
}

impl Progress {
    /// Before anything has begun.
    pub fn new() -> Self {
        Self { phase: Phase::Folding, copies: Vec::new() }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A projector that a command runs.
pub(super) struct Fold {
    pub(super) copy: Copy,
    pub(super) log: Arc<BoundedLog>,
    handle: ProjectorHandle,
    stop: watch::Sender<bool>,
}

impl Fold {
    /// Starts folding into a generation's place, from where it stands, up to `until` or for as long as it is let.
    pub(super) async fn start(
        projections: &Projections,
        copy: Copy,
        until: Option<Position>,
        policy: Policy,
    ) -> Self {
        let place = projections.place(copy);
        // What is not there yet stands at the start.
        let stands = place.position().await.unwrap_or_default();
        let log = Arc::new(BoundedLog::new(Arc::clone(&projections.log), stands));
        if let Some(until) = until {
            log.limit(until);
        }
        let (stop, stopped) = watch::channel(false);
        let handle = place.project_with(policy, Arc::clone(&log) as _, stopped);
        Self { copy, log, handle, stop }
    }

    pub(super) fn status(&self) -> Status {
        self.handle.status.borrow().clone()
    }

    /// Whether another process has the place, and this one waits to take over.
    pub(super) fn stands_by(&self) -> bool {
        self.status().state == State::StandingBy
    }

    /// Nobody asked it to end: where it did, what is stored is of no use to it.
    pub(super) fn has_not_ended(&self, status: &Status) -> Result<(), ProjectionsError> {
        if status.state != State::Stopped {
            return Ok(());
        }
        let error = status.last_error.clone().unwrap_or_default();
        Err(ProjectionsError::Stuck { copy: self.copy, error })
    }

    pub(super) async fn end(self) {
        self.stop.send_replace(true);
        // One that panicked has nothing left to finish.
        let _ = self.handle.join.await;
    }
}

/// Projectors that a command runs together.
pub(super) struct Folds<'a> {
    pub(super) all: Vec<Fold>,
    progress: &'a watch::Sender<Progress>,
    cancel: &'a watch::Receiver<bool>,
}

impl<'a> Folds<'a> {
    pub(super) async fn start(
        projections: &Projections,
        copies: &[Copy],
        until: Option<Position>,
        policy: Policy,
        progress: &'a watch::Sender<Progress>,
        cancel: &'a watch::Receiver<bool>,
    ) -> Self {
        let mut all = Vec::new();
        for copy in copies {
            all.push(Fold::start(projections, *copy, until, policy).await);
        }
        Self { all, progress, cancel }
    }

    /// Tells what the command does now.
    pub(super) fn tell(&self, phase: Phase) {
        let copies = self.all.iter().map(|fold| (fold.copy, fold.status())).collect();
        self.progress.send_replace(Progress { phase, copies });
    }

    /// Lets a moment pass, unless it is asked to stop.
    pub(super) async fn pause(&self) -> Result<(), ProjectionsError> {
        tokio::select! {
            () = asked_to_stop(self.cancel) => Err(ProjectionsError::Interrupted),
            () = sleep(LOOK_EVERY) => Ok(()),
        }
    }

    /// Waits until `enough` says so of each, and tells how far they are meanwhile.
    pub(super) async fn wait(
        &self,
        phase: Phase,
        mut enough: impl AsyncFnMut(&Fold, &Status) -> Result<bool, ProjectionsError>,
    ) -> Result<(), ProjectionsError> {
        let mut waiting_since = None;
        loop {
            self.tell(phase);
            let mut all = true;
            let mut hindered = None;
            for fold in &self.all {
                let status = fold.status();
                fold.has_not_ended(&status)?;
                if status.state == State::Waiting {
                    hindered = Some((fold.copy, status.last_error.clone().unwrap_or_default()));
                }
                all &= enough(fold, &status).await?;
            }
            if all {
                return Ok(());
            }
            match hindered {
                None => waiting_since = None,
                Some((copy, error)) => {
                    if waiting_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(ProjectionsError::Stuck { copy, error });
                    }
                }
            }
            self.pause().await?;
        }
    }

    /// Ends all, each with the stretch at hand finished.
    pub(super) async fn end(self) {
        for fold in &self.all {
            fold.stop.send_replace(true);
        }
        for fold in self.all {
            fold.end().await;
        }
    }
}
