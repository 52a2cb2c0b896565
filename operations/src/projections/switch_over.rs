//! Switch-overs: promotion and rollback, one operator action for all projections that move together.

use chat_domain::Position;
use chat_domain::operator_action::{OperatorAction, ProjectionsPromoted, ProjectionsRolledBack};
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::event_store::AppendReceipt;
use chat_projector::generations::{GenerationHistory, Generations};
use chat_projector::{ProjectorState, RecoveryPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::context::{GenerationName, Projections};
use super::error::ProjectionsError;
use super::handover::{Handover, hand_over, has_active_projector};
use super::local_projectors::{LocalProjectors, Phase, Progress};
use crate::envelope::Diagnostic;
use crate::operator_actions::{self, Operator};

/// The direction of a switch-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchDirection {
    /// To generations that are being built, or that are left over.
    Promote,
    /// To the previous generations.
    RollBack,
}

/// The plan of a switch-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchOverPlan {
    /// The generations that are live now.
    pub from: Vec<GenerationName>,
    /// The generations that would be live.
    pub to: Vec<GenerationName>,
    /// The position of each generation in `to`; `None` if it can't be read.
    pub positions: Vec<Option<Position>>,
    /// The location of each generation in `to`.
    #[serde(rename = "places")]
    pub locations: Vec<String>,
    /// The last position of the log.
    pub head: Position,
}

impl SwitchOverPlan {
    /// Returns a warning for each target generation that can't be read, because the switch-over would have to build it.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let generations = self.to.iter().zip(&self.positions).zip(&self.locations);
        let missing = generations.filter(|((_, position), _)| position.is_none());
        let warning = |((generation, _), location): ((&GenerationName, _), &String)| {
            Diagnostic::warning(format!(
                "there is nothing of {generation} at {location}: the switch-over would first build it from the whole log"
            ))
        };
        missing.map(warning).collect()
    }
}

/// The result of a switch-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchOverReport {
    /// The generations that are live now.
    pub to: Vec<GenerationName>,
    /// The position of the operator action.
    pub position: Position,
    /// Whether the running system has taken over the generations. Also `true` if no system is running.
    pub taken_over: bool,
    /// Why the running system could not take them over, if its projectors report a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

impl SwitchOverReport {
    pub(super) fn new(to: Vec<GenerationName>, position: Position, handover: Handover) -> Self {
        let (taken_over, obstacle) = match handover {
            Handover::Complete => (true, None),
            Handover::Failed { obstacle } => (false, obstacle),
        };
        Self { to, position, taken_over, obstacle }
    }

    /// Whether the running system has not taken over the generations.
    pub fn has_findings(&self) -> bool {
        !self.taken_over
    }
}

/// Plans a switch-over without doing it. For `names`, see [`switch_over`].
pub async fn plan(
    projections: &Projections,
    direction: SwitchDirection,
    names: Option<&[ProjectionName]>,
) -> Result<SwitchOverPlan, ProjectionsError> {
    let generations = projections.generations().await?;
    let to = target_generations(&generations, direction, names)?;
    projections.ensure_within_log(&to).await?;
    let live = |generation_id: &ProjectionGeneration| {
        ProjectionGeneration {
            generation: generations.for_projection(generation_id.projection).live,
            ..*generation_id
        }
        .into()
    };
    let mut positions = Vec::new();
    for generation_id in &to {
        positions.push(projections.position(*generation_id).await.ok());
    }
    Ok(SwitchOverPlan {
        from: to.iter().map(live).collect(),
        to: to.iter().map(|generation_id| (*generation_id).into()).collect(),
        positions,
        locations: to.iter().map(|generation_id| projections.store(*generation_id).to_string()).collect(),
        head: projections.log.head().await?,
    })
}

