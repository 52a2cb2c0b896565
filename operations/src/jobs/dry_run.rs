//! Dry runs of actions, and checks before their execution.

use chat_ports::event_store::EventStore;
use serde_json::json;

use super::action::{AcknowledgeRequest, DropRequest, JobAction, SwitchOverRequest, VerifyRequest};
use super::action_outcome::{ActionError, ActionReport};
use crate::counted::counted;
use crate::dead_letters::dry_run::{MAX_STREAMS, dry_run};
use crate::dead_letters::resolve::{
    DeadLetterSelection, Resolution, blocked_streams, plan_discard, unacknowledged_discards,
};
use crate::dead_letters::{DeadLetterView, missing_dead_letter, unknown_stream};
use crate::envelope::{Diagnostic, Status};
use crate::operator_actions::closed_log_warning;
use crate::projections::switch_over::{self, SwitchDirection};
use crate::projections::{Projections, drop_generations, rebuild};
use crate::proof::checkpoint::Checkpoint;
use crate::proof::key::{SigningKey, VerifyingKey};

/// The services that actions use.
#[derive(Clone, Copy)]
pub(super) struct ActionContext<'a> {
    pub(super) projections: &'a Projections,
    pub(super) signing_key: Option<&'a SigningKey>,
}

impl ActionContext<'_> {
    pub(super) fn log(&self) -> &dyn EventStore {
        &*self.projections.log
    }

    pub(super) fn signing_key(&self) -> Result<&SigningKey, ActionError> {
        self.signing_key.ok_or_else(|| {
            ActionError::NotPossible("this server has no signing key: start it with --audit-key".to_owned())
        })
    }

    /// Returns the number of events up to the head; `None` if the log's positions are not contiguous.
    pub(super) async fn expected_events(&self) -> Result<Option<u64>, ActionError> {
        let head = self.log().head().await?;
        Ok(self.log().has_contiguous_positions().then_some(head.get()))
    }

    /// Plans an action without doing it.
    pub(super) async fn dry_run(&self, action: &JobAction) -> Result<ActionReport, ActionError> {
        action.validate()?;
        let report = match action {
            JobAction::Rebuild(request) => {
                ActionReport::new(Status::Ok, &rebuild::plan(self.projections, &request.options()?).await?)?
            }
            JobAction::Promote(request) => self.plan_switch_over(SwitchDirection::Promote, request).await?,
            JobAction::RollBack(request) => self.plan_switch_over(SwitchDirection::RollBack, request).await?,
            JobAction::Drop(DropRequest { projections, generation }) => {
                let names = projections.names();
                // Without an operator, nothing is dropped.
                let dropped = drop_generations(self.projections, names, *generation, None).await?;
                ActionReport::new(Status::for_findings(dropped.has_findings()), &dropped)?
                    .with_all(dropped.diagnostics())
            }
            JobAction::RetryDeadLetters(_) | JobAction::DiscardDeadLetter(_) => {
                let steps = self.resolutions(action).await?;
                let dry_runs = dry_run(self.projections, &steps).await?;
                let would_stop = dry_runs.iter().any(|outcome| outcome.would_stop.is_some());
                let data = json!({ "executed": false, "steps": dry_runs });
                let tried = ActionReport::new(Status::for_findings(would_stop), &data)?;
                if dry_runs.len() < steps.len() {
                    let more = counted((steps.len() - dry_runs.len()) as u64, "stream");
                    tried.with(Diagnostic::note(format!(
                        "not tried: {more}; a dry run tries at most {MAX_STREAMS} for each projection"
                    )))
                } else {
                    tried
                }
            }
            JobAction::AcknowledgeDiscards(request) => {
                let found = self.discards(request).await?;
                ActionReport::new(Status::Ok, &json!({ "executed": false, "letters": found }))?
            }
            JobAction::MakeCheckpoint(request) => {
                let key = self.signing_key()?;
                let until = match request.point()? {
                    Some(point) => point.resolve(self.log()).await?,
                    None => self.log().head().await?,
                };
                ActionReport::new(Status::Ok, &json!({ "key": key_name(key), "until": until }))?
            }
            JobAction::VerifyLog(VerifyRequest { checkpoint, public_key }) => {
                let checkpoint = checkpoint.as_deref().map(Checkpoint::parse_note).transpose()?;
                public_key.as_deref().map(VerifyingKey::parse).transpose()?;
                ActionReport::new(
                    Status::Ok,
                    &json!({ "checkpoint": checkpoint, "until": self.log().head().await? }),
                )?
            }
        };
        let report = match closed_log_warning(self.log()) {
            Some(refusal) => ActionReport { status: Status::Finding, ..report }.with(refusal),
            None => report,
        };
        Ok(report.with(Diagnostic::note("nothing was changed")))
    }

    async fn plan_switch_over(
        &self,
        direction: SwitchDirection,
        request: &SwitchOverRequest,
    ) -> Result<ActionReport, ActionError> {
        let names = request.names();
        let plan = switch_over::plan(self.projections, direction, names).await?;
        Ok(ActionReport::new(Status::Ok, &plan)?.with_all(plan.diagnostics()))
    }

    /// Returns the action with the projections that its request left out, for the record.
    pub(super) async fn with_projections(&self, action: &JobAction) -> Result<JobAction, ActionError> {
        let (direction, request): (_, fn(SwitchOverRequest) -> JobAction) = match action {
            JobAction::Promote(_) => (SwitchDirection::Promote, JobAction::Promote),
            JobAction::RollBack(_) => (SwitchDirection::RollBack, JobAction::RollBack),
            _ => return Ok(action.clone()),
        };
        if !action.takes_default_projections() {
            return Ok(action.clone());
        }
        let generations = self.projections.generations().await?;
        let names = switch_over::default_projections(&generations, direction)?;
        Ok(request(SwitchOverRequest::for_projections(names)))
    }

    /// Checks that an action is possible, as far as short reads can show it.
    pub(super) async fn check(&self, action: &JobAction) -> Result<(), ActionError> {
        action.validate()?;
        match action {
            JobAction::Promote(_) | JobAction::RollBack(_) | JobAction::Drop(_) => {
                self.dry_run(action).await.map(drop)
            }
            JobAction::DiscardDeadLetter(_) | JobAction::RetryDeadLetters(_) => {
                self.resolutions(action).await.map(drop)
            }
            JobAction::AcknowledgeDiscards(request) => self.discards(request).await.map(drop),
            JobAction::MakeCheckpoint(_) => self.signing_key().map(drop),
            JobAction::VerifyLog(VerifyRequest { checkpoint, public_key }) => {
                checkpoint.as_deref().map(Checkpoint::parse_note).transpose()?;
                public_key.as_deref().map(VerifyingKey::parse).transpose()?;
                Ok(())
            }
            JobAction::Rebuild(_) => Ok(()),
        }
    }

    /// Finds the discarded events to acknowledge.
    pub(super) async fn discards(
        &self,
        request: &AcknowledgeRequest,
    ) -> Result<Vec<DeadLetterView>, ActionError> {
        let AcknowledgeRequest { projections, position, .. } = request;
        let found = unacknowledged_discards(self.projections, projections.names(), *position).await?;
        if found.is_empty() && position.is_some() {
            return Err(ActionError::NotPossible(
                "no discarded event at this position waits to be acknowledged".to_owned(),
            ));
        }
        Ok(found)
    }

    /// Plans the resolution of dead letters; empty for an action that resolves none.
    pub(super) async fn resolutions(&self, action: &JobAction) -> Result<Vec<Resolution>, ActionError> {
        match action {
            JobAction::RetryDeadLetters(request) => {
                let selection = request.selection()?;
                let names = request.projections.names();
                let streams = blocked_streams(self.projections, names, &selection).await?;
                if streams.is_empty() && !request.all {
                    let unknown = match &selection {
                        DeadLetterSelection::Stream(stream) => unknown_stream(self.log(), stream).await?,
                        DeadLetterSelection::Event(position) => {
                            Some(missing_dead_letter(self.projections, names, *position).await?)
                        }
                        DeadLetterSelection::All => None,
                    };
                    return Err(ActionError::NotPossible(
                        unknown.unwrap_or_else(|| "the selection has no dead letters".to_owned()),
                    ));
                }
                let retry = |blocked_stream| Resolution { blocked_stream, discards_first: false };
                Ok(streams.into_iter().map(retry).collect())
            }
            JobAction::DiscardDeadLetter(request) => {
                let names = request.projections.names();
                Ok(plan_discard(self.projections, names, request.position).await?)
            }
            _ => Ok(Vec::new()),
        }
    }
}

fn key_name(key: &SigningKey) -> String {
    format!("{}+{}", key.name(), key.verifying_key().id(key.name()))
}
