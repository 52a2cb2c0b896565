//! The service of jobs: takes requests for them, reports their states, and runs them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chat_domain::operator_action::{JobEnded, JobRequested, JobStarted, JobStatus};
use chat_domain::{OperatorAction, Position, Timestamp};
use chat_ports::event_store::{AppendError, EventStore, EventStoreError};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use utoipa::ToSchema;

use super::action::JobAction;
use super::action_outcome::{ActionError, ActionReport};
use super::dry_run::ActionContext;
use super::progress::{GenerationProgress, JobProgress};
use super::registry::{JobRecord, JobRegistry};
use crate::envelope::{Diagnostic, Report};
use crate::operator_actions::{JobId, MAX_APPEND_ATTEMPTS, Operator, append_action, find_action};
use crate::projections::Projections;
use crate::proof::key::{SigningKey, VerifyingKey};

/// The maximal number of jobs that have not ended.
pub const MAX_UNFINISHED_JOBS: usize = 32;

/// The longest reason, in characters.
pub const MAX_REASON_CHARS: usize = 1_000;

/// The service of jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) projections: Arc<Projections>,
    pub(super) signing_key: Option<Arc<SigningKey>>,
    registry: Mutex<JobRegistry>,
    /// The progress of the jobs that this process runs.
    running: RwLock<HashMap<JobId, watch::Receiver<Option<JobProgress>>>>,
    /// Notified when a job was requested at this process.
    pub(super) requested: Notify,
}

/// The reason of an action: 1 to [`MAX_REASON_CHARS`] characters without NUL, and not only white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

/// The error for text that is not a reason.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidReason {
    /// It is empty, or has a NUL.
    #[error("a reason is required: 1 to {MAX_REASON_CHARS} characters, without NUL")]
    Malformed,
    /// It is too long.
    #[error("a reason has at most {MAX_REASON_CHARS} characters, and this one has {0}")]
    TooLong(usize),
}