/// Advances the target generations to the head, records the action, and continues to fold new events into them until
/// the running system has taken them over.
///
/// Without `names`, a promotion takes the projections that are being built, or else those that the last rollback
/// switched. A rollback takes those that the last promotion switched. Both return exactly to the generations that were
/// live before that switch-over, and fail if one of them was dropped. Both also fail if the log takes no appends.
pub async fn switch_over(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    direction: SwitchDirection,
    names: Option<&[ProjectionName]>,
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<SwitchOverReport, ProjectionsError> {
    projections.ensure_log_takes_appends()?;
    let generations = projections.generations().await?;
    let generation_ids = target_generations(&generations, direction, names)?;
    projections.ensure_within_log(&generation_ids).await?;
    let projectors =
        LocalProjectors::start(projections, &generation_ids, None, RecoveryPolicy::Stop, progress, cancel)
            .await;
    let recorded =
        record_switch_over(projections, operator, reason, direction, &generations, &projectors).await;
    match recorded {
        Ok((receipt, had_active_projector)) => {
            let handover = hand_over(projections, projectors, &had_active_projector).await;
            let to = generation_ids.into_iter().map(GenerationName::from).collect();
            Ok(SwitchOverReport::new(to, receipt.position, handover))
        }
        Err(error) => {
            projectors.stop().await;
            Err(error)
        }
    }
}

/// Waits until the generations of `projectors` have reached the head of the log and are not behind the live ones. Then
/// records the action, and returns its receipt. Also returns, for each generation, whether the running system has an
/// active projector for the live generation of the same projection.
///
/// Fails if one of the generations is live already.
pub(super) async fn record_switch_over(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    direction: SwitchDirection,
    generations: &Generations,
    projectors: &LocalProjectors<'_>,
) -> Result<(AppendReceipt, Vec<(ProjectionGeneration, bool)>), ProjectionsError> {
    let live = |generation_id: ProjectionGeneration| ProjectionGeneration {
        generation: generations.for_projection(generation_id.projection).live,
        ..generation_id
    };
    let head = projections.log.head().await?;
    projectors
        .wait_until(Phase::CatchingUp, async |projector, status| {
            let position = match status.state {
                // Another process builds the generation, so its stored position is used.
                ProjectorState::StandingBy => projections.position(projector.generation_id).await?,
                ProjectorState::Live => status.position,
                _ => return Ok(false),
            };
            // A live generation that is missing or broken must not prevent the switch-over.
            let live_position = projections.position(live(projector.generation_id)).await.unwrap_or_default();
            Ok(position >= live_position && projections.has_no_events_between(position, head).await?)
        })
        .await?;
    let mut had_active_projector = Vec::new();
    for projector in &projectors.projectors {
        had_active_projector.push((
            projector.generation_id,
            has_active_projector(projections, live(projector.generation_id)).await,
        ));
    }
    projectors.report_progress(Phase::Recording);
    let generation_ids: Vec<_> =
        projectors.projectors.iter().map(|projector| projector.generation_id).collect();
    let ensure_not_live = async || projections.ensure_not_live(&generation_ids).await;
    let action: OperatorAction = match direction {
        SwitchDirection::Promote => {
            ProjectionsPromoted { generations: generation_ids.clone(), reason }.into()
        }
        SwitchDirection::RollBack => {
            ProjectionsRolledBack { generations: generation_ids.clone(), reason }.into()
        }
    };
    let log = &*projections.log;
    let receipt = operator_actions::record_action_if(log, operator, &action, ensure_not_live).await?;
    Ok((receipt, had_active_projector))
}

/// Returns the generation of a projection that a switch-over makes live.
fn target_generation(history: &GenerationHistory, direction: SwitchDirection) -> Option<Generation> {
    match direction {
        SwitchDirection::Promote => history.next_promoted(),
        SwitchDirection::RollBack => history.previous(),
    }
}

/// Returns the projections of which a generation is being built.
pub(super) fn projections_being_built(generations: &Generations) -> Vec<ProjectionName> {
    let is_built = |name: &ProjectionName| generations.for_projection(*name).building.is_some();
    ProjectionName::ALL.into_iter().filter(is_built).collect()
}

/// Returns the projections of a switch-over without names. Fails if the last switch-over does not say which are meant, or
/// can't be undone.
pub fn default_projections(
    generations: &Generations,
    direction: SwitchDirection,
) -> Result<Vec<ProjectionName>, ProjectionsError> {
    let built = projections_being_built(generations);
    if direction == SwitchDirection::Promote && !built.is_empty() {
        return Ok(built);
    }
    let (switched, can_undo): (_, fn(&GenerationHistory) -> bool) = match direction {
        SwitchDirection::Promote => (generations.last_rolled_back(), GenerationHistory::can_undo_rollback),
        SwitchDirection::RollBack => (generations.last_promoted(), GenerationHistory::can_undo_promotion),
    };
    let dropped = switched.iter().find(|name| !can_undo(generations.for_projection(**name)));
    if dropped.is_none() && !switched.is_empty() {
        return Ok(switched.to_vec());
    }
    let candidates: Vec<_> = ProjectionName::ALL
        .into_iter()
        .filter_map(|name| {
            let generation = target_generation(generations.for_projection(name), direction)?;
            Some(format!("{} {}", name.as_str(), generation.0))
        })
        .collect();
    if candidates.is_empty() {
        return Ok(ProjectionName::ALL.to_vec());
    }
    let reason = match (direction, dropped) {
        (SwitchDirection::Promote, None) => {
            "no generation is being built, and none was rolled back last".to_owned()
        }
        (SwitchDirection::RollBack, None) => "what was promoted last is rolled back already".to_owned(),
        (_, Some(name)) => {
            format!("the generation of {} that was live before was dropped", name.as_str())
        }
    };
    Err(ProjectionsError::NotFound(format!(
        "{reason}; name the projection that is meant: {} would be live",
        candidates.join(" or ")
    )))
}

fn target_generations(
    generations: &Generations,
    direction: SwitchDirection,
    names: Option<&[ProjectionName]>,
) -> Result<Vec<ProjectionGeneration>, ProjectionsError> {
    let names = match names {
        Some(names) => names.to_vec(),
        None => default_projections(generations, direction)?,
    };
    let target = |name: &ProjectionName| {
        let projection = generations.for_projection(*name);
        let generation = target_generation(projection, direction);
        let not_found = || {
            let name = name.as_str();
            ProjectionsError::NotFound(match direction {
                SwitchDirection::Promote => {
                    format!("there is no generation of {name} to promote; `rebuild` makes one")
                }
                // `promote` would take the generation that is being built.
                SwitchDirection::RollBack if projection.building.is_some() => {
                    format!("there is no previous generation of {name} to roll back to")
                }
                SwitchDirection::RollBack => match projection.next_promoted() {
                    Some(later) => format!(
                        "there is no previous generation of {name} to roll back to; `promote` makes generation {} live \
                         again",
                        later.0
                    ),
                    None => format!("there is no previous generation of {name} to roll back to"),
                },
            })
        };
        generation
            .map(|generation| ProjectionGeneration { projection: *name, generation })
            .ok_or_else(not_found)
    };
    names.iter().map(target).collect()
}
