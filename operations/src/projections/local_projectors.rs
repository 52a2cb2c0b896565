//! Projectors that a command runs: several at a time, watched, ended together.

use std::time::Duration;

use chat_domain::Position;
use chat_domain::operator_action::ProjectionGeneration;
use chat_projector::generations::BoundedLog;
use chat_projector::{ProjectorHandle, ProjectorState, ProjectorStatus, RecoveryPolicy, spawn_projector};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Projections, ProjectionsError, cancelled};

/// How often it is looked how far a projector is.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a projector may wait for what it needs before the command gives up.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// What a command is about, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub phase: Phase,
    /// What it works on, and how far that is.
    pub generations: Vec<(ProjectionGeneration, ProjectorStatus)>,
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
        Self { phase: Phase::Folding, generations: Vec::new() }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A projector that a command runs.
pub(super) struct LocalProjector {
    pub(super) generation_id: ProjectionGeneration,
    pub(super) log: Arc<BoundedLog>,
    handle: ProjectorHandle,
    stop_sender: watch::Sender<bool>,
}

impl LocalProjector {
    /// Starts folding into a generation's place, from where it stands, up to `until` or for as long as it is let.
    pub(super) async fn start(
        projections: &Projections,
        copy: ProjectionGeneration,
        until: Option<Position>,
        policy: RecoveryPolicy,
    ) -> Self {
        let place = projections.location(copy);
        // What is not there yet stands at the start.
        let stands = place.position().await.unwrap_or_default();
        let log = Arc::new(BoundedLog::new(Arc::clone(&projections.log), stands));
        if let Some(until) = until {
            log.set_limit(until);
        }
        let (stop, stopped) = watch::channel(false);
        let handle = spawn_projector(place, Arc::clone(&log) as _, policy, stopped);
        Self { generation_id: copy, log, handle, stop_sender: stop }
    }

    pub(super) fn status(&self) -> ProjectorStatus {
        self.handle.status.borrow().clone()
    }

    /// Whether another process has the place, and this one waits to take over.
    pub(super) fn is_standing_by(&self) -> bool {
        self.status().state == ProjectorState::StandingBy
    }

    /// Nobody asked it to end: where it did, what is stored is of no use to it.
    pub(super) fn ensure_running(&self, status: &ProjectorStatus) -> Result<(), ProjectionsError> {
        if status.state != ProjectorState::Stopped {
            return Ok(());
        }
        let error = status.last_error.clone().unwrap_or_default();
        Err(ProjectionsError::Stalled { generation_id: self.generation_id, error })
    }

    pub(super) async fn stop(self) {
        self.stop_sender.send_replace(true);
        // One that panicked has nothing left to finish.
        let _ = self.handle.join.await;
    }
}

/// Projectors that a command runs together.
pub(super) struct LocalProjectors<'a> {
    pub(super) projectors: Vec<LocalProjector>,
    progress: &'a watch::Sender<Progress>,
    cancel: &'a watch::Receiver<bool>,
}

impl<'a> LocalProjectors<'a> {
    pub(super) async fn start(
        projections: &Projections,
        copies: &[ProjectionGeneration],
        until: Option<Position>,
        policy: RecoveryPolicy,
        progress: &'a watch::Sender<Progress>,
        cancel: &'a watch::Receiver<bool>,
    ) -> Self {
        let mut all = Vec::new();
        for copy in copies {
            all.push(LocalProjector::start(projections, *copy, until, policy).await);
        }
        Self { projectors: all, progress, cancel }
    }

    /// Tells what the command does now.
    pub(super) fn report_progress(&self, phase: Phase) {
        let copies = self.projectors.iter().map(|fold| (fold.generation_id, fold.status())).collect();
        self.progress.send_replace(Progress { phase, generations: copies });
    }

    /// Lets a moment pass, unless it is asked to stop.
    pub(super) async fn sleep_unless_cancelled(&self) -> Result<(), ProjectionsError> {
        tokio::select! {
            () = cancelled(self.cancel) => Err(ProjectionsError::Interrupted),
            () = sleep(POLL_INTERVAL) => Ok(()),
        }
    }

    /// Waits until `enough` says so of each, and tells how far they are meanwhile.
    pub(super) async fn wait_until(
        &self,
        phase: Phase,
        mut is_done: impl AsyncFnMut(&LocalProjector, &ProjectorStatus) -> Result<bool, ProjectionsError>,
    ) -> Result<(), ProjectionsError> {
        let mut waiting_since = None;
        loop {
            self.report_progress(phase);
            let mut all = true;
            let mut stalled = None;
            for fold in &self.projectors {
                let status = fold.status();
                fold.ensure_running(&status)?;
                if status.state == ProjectorState::Waiting {
                    stalled = Some((fold.generation_id, status.last_error.clone().unwrap_or_default()));
                }
                all &= is_done(fold, &status).await?;
            }
            if all {
                return Ok(());
            }
            match stalled {
                None => waiting_since = None,
                Some((copy, error)) => {
                    if waiting_since.get_or_insert_with(Instant::now).elapsed() > STALL_TIMEOUT {
                        return Err(ProjectionsError::Stalled { generation_id: copy, error });
                    }
                }
            }
            self.sleep_unless_cancelled().await?;
        }
    }

    /// Ends all, each with the stretch at hand finished.
    pub(super) async fn stop(self) {
        for fold in &self.projectors {
            fold.stop_sender.send_replace(true);
        }
        for fold in self.projectors {
            fold.stop().await;
        }
    }
}