impl Reason {
    /// Parses a reason.
    pub fn parse(text: &str) -> Result<Self, InvalidReason> {
        let text = text.trim();
        let length = text.chars().count();
        if length > MAX_REASON_CHARS {
            return Err(InvalidReason::TooLong(length));
        }
        if text.is_empty() || text.contains('\0') {
            return Err(InvalidReason::Malformed);
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A job that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedJob {
    /// Its id.
    pub id: JobId,
    /// Whether an earlier request with the same idempotency key requested it.
    pub is_replayed: bool,
}

/// Why a job was not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The action is not possible.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The operator used the idempotency key for another action, or with another reason.
    #[error("this idempotency key was used with another action or reason")]
    KeyReused,
    /// Too many jobs have not ended.
    #[error("{MAX_UNFINISHED_JOBS} jobs have not ended")]
    TooManyJobs,
    /// Other actions were appended first in every attempt.
    #[error("other operators record actions at the same time; nothing was recorded")]
    Contended,
    /// The log could not be read.
    #[error("the event log can't be read")]
    EventStore(#[from] EventStoreError),
    /// The log could not be written.
    #[error("the job could not be recorded")]
    Append(#[source] AppendError),
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// No process has begun to run it yet.
    Waiting,
    /// A process runs it, or will take it up again after the process that ran it has stopped.
    Running,
    /// It ended without findings.
    Ok,
    /// It ended with findings that need attention.
    Finding,
    /// It failed.
    Failed,
}

impl JobState {
    /// Whether the job has ended.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Ok | Self::Finding | Self::Failed)
    }

    /// Returns the state's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Finding => "finding",
            Self::Failed => "failed",
        }
    }
}

impl Report for Job {
    fn has_findings(&self) -> bool {
        matches!(self.state, JobState::Finding | JobState::Failed)
    }
}

/// A job: an action that runs in the background.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Job {
    /// Its id: that of the event that requested it.
    pub id: String,
    /// The position of that event.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The kind of the action, such as `projections.rebuild`.
    pub kind: String,
    /// The options of the action.
    #[schema(value_type = Object)]
    pub options: Value,
    /// The operator who requested it.
    pub operator: String,
    /// The program that the operator used.
    pub program: String,
    /// The operator's reason.
    pub reason: String,
    /// Its state.
    pub state: JobState,
    /// When it was requested.
    pub requested_at: String,
    /// When a process began to run it for the first time.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How often a process began to run it. More than 1 if an attempt was interrupted: the process stopped, or the log
    /// was unavailable.
    pub attempts: u32,
    /// The progress, while it runs.
    pub progress: Option<JobProgress>,
    /// The report, if it ended. Not in lists.
    #[schema(value_type = Option<Object>)]
    pub report: Option<Value>,
    /// Remarks on the report.
    pub diagnostics: Vec<Diagnostic>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Jobs {
    /// Creates the service. Checkpoints need a signing key.
    pub fn new(projections: Arc<Projections>, signing_key: Option<SigningKey>) -> Self {
        Self {
            shared: Arc::new(Shared {
                projections,
                signing_key: signing_key.map(Arc::new),
                registry: Mutex::default(),
                running: RwLock::default(),
                requested: Notify::new(),
            }),
        }
    }

    /// The public key of the checkpoints that jobs make, if this process has a signing key.
    pub fn verifying_key(&self) -> Option<VerifyingKey> {
        self.shared.signing_key.as_ref().map(|key| key.verifying_key())
    }

    /// Plans an action without doing it.
    pub async fn dry_run(&self, action: &JobAction) -> Result<ActionReport, ActionError> {
        let report = self.plan(action).await;
        if let Err(ActionError::EventStore(_)) = report {
            // The reason why a missing log takes no appends is also the reason why it can't be read.
            self.shared.projections.ensure_log_takes_appends()?;
        }
        let report = report?;
        Ok(ActionReport { data: super::report_size::bounded(report.data), ..report })
    }

    async fn plan(&self, action: &JobAction) -> Result<ActionReport, ActionError> {
        if let Some((job, projection)) = self.shared.registry().await?.find_conflict(action) {
            return Err(ActionError::conflict(job, projection));
        }
        self.shared.context().dry_run(action).await
    }

    /// Requests a job. It is durable when this returns: some process will run it to its end.
    ///
    /// A key makes repetitions safe: the same operator's same key always means the same job, also at another process.
    /// The record has the projections of a switch-over, but not whether the request named them: a request without
    /// projections is answered with the job of an earlier request with the same key, kind and reason, whichever
    /// projections that one had.
    ///
    /// # Errors
    /// After these errors nothing was recorded, and a retry may succeed: [`StartError::TooManyJobs`],
    /// [`StartError::Contended`], a [`StartError::EventStore`] or [`ActionError::EventStore`] that is retryable, and a
    /// [`StartError::Append`] that reports an unavailable log. After [`AppendError::OutcomeUnknown`], a retry is safe
    /// only with a key. After other errors, a retry fails in the same way until the request or the state of the system
    /// changes.
    pub async fn start(
        &self,
        action: &JobAction,
        operator: &Operator,
        reason: &Reason,
        key: Option<&str>,
    ) -> Result<RequestedJob, StartError> {
        let id = JobId::generate(operator, key);
        let reason = &reason.0;
        let ensure_open = || self.shared.projections.ensure_log_takes_appends().map_err(ActionError::from);
        if key.is_some() {
            let found = self.find_replayed(id, action, reason).await;
            if let Err(StartError::EventStore(_)) = found {
                // The reason why a missing log takes no appends is also the reason why it can't be read.
                ensure_open()?;
            }
            if let Some(replayed) = found? {
                return Ok(replayed);
            }
        }
        ensure_open()?;
        let context = self.shared.context();
        let operator = Operator { job: Some(id), ..operator.clone() };
        for _ in 0..MAX_APPEND_ATTEMPTS {
            let (last_revision, conflict) = {
                let registry = self.shared.registry().await?;
                if registry.unfinished().count() >= MAX_UNFINISHED_JOBS {
                    return Err(StartError::TooManyJobs);
                }
                let conflict = registry.find_conflict(action);
                let conflict = conflict.map(|(job, projection)| ActionError::conflict(job, projection));
                (registry.last_revision(), conflict)
            };
            // Looked up again before the conflict is reported: the conflicting job may be the one that an earlier
            // request with the same key requested.
            if key.is_some()
                && let Some(replayed) = self.find_replayed(id, action, reason).await?
            {
                return Ok(replayed);
            }
            if let Some(conflict) = conflict {
                return Err(conflict.into());
            }
            // The append below fails if another job was requested or has ended since the registry was read, so no other
            // job changes what the names mean.
            let complete_action = context.with_projections(action).await?;
            context.check(&complete_action).await?;
            let (kind, options) = complete_action.to_recorded();
            let request_action = JobRequested { kind, options, reason: reason.clone() }.into();
            let log = self.shared.log();
            match append_action(log, id.request_id(), &operator, &request_action, last_revision).await {
                Ok(_) => {
                    self.shared.requested.notify_one();
                    return Ok(RequestedJob { id, is_replayed: false });
                }
                Err(AppendError::Conflict) => {}
                Err(error) => return Err(StartError::Append(error)),
            }
        }
        Err(StartError::Contended)
    }

    /// Finds the job that an earlier request with the same key requested.
    async fn find_replayed(
        &self,
        id: JobId,
        action: &JobAction,
        reason: &str,
    ) -> Result<Option<RequestedJob>, StartError> {
        let Some(event) = find_action(self.shared.log(), id.request_id()).await? else { return Ok(None) };
        let (kind, options) = action.to_recorded();
        // The record of a switch-over has the projections that the request left out.
        let is_same = |earlier: &JobRequested| {
            earlier.kind == kind
                && earlier.reason == reason
                && (action.takes_default_projections() || earlier.options == options)
        };
        match OperatorAction::decode(&event.event_type, event.schema_version, &event.data) {
            Ok(OperatorAction::JobRequested(earlier)) if is_same(&earlier) => {
                Ok(Some(RequestedJob { id, is_replayed: true }))
            }
            _ => Err(StartError::KeyReused),
        }
    }

    /// Returns a job; `None` if there is none, or if 500 other jobs ended after it.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, EventStoreError> {
        let record = self.shared.registry().await?.get(id).cloned();
        let Some(record) = record else { return Ok(None) };
        let report = match &record.end {
            Some(end) => end.read_report(self.shared.log()).await?,
            None => None,
        };
        Ok(Some(Job { report, ..self.shared.describe(&record).await }))
    }

