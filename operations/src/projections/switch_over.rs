//! Promoting and rolling back: one act for all projections that move together.

use chat_domain::Position;
use chat_domain::operator_action::{
    OperatorAction, ProjectionGeneration, ProjectionName, ProjectionsPromoted, ProjectionsRolledBack,
};
use chat_ports::event_store::AppendReceipt;
use chat_projector::generations::Generations;
use chat_projector::{ProjectorState, RecoveryPolicy};
use serde::Serialize;
use tokio::sync::watch;

use super::handover::{hand_over, has_active_projector};
use super::local_projectors::{LocalProjectors, Phase, Progress};
use super::{GenerationName, Projections, ProjectionsError};
use crate::operator_actions::{self, Operator};

/// Which way readers move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchDirection {
    /// To generations that were built.
    Promote,
    /// To the generations before.
    RollBack,
}

/// What a switch would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwitchOverPlan {
    /// What readers see now.
    pub from: Vec<GenerationName>,
    /// What they would see.
    pub to: Vec<GenerationName>,
    /// Up to where that is folded.
    pub positions: Vec<Option<Position>>,
    /// The end of the log.
    pub head: Position,
}

/// What a switch came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwitchOverReport {
    /// What readers see now.
    pub to: Vec<GenerationName>,
    /// Where the act is in the log.
    pub position: Position,
    /// Whether the running system keeps it from here on, or none was running.
    pub taken_over: bool,
}

/// Says what a switch would do.
pub async fn plan(
    projections: &Projections,
    direction: SwitchDirection,
    names: &[ProjectionName],
) -> Result<SwitchOverPlan, ProjectionsError> {
    let generations = projections.generations().await?;
    let to = target_generations(&generations, direction, names)?;
    let live = |copy: &ProjectionGeneration| {
        ProjectionGeneration { generation: generations.for_projection(copy.projection).live, ..*copy }.into()
    };
    let mut positions = Vec::new();
    for copy in &to {
        positions.push(projections.position(*copy).await.ok());
    }
    Ok(SwitchOverPlan {
        from: to.iter().map(live).collect(),
        to: to.iter().map(|copy| (*copy).into()).collect(),
        positions,
        head: projections.log.head().await?,
    })
}

/// Brings the generations up to date, records the act, and goes on with them until the running system does.
pub async fn switch_over(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    direction: SwitchDirection,
    names: &[ProjectionName],
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<SwitchOverReport, ProjectionsError> {
    let generations = projections.generations().await?;
    let copies = target_generations(&generations, direction, names)?;
    let folds =
        LocalProjectors::start(projections, &copies, None, RecoveryPolicy::Stop, progress, cancel).await;
    let switched = record_switch_over(projections, operator, reason, direction, &generations, &folds).await;
    match switched {
        Ok((appended, was_kept)) => {
            let taken_over = hand_over(projections, folds, &was_kept).await;
            let to = copies.into_iter().map(GenerationName::from).collect();
            Ok(SwitchOverReport { to, position: appended.position, taken_over })
        }
        Err(error) => {
            folds.stop().await;
            Err(error)
        }
    }
}

/// Waits until the generations that `folds` work on are not behind what readers see, and records the act. Answers with
/// where it is, and of which generations the running system keeps the live one here.
pub(super) async fn record_switch_over(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    direction: SwitchDirection,
    generations: &Generations,
    projectors: &LocalProjectors<'_>,
) -> Result<(AppendReceipt, Vec<(ProjectionGeneration, bool)>), ProjectionsError> {
    let live = |copy: ProjectionGeneration| ProjectionGeneration {
        generation: generations.for_projection(copy.projection).live,
        ..copy
    };
    let head = projections.log.head().await?;
    projectors
        .wait_until(Phase::Folding, async |fold, status| {
            let at = match status.state {
                // Another process folds: what it has stored tells.
                ProjectorState::StandingBy => projections.position(fold.generation_id).await?,
                ProjectorState::Live => status.position,
                _ => return Ok(false),
            };
            // What readers see may be gone or broken: that is no reason to keep them on it.
            let seen = projections.position(live(fold.generation_id)).await.unwrap_or_default();
            Ok(at >= seen && projections.has_no_events_between(at, head).await?)
        })
        .await?;
    let mut was_kept = Vec::new();
    for fold in &projectors.projectors {
        was_kept
            .push((fold.generation_id, has_active_projector(projections, live(fold.generation_id)).await));
    }
    projectors.report_progress(Phase::Recording);
    let copies = projectors.projectors.iter().map(|fold| fold.generation_id).collect();
    let operation: OperatorAction = match direction {
        SwitchDirection::Promote => ProjectionsPromoted { copies, reason }.into(),
        SwitchDirection::RollBack => ProjectionsRolledBack { copies, reason }.into(),
    };
    Ok((operator_actions::record_action(&*projections.log, operator, &operation).await?, was_kept))
}

fn target_generations(
    generations: &Generations,
    direction: SwitchDirection,
    names: &[ProjectionName],
) -> Result<Vec<ProjectionGeneration>, ProjectionsError> {
    let target = |name: &ProjectionName| {
        let line = generations.for_projection(*name);
        let found = match direction {
            SwitchDirection::Promote => line.building.or_else(|| line.left_over.last().copied()),
            SwitchDirection::RollBack => line.previous(),
        };
        let nothing = || {
            let name = name.as_str();
            ProjectionsError::NotFound(match direction {
                SwitchDirection::Promote => {
                    format!("there is no generation of {name} to promote; `rebuild` makes one")
                }
                SwitchDirection::RollBack => format!("there is no generation of {name} to go back to"),
            })
        };
        found.map(|generation| ProjectionGeneration { projection: *name, generation }).ok_or_else(nothing)
    };
    names.iter().map(target).collect()
}
