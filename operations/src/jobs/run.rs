//! Executes the actions of jobs.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use chat_domain::operator_action::{self, ProjectionsDropped, ProjectionsPromoted, ProjectionsRolledBack};
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_domain::{OperatorAction, Position};
use chat_ports::event_store::{EventStore, EventStoreError, ReadStart, RecordedEvent, StreamRead};
use serde_json::json;
use tokio::sync::watch;

use super::action::{AcknowledgeRequest, CheckpointRequest, DropRequest, JobAction, VerifyRequest};
use super::action_outcome::{ActionError, ActionReport};
use super::dry_run::ActionContext;
use super::progress::ProgressReporter;
use super::registry::{JobRecord, PAGE_EVENTS};
use crate::dead_letters::resolve::{acknowledge, resolve};
use crate::envelope::{Diagnostic, Status};
use crate::operator_actions::Operator;
use crate::projections::rebuild::{self, RebuildOptions, RebuildReport};
use crate::projections::switch_over::{self, SwitchDirection, SwitchOverReport};
use crate::projections::{Projections, ProjectionsError, drop_generations};
use crate::proof::checkpoint::Checkpoint;
use crate::proof::key::VerifyingKey;
use crate::proof::{log_integrity, verify};

/// How long a job waits until the projections have applied its actions.
const APPLY_TIMEOUT: Duration = Duration::from_mins(5);

/// A job that is being run.
pub(super) struct Execution<'a> {
    pub(super) context: ActionContext<'a>,
    pub(super) operator: &'a Operator,
    pub(super) reason: &'a str,
    /// The actions that the job recorded in earlier attempts, in order.
    pub(super) recorded: Vec<(Position, OperatorAction)>,
    pub(super) progress: ProgressReporter,
    pub(super) cancel: watch::Receiver<bool>,
}

/// Reads the actions that a job has recorded, without the beginnings of its attempts.
pub(super) async fn recorded_actions(
    log: &dyn EventStore,
    job: &JobRecord,
) -> Result<Vec<(Position, OperatorAction)>, EventStoreError> {
    let mut recorded = Vec::new();
    let mut next = job.revision.next();
    loop {
        let read = StreamRead::all(operator_action::STREAM, ReadStart::Forwards(next), PAGE_EVENTS);
        let events = log.read_stream(read).await?;
        let Some(last) = events.last() else { return Ok(recorded) };
        next = last.revision.next();
        recorded.extend(events.iter().filter(|event| belongs_to_job(event, job)).filter_map(|event| {
            let action = OperatorAction::decode(&event.event_type, event.schema_version, &event.data).ok()?;
            (!matches!(action, OperatorAction::JobStarted(_))).then_some((event.position, action))
        }));
    }
}

fn belongs_to_job(event: &RecordedEvent, job: &JobRecord) -> bool {
    let metadata = serde_json::from_slice::<chat_domain::Metadata>(&event.metadata);
    metadata.is_ok_and(|metadata| metadata.causation_id == job.id.to_string())
}