    /// Lists at most `limit` jobs, the newest first, without their reports. With `before`, lists only jobs that were
    /// requested before that position.
    pub async fn list(&self, before: Option<Position>, limit: usize) -> Result<Vec<Job>, EventStoreError> {
        let records: Vec<_> = {
            let registry = self.shared.registry().await?;
            let is_listed = |job: &&JobRecord| before.is_none_or(|before| job.position < before);
            registry.newest_first().filter(is_listed).take(limit).cloned().collect()
        };
        let mut jobs = Vec::with_capacity(records.len());
        for record in &records {
            jobs.push(self.shared.describe(record).await);
        }
        Ok(jobs)
    }

    /// Waits until a job differs from `seen`, and returns it; `None` if there is no such job. Returns at once if `seen`
    /// is `None`. Callers stop when the job has ended, because an ended job does not change any more.
    pub async fn next_change(&self, id: JobId, seen: Option<&Job>) -> Result<Option<Job>, EventStoreError> {
        loop {
            let job = self.get(id).await?;
            if job.as_ref() != seen || job.is_none() {
                return Ok(job);
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }
}

/// The interval at which a followed job is read.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

impl Shared {
    pub(super) fn log(&self) -> &dyn EventStore {
        &*self.projections.log
    }

    pub(super) fn context(&self) -> ActionContext<'_> {
        ActionContext { projections: &self.projections, signing_key: self.signing_key.as_deref() }
    }

    /// Returns the registry, after it has read all of the operators' stream.
    pub(super) async fn registry(&self) -> Result<MutexGuard<'_, JobRegistry>, EventStoreError> {
        let mut registry = self.registry.lock().await;
        registry.catch_up(self.log()).await?;
        Ok(registry)
    }

