//! Runs jobs: one process at a time, which holds the lock of the runner. The others stand by.

use std::collections::HashSet;
use std::time::Duration;

use chat_ports::error_chain;
use chat_ports::event_store::EventStoreError;
use chat_ports::read_model::{ReadModelError, StorageLock};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::action::JobAction;
use super::action_outcome::ActionReport;
use super::progress::ProgressReporter;
use super::registry::JobRecord;
use super::run::{Execution, recorded_actions};
use super::service::{Jobs, job_ended, job_started};
use crate::operator_actions::{JobId, record_action};

/// The maximal number of jobs that run at a time. Others wait.
pub const MAX_RUNNING_JOBS: usize = 4;

/// The maximal number of attempts to run a job. Bounds how often a job can crash its process.
pub const MAX_JOB_ATTEMPTS: u32 = 10;

/// The name of the runner's lock.
const LOCK_NAME: &str = "jobs";

/// The interval at which the operators' stream is polled for jobs that were requested at other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The interval at which a standby process tries to take the lock, and the holder checks it.
const LOCK_INTERVAL: Duration = Duration::from_secs(2);

/// The pause before another attempt, after the log was unavailable.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Why a process stops running jobs.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// The process is stopping.
    Shutdown,
    /// The lock was lost.
    LockLost,
}

