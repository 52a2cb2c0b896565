//! Local projectors: run by an operator command in its own process, with progress reports.

use std::time::Duration;

use chat_domain::Position;
use chat_domain::projection::ProjectionGeneration;
use chat_projector::generations::BoundedLog;
use chat_projector::{ProjectorHandle, ProjectorState, ProjectorStatus, RecoveryPolicy, spawn_projector};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::context::Projections;
use super::error::ProjectionsError;

/// The interval at which the state of a projector is polled.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The time for which a projector may wait for a dependency before the command fails.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// The progress of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The current phase.
    pub phase: Phase,
    /// The generations that the command works on, each with the status of its projector.
    pub generations: Vec<(ProjectionGeneration, ProjectorStatus)>,
}

/// A phase of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Folding the log.
    Folding,
    /// Bringing the generations to the head of the log before the switch-over.
    CatchingUp,
    /// Comparing with the live generation.
    Comparing,
    /// Recording the operator action.
    Recording,
    /// Waiting until the running system has taken over.
    HandingOver,
}

impl Phase {
    /// Returns the phase's name in output for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Folding => "folding",
            Self::CatchingUp => "catching up",
            Self::Comparing => "comparing",
            Self::Recording => "recording",
            Self::HandingOver => "handing over",
        }
    }
}

impl Progress {
    /// Creates the progress at the start of a command.
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
    /// Starts a projector that continues a generation, up to `until` if that is given.
    pub(super) async fn start(
        projections: &Projections,
        generation_id: ProjectionGeneration,
        until: Option<Position>,
        policy: RecoveryPolicy,
    ) -> Self {
        let store = projections.store(generation_id);
        // A generation that does not exist yet begins at the start of the log.
        let position = store.position().await.unwrap_or_default();
        let log = Arc::new(BoundedLog::new(Arc::clone(&projections.log), position));
        if let Some(until) = until {
            log.set_limit(until);
        }
        let (stop_sender, stop_receiver) = watch::channel(false);
        let handle = spawn_projector(store, Arc::clone(&log) as _, policy, stop_receiver);
        handle.set_in_use(false);
        Self { generation_id, log, handle, stop_sender }
    }

    pub(super) fn status(&self) -> ProjectorStatus {
        self.handle.status.borrow().clone()
    }

    /// Returns whether this projector waits to take over the generation, because another process works on it.
    pub(super) fn is_standing_by(&self) -> bool {
        self.status().state == ProjectorState::StandingBy
    }

    /// Fails if the projector has stopped. A projector stops without a request only if it can't use the stored content
    /// of its generation.
    pub(super) fn ensure_running(&self, status: &ProjectorStatus) -> Result<(), ProjectionsError> {
        if status.state != ProjectorState::Stopped {
            return Ok(());
        }
        let error = status.last_error.clone().unwrap_or_default();
        Err(ProjectionsError::Stalled { generation_id: self.generation_id, error })
    }

    pub(super) async fn stop(self) {
        self.stop_sender.send_replace(true);
        // A task that panicked needs no further cleanup.
        let _ = self.handle.join.await;
    }
}

/// Completes when the command is interrupted; never if the sender is dropped.
pub(super) async fn interrupted(cancel: &watch::Receiver<bool>) {
    let mut cancel = cancel.clone();
    if cancel.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
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
        generation_ids: &[ProjectionGeneration],
        until: Option<Position>,
        policy: RecoveryPolicy,
        progress: &'a watch::Sender<Progress>,
        cancel: &'a watch::Receiver<bool>,
    ) -> Self {
        let mut projectors = Vec::new();
        for generation_id in generation_ids {
            projectors.push(LocalProjector::start(projections, *generation_id, until, policy).await);
        }
        Self { projectors, progress, cancel }
    }

    /// Publishes the progress of the command.
    pub(super) fn report_progress(&self, phase: Phase) {
        let generations =
            self.projectors.iter().map(|projector| (projector.generation_id, projector.status())).collect();
        self.progress.send_replace(Progress { phase, generations });
    }

    /// Sleeps for the poll interval. Fails if the command is interrupted.
    pub(super) async fn sleep_unless_interrupted(&self) -> Result<(), ProjectionsError> {
        tokio::select! {
            () = interrupted(self.cancel) => Err(ProjectionsError::Interrupted),
            () = sleep(POLL_INTERVAL) => Ok(()),
        }
    }

    /// Waits until `is_done` holds for every projector, and publishes progress meanwhile.
    pub(super) async fn wait_until(
        &self,
        phase: Phase,
        mut is_done: impl AsyncFnMut(&LocalProjector, &ProjectorStatus) -> Result<bool, ProjectionsError>,
    ) -> Result<(), ProjectionsError> {
        let mut waiting_since = None;
        loop {
            self.report_progress(phase);
            let mut are_all_done = true;
            let mut stalled = None;
            for projector in &self.projectors {
                let status = projector.status();
                projector.ensure_running(&status)?;
                if status.state == ProjectorState::Waiting {
                    stalled = Some((projector.generation_id, status.last_error.clone().unwrap_or_default()));
                }
                are_all_done &= is_done(projector, &status).await?;
            }
            if are_all_done {
                return Ok(());
            }
            match stalled {
                None => waiting_since = None,
                Some((generation_id, error)) => {
                    if waiting_since.get_or_insert_with(Instant::now).elapsed() > STALL_TIMEOUT {
                        return Err(ProjectionsError::Stalled { generation_id, error });
                    }
                }
            }
            self.sleep_unless_interrupted().await?;
        }
    }

    /// Stops all projectors; each finishes its current batch.
    pub(super) async fn stop(self) {
        for projector in &self.projectors {
            projector.stop_sender.send_replace(true);
        }
        for projector in self.projectors {
            projector.stop().await;
        }
    }
}