    pub(super) fn set_running(&self, id: JobId, progress: watch::Receiver<Option<JobProgress>>) {
        self.running.write().unwrap_or_else(PoisonError::into_inner).insert(id, progress);
    }

    pub(super) fn set_stopped(&self, id: JobId) {
        self.running.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Describes a job, without its report.
    async fn describe(&self, record: &JobRecord) -> Job {
        let state = match &record.end {
            Some(end) => match end.event.status {
                JobStatus::Ok => JobState::Ok,
                JobStatus::Finding => JobState::Finding,
                JobStatus::Failed => JobState::Failed,
            },
            None if record.attempts == 0 => JobState::Waiting,
            None => JobState::Running,
        };
        let progress = if state == JobState::Running { self.progress(record).await } else { None };
        let end_event = record.end.as_ref().map(|end| &end.event);
        Job {
            id: record.id.to_string(),
            position: record.position,
            kind: record.kind.clone(),
            options: record.options.clone(),
            operator: record.operator.name.clone(),
            program: record.operator.program.clone(),
            reason: record.reason.clone(),
            state,
            requested_at: record.requested_at.to_string(),
            started_at: record.started_at.as_ref().map(Timestamp::to_string),
            ended_at: record.end.as_ref().map(|end| end.ended_at.to_string()),
            attempts: record.attempts,
            progress,
            report: None,
            diagnostics: end_event
                .and_then(|event| event.diagnostics.clone())
                .and_then(|diagnostics| serde_json::from_value(diagnostics).ok())
                .unwrap_or_default(),
            error: end_event.and_then(|event| event.error.clone()),
        }
    }

    /// Returns the progress of a running job. If another process runs the job, only a rebuild has a progress: the
    /// positions of the generations that it builds.
    async fn progress(&self, record: &JobRecord) -> Option<JobProgress> {
        let local = {
            let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
            running.get(&record.id).map(|progress| progress.borrow().clone())
        };
        if let Some(progress) = local {
            return progress;
        }
        let Some(JobAction::Rebuild(request)) = JobAction::from_recorded(&record.kind, &record.options)
        else {
            return None;
        };
        let generations = self.projections.generations().await.ok()?;
        let head = self.log().head().await.ok()?;
        let mut generation_progress = Vec::new();
        for projection in request.projections.names() {
            let Some(generation) = generations.for_projection(*projection).building else { continue };
            let position = self.projections.stored_position(*projection, generation).await;
            let position = position.unwrap_or_default();
            generation_progress.push(GenerationProgress {
                projection: *projection,
                generation,
                position,
                head,
            });
        }
        if generation_progress.is_empty() {
            return None;
        }
        Some(JobProgress::from_generations(
            "running",
            generation_progress,
            self.log().has_contiguous_positions(),
        ))
    }
}

/// The event that records the beginning of an attempt.
pub(super) fn job_started(id: JobId, attempt: u32) -> OperatorAction {
    JobStarted { job: id.to_string(), attempt }.into()
}

/// The event that records the end of a job.
pub(super) fn job_ended(id: JobId, outcome: Result<ActionReport, String>) -> OperatorAction {
    use crate::envelope::Status;
    let ended = match outcome {
        Ok(ActionReport { status, data, diagnostics }) => JobEnded {
            job: id.to_string(),
            status: if status == Status::Ok { JobStatus::Ok } else { JobStatus::Finding },
            report: Some(super::report_size::bounded(data)),
            diagnostics: serde_json::to_value(diagnostics).ok(),
            error: None,
        },
        Err(error) => JobEnded {
            job: id.to_string(),
            status: JobStatus::Failed,
            report: None,
            diagnostics: None,
            error: Some(error),
        },
    };
    ended.into()
}