impl Jobs {
    /// Runs jobs until `shutdown` is set: jobs that are requested at any process, and jobs whose process has stopped.
    /// `shutdown` interrupts the running jobs; the next runner takes them up again.
    pub async fn run(self, shutdown: watch::Receiver<bool>) {
        let mut is_lock_error_logged = false;
        loop {
            let mut stopping = shutdown.clone();
            let lock = tokio::select! {
                biased;
                // An error means that the sender was dropped, so the process is ending.
                _ = stopping.wait_for(|is_set| *is_set) => return,
                lock = self.shared.projections.locations.read_model.lock(LOCK_NAME) => lock,
            };
            match lock {
                Ok(lock) => {
                    is_lock_error_logged = false;
                    if self.run_as_holder(&*lock, shutdown.clone()).await == Stop::Shutdown {
                        return;
                    }
                    tracing::warn!("the lock of the jobs was lost; another process may run them");
                }
                Err(ReadModelError::InUse) => {}
                Err(error) if !is_lock_error_logged => {
                    is_lock_error_logged = true;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "jobs are not run: their lock is unavailable"
                    );
                }
                Err(_) => {}
            }
            pause(LOCK_INTERVAL, shutdown.clone()).await;
        }
    }

    async fn run_as_holder(&self, lock: &dyn StorageLock, mut shutdown: watch::Receiver<bool>) -> Stop {
        let (cancel_sender, cancel) = watch::channel(false);
        let mut running = JoinSet::new();
        let mut running_ids = HashSet::new();
        let mut lock_checked_at = Instant::now();
        let stop = loop {
            self.start_waiting_jobs(&mut running, &mut running_ids, &cancel).await;
            tokio::select! {
                biased;
                // An error means that the sender was dropped, so the process is ending.
                _ = shutdown.wait_for(|is_set| *is_set) => break Stop::Shutdown,
                Some(stopped) = running.join_next() => {
                    // Always `Ok`: `attempt` catches a panic of the job.
                    if let Ok(id) = stopped {
                        running_ids.remove(&id);
                    }
                    continue;
                }
                () = self.shared.requested.notified() => {}
                () = sleep(POLL_INTERVAL) => {}
            }
            if lock_checked_at.elapsed() >= LOCK_INTERVAL {
                if !lock.is_held().await {
                    break Stop::LockLost;
                }
                lock_checked_at = Instant::now();
            }
        };
        cancel_sender.send_replace(true);
        while running.join_next().await.is_some() {}
        stop
    }

    /// Starts jobs that have not ended and do not run, until [`MAX_RUNNING_JOBS`] run.
    async fn start_waiting_jobs(
        &self,
        running: &mut JoinSet<JobId>,
        running_ids: &mut HashSet<JobId>,
        cancel: &watch::Receiver<bool>,
    ) {
        let waiting: Vec<JobRecord> = match self.shared.registry().await {
            Ok(registry) => {
                registry.unfinished().filter(|job| !running_ids.contains(&job.id)).cloned().collect()
            }
            // The next poll tries again.
            Err(_) => return,
        };
        for job in waiting {
            if running_ids.len() >= MAX_RUNNING_JOBS {
                return;
            }
            // A job of a newer program waits for a process of its version.
            let Some(action) = JobAction::from_recorded(&job.kind, &job.options) else { continue };
            let (jobs, id, cancel) = (self.clone(), job.id, cancel.clone());
            running_ids.insert(id);
            running.spawn(async move {
                jobs.run_job(job, action, cancel).await;
                jobs.shared.set_stopped(id);
                id
            });
        }
    }

    /// Runs a job, and records its end. If the process is stopping or the log unavailable, the job does not end.
    async fn run_job(&self, job: JobRecord, action: JobAction, cancel: watch::Receiver<bool>) {
        let attempt = job.attempts + 1;
        tracing::info!(job = %job.id, kind = job.kind, operator = job.operator.name, attempt, "job started");
        let outcome = if attempt > MAX_JOB_ATTEMPTS {
            Some(Err(format!(
                "given up after {MAX_JOB_ATTEMPTS} attempts: each time the process stopped or the log was unavailable"
            )))
        } else {
            self.attempt(&job, attempt, action, cancel.clone()).await
        };
        let Some(outcome) = outcome else {
            tracing::info!(job = %job.id, "job interrupted; it will be taken up again");
            return;
        };
        match &outcome {
            Ok(report) => tracing::info!(job = %job.id, status = ?report.status, "job ended"),
            Err(error) => tracing::warn!(job = %job.id, error, "job failed"),
        }
        let end_action = job_ended(job.id, outcome);
        while let Err(error) = record_action(self.shared.log(), &job.operator, &end_action).await {
            tracing::warn!(
                job = %job.id,
                error = &error as &dyn std::error::Error,
                "the end of the job can't be recorded yet"
            );
            pause(RETRY_PAUSE, cancel.clone()).await;
            if *cancel.borrow() {
                return;
            }
        }
    }

    /// Makes one attempt. `None` if another one is needed.
    async fn attempt(
        &self,
        job: &JobRecord,
        attempt: u32,
        action: JobAction,
        cancel: watch::Receiver<bool>,
    ) -> Option<Result<ActionReport, String>> {
        let recorded = match self.begin(job, attempt).await {
            Ok(recorded) => recorded,
            Err(error) => {
                tracing::warn!(job = %job.id, error, "the job can't be started yet");
                pause(RETRY_PAUSE, cancel).await;
                return None;
            }
        };
        let cancel_pause = cancel.clone();
        let (progress_sender, progress_receiver) = watch::channel(None);
        self.shared.set_running(job.id, progress_receiver);
        let (jobs, job) = (self.clone(), job.clone());
        // The futures of projection commands can't move between threads.
        let work = spawn_blocking(move || {
            Handle::current().block_on(async move {
                let counts_events = jobs.shared.log().has_contiguous_positions();
                let execution = Execution {
                    context: jobs.shared.context(),
                    operator: &job.operator,
                    reason: &job.reason,
                    recorded,
                    progress: ProgressReporter::new(progress_sender, counts_events),
                    cancel,
                };
                execution.run(&action).await
            })
        });
        let log = self.shared.log();
        match work.await {
            Ok(Ok(report)) => Some(Ok(report)),
            // The end of a job can't be recorded while the log takes no appends. Once it takes them again, the cause of
            // the job's error is gone too, so the job is attempted again.
            Ok(Err(error)) if error.is_retryable() || log.closed_because().is_some() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the job is interrupted");
                pause(RETRY_PAUSE, cancel_pause).await;
                None
            }
            Ok(Err(error)) => Some(Err(error_chain(&error))),
            Err(panicked) => {
                tracing::error!(error = &panicked as &dyn std::error::Error, "the job panicked");
                Some(Err("an internal error; the log of the process has the reason".to_owned()))
            }
        }
    }

    /// Records the beginning of an attempt. Returns the actions that the job recorded before.
    async fn begin(
        &self,
        job: &JobRecord,
        attempt: u32,
    ) -> Result<Vec<(chat_domain::Position, chat_domain::OperatorAction)>, String> {
        let recorded = recorded_actions(self.shared.log(), job).await;
        let recorded = recorded.map_err(|error: EventStoreError| error_chain(&error))?;
        let action = job_started(job.id, attempt);
        let receipt = record_action(self.shared.log(), &job.operator, &action).await;
        receipt.map_err(|error| error_chain(&error))?;
        Ok(recorded)
    }
}

/// Waits for a time, or until `stop` is set.
async fn pause(time: Duration, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = sleep(time) => {}
        // An error means that the sender was dropped, so the process is ending.
        _ = stop.wait_for(|is_set| *is_set) => {}
    }
}