impl Execution<'_> {
    /// Executes an action, or the rest of it if an earlier attempt did a part.
    pub(super) async fn run(&self, action: &JobAction) -> Result<ActionReport, ActionError> {
        match action {
            JobAction::Rebuild(request) => self.rebuild(request.options()?).await,
            JobAction::Promote(request) => self.switch_over(SwitchDirection::Promote, request.names()).await,
            JobAction::RollBack(request) => {
                self.switch_over(SwitchDirection::RollBack, request.names()).await
            }
            JobAction::Drop(request) => self.drop_generations(request).await,
            JobAction::RetryDeadLetters(_) | JobAction::DiscardDeadLetter(_) => {
                self.resolve_dead_letters(action).await
            }
            JobAction::AcknowledgeDiscards(request) => self.acknowledge(request).await,
            JobAction::MakeCheckpoint(request) => self.make_checkpoint(request).await,
            JobAction::VerifyLog(request) => self.verify(request).await,
        }
    }

    /// The switch-over that an earlier attempt recorded.
    fn recorded_switch_over(&self) -> Option<SwitchOverReport> {
        self.recorded.iter().rev().find_map(|(position, action)| match action {
            OperatorAction::ProjectionsPromoted(ProjectionsPromoted { generations, .. })
            | OperatorAction::ProjectionsRolledBack(ProjectionsRolledBack { generations, .. }) => {
                // The running system follows the log, so it takes over without this process.
                Some(SwitchOverReport {
                    to: generations.iter().map(|generation| (*generation).into()).collect(),
                    position: *position,
                    taken_over: true,
                    obstacle: None,
                })
            }
            _ => None,
        })
    }

    async fn rebuild(&self, options: RebuildOptions) -> Result<ActionReport, ActionError> {
        if let Some(promoted) = self.recorded_switch_over() {
            let rebuilt = RebuildReport {
                generations: promoted.to.clone(),
                positions: Vec::new(),
                comparisons: Vec::new(),
                promoted: Some(promoted),
            };
            let restarted =
                "the process that compared the generations stopped, so the comparison is not shown";
            return Ok(ActionReport::new(Status::Ok, &rebuilt)?.with(Diagnostic::note(restarted)));
        }
        let is_started =
            self.recorded.iter().any(|(_, action)| matches!(action, OperatorAction::RebuildStarted(_)));
        // The build of an earlier attempt of the same job is resumed.
        let options = RebuildOptions { from_scratch: options.from_scratch && !is_started, ..options };
        let build = async |progress: &watch::Sender<_>| {
            let reason = self.reason.to_owned();
            rebuild::rebuild(
                self.context.projections,
                self.operator,
                reason,
                &options,
                progress,
                &self.cancel,
            )
            .await
        };
        let rebuilt = self.progress.follow(build).await?;
        let result = ActionReport::new(Status::for_findings(rebuilt.has_findings()), &rebuilt)?;
        Ok(match &rebuilt.promoted {
            Some(promoted) => with_switch_over_warning(result, promoted),
            None if rebuilt.differs() => result.with(Diagnostic::warning(
                "not promoted: the new generations differ from the live ones. If the differences are intended, promote \
                 the new generations",
            )),
            None if rebuilt.has_findings() => result.with(Diagnostic::warning(
                "not promoted: a live generation can't be read, so the new one was not compared with it. To use the new \
                 generations nevertheless, promote them",
            )),
            None => result,
        })
    }

    async fn switch_over(
        &self,
        direction: SwitchDirection,
        names: Option<&[ProjectionName]>,
    ) -> Result<ActionReport, ActionError> {
        if let Some(recorded) = self.recorded_switch_over() {
            return ActionReport::new(Status::Ok, &recorded);
        }
        let switch = async |progress: &watch::Sender<_>| {
            let (projections, reason) = (self.context.projections, self.reason.to_owned());
            switch_over::switch_over(
                projections,
                self.operator,
                reason,
                direction,
                names,
                progress,
                &self.cancel,
            )
            .await
        };
        let switched = self.progress.follow(switch).await?;
        Ok(with_switch_over_warning(
            ActionReport::new(Status::for_findings(switched.has_findings()), &switched)?,
            &switched,
        ))
    }

    async fn drop_generations(&self, request: &DropRequest) -> Result<ActionReport, ActionError> {
        let DropRequest { projections, generation } = request;
        let recorded = self.recorded.iter().find_map(|(position, action)| match action {
            OperatorAction::ProjectionsDropped(ProjectionsDropped { generations, .. }) => {
                Some((position, generations))
            }
            _ => None,
        });
        if let Some((position, generations)) = recorded {
            remove_dropped(self.context.projections, generations).await?;
            return ActionReport::new(
                Status::Ok,
                &json!({ "generations": generations, "kept": [], "position": position }),
            );
        }
        let executed_by = Some((self.operator, self.reason.to_owned()));
        let names = projections.names();
        let dropped = drop_generations(self.context.projections, names, *generation, executed_by).await?;
        ActionReport::new(Status::Ok, &dropped)
    }

    async fn resolve_dead_letters(&self, action: &JobAction) -> Result<ActionReport, ActionError> {
        let steps = match self.context.resolutions(action).await {
            // An earlier attempt may have resolved all of them.
            Err(ActionError::NotPossible(_)) if !self.recorded.is_empty() => Vec::new(),
            steps => steps?,
        };
        let resolution = resolve(self.context.projections, self.operator, self.reason, steps, APPLY_TIMEOUT);
        let outcomes = self.unless_cancelled(async { Ok(resolution.await?) }).await?;
        let has_unapplied_action = outcomes.iter().any(|step| step.outcome.is_none());
        let has_blocked_stream = outcomes
            .iter()
            .any(|step| step.outcome.as_ref().is_some_and(|outcome| outcome.stopped.is_some()));
        let data = json!({ "executed": true, "steps": outcomes });
        let mut result =
            ActionReport::new(Status::for_findings(has_unapplied_action || has_blocked_stream), &data)?;
        if has_unapplied_action {
            result = result.with(Diagnostic::warning(
                "the action is recorded, but the projection has not applied it yet; the list of dead letters shows its state",
            ));
        }
        if !self.recorded.is_empty() {
            result = result.with(Diagnostic::note(
                "an earlier attempt of this job was interrupted; the dead letters that it resolved are not listed here",
            ));
        }
        Ok(result)
    }

    async fn acknowledge(&self, request: &AcknowledgeRequest) -> Result<ActionReport, ActionError> {
        let found = match self.context.discards(request).await {
            // An earlier attempt may have acknowledged all of them.
            Err(ActionError::NotPossible(_)) if !self.recorded.is_empty() => Vec::new(),
            found => found?,
        };
        let (projections, operator) = (self.context.projections, self.operator);
        let acknowledgement = acknowledge(projections, operator, self.reason, &found, APPLY_TIMEOUT);
        let are_applied = self.unless_cancelled(async { Ok(acknowledgement.await?) }).await?;
        let result = ActionReport::new(Status::Ok, &json!({ "executed": true, "letters": found }))?;
        if are_applied {
            return Ok(result);
        }
        let pending = "the acknowledgement is recorded; the projection has not applied it yet";
        Ok(result.with(Diagnostic::warning(pending)))
    }

    async fn make_checkpoint(&self, request: &CheckpointRequest) -> Result<ActionReport, ActionError> {
        let key = self.context.signing_key()?;
        let folder = tempfile::tempdir().map_err(ActionError::TemporaryFiles)?;
        let out = folder.path().join("checkpoint");
        let total = self.context.expected_events().await?;
        let mut on_progress = |events| self.progress.report_events(events, total);
        let (log, until) = (self.context.log(), request.point()?);
        let signed_by = (self.operator, self.reason);
        let signing = verify::make_checkpoint(log, until, key, &out, signed_by, &mut on_progress);
        let checkpoint = self.unless_cancelled(async { Ok(signing.await?) }).await?;
        let note = std::fs::read_to_string(&out).map_err(ActionError::TemporaryFiles)?;
        let result = ActionReport::new(Status::Ok, &json!({ "checkpoint": checkpoint, "note": note }))?;
        Ok(result.with(Diagnostic::note(
            "without the hashes of single events, which `chat-api audit checkpoint` stores beside a checkpoint, a \
             verification finds that the log was altered, but not where",
        )))
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<ActionReport, ActionError> {
        let VerifyRequest { checkpoint, public_key } = request;
        let Some(note) = checkpoint else {
            let total = self.context.expected_events().await?;
            let mut on_progress = |events| self.progress.report_events(events, total);
            let check = log_integrity::check(self.context.log(), None, &mut on_progress);
            let checked = self.unless_cancelled(async { Ok(check.await?) }).await?;
            let result = ActionReport::new(Status::for_findings(!checked.faults.is_empty()), &checked)?;
            return Ok(result.with(Diagnostic::note(
                "without a checkpoint, only the log's consistency was checked, and not whether it was altered",
            )));
        };
        let key = public_key.as_deref().map(VerifyingKey::parse).transpose()?;
        let total = Checkpoint::parse_note(note)?.events;
        let folder = tempfile::tempdir().map_err(ActionError::TemporaryFiles)?;
        let path = folder.path().join("checkpoint");
        write(&path, note).map_err(ActionError::TemporaryFiles)?;
        let mut on_progress = |events| self.progress.report_events(events, Some(total));
        let verification = verify::verify(self.context.log(), &path, key.as_ref(), &mut on_progress);
        let verdict = self.unless_cancelled(async { Ok(verification.await?) }).await?;
        let result = ActionReport::new(Status::for_findings(!verdict.is_valid()), &verdict)?;
        if key.is_some() {
            return Ok(result);
        }
        let unchecked = "the signature was not checked: `public_key` is the key to check it with";
        Ok(result.with(Diagnostic::warning(unchecked)))
    }

    /// Waits for the end of `work`, or drops it when the job is interrupted.
    async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, ActionError>>,
    ) -> Result<T, ActionError> {
        let mut cancel = self.cancel.clone();
        tokio::select! {
            result = work => result,
            // An error means that the sender was dropped, so the process is ending.
            _ = cancel.wait_for(|is_cancelled| *is_cancelled) => Err(ActionError::Interrupted),
        }
    }
}

/// Adds a warning if the running system has not taken over the generations.
fn with_switch_over_warning(result: ActionReport, switched: &SwitchOverReport) -> ActionReport {
    if switched.taken_over {
        return result;
    }
    let mut message =
        "the running system has not taken over the generations yet; the list of projections shows them"
            .to_owned();
    if let Some(obstacle) = &switched.obstacle {
        message = format!("the running system can't take over the generations: {obstacle}");
    }
    result.with(Diagnostic::warning(message))
}

/// Removes the stored data that is left of generations that an earlier attempt has dropped.
async fn remove_dropped(
    projections: &Projections,
    dropped: &[ProjectionGeneration],
) -> Result<(), ActionError> {
    for id in dropped {
        // A dry run. It fails with `NotFound` if the generation became live before the drop was recorded. The
        // generation is then kept.
        match drop_generations(projections, &[id.projection], Some(id.generation), None).await {
            Ok(_) => projections.remove_stored(*id).await?,
            Err(ProjectionsError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::File::create_new(path)?.write_all(text.as_bytes())
}
