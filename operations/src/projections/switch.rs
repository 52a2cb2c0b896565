//! Promoting and rolling back: one act for all projections that move together.

use chat_domain::Position;
use chat_domain::operation::{Copy, Operation, ProjectionName, ProjectionsPromoted, ProjectionsRolledBack};
use chat_ports::event_store::Appended;
use chat_projector::generations::Generations;
use chat_projector::{Policy, State};
use serde::Serialize;
use tokio::sync::watch;

use super::fold::{Folds, Phase, Progress};
use super::handover::{hand_over, is_kept};
use super::{Named, Projections, ProjectionsError};
use crate::acts::{self, Operator};

/// Which way readers move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// To generations that were built.
    Promote,
    /// To the generations before.
    RollBack,
}

/// What a switch would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwitchPlan {
    /// What readers see now.
    pub from: Vec<Named>,
    /// What they would see.
    pub to: Vec<Named>,
    /// Up to where that is folded.
    pub positions: Vec<Option<Position>>,
    /// The end of the log.
    pub head: Position,
}

/// What a switch came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// What readers see now.
    pub to: Vec<Named>,
    /// Where the act is in the log.
    pub position: Position,
    /// Whether the running system keeps it from here on, or none was running.
    pub taken_over: bool,
}

/// Says what a switch would do.
pub async fn plan(
    projections: &Projections,
    switch: Switch,
    names: &[ProjectionName],
) -> Result<SwitchPlan, ProjectionsError> {
    let generations = projections.generations().await?;
    let to = targets(&generations, switch, names)?;
    let live = |copy: &Copy| Copy { generation: generations.of(copy.projection).live, ..*copy }.into();
    let mut positions = Vec::new();
    for copy in &to {
        positions.push(projections.position(*copy).await.ok());
    }
    Ok(SwitchPlan {
        from: to.iter().map(live).collect(),
        to: to.iter().map(|copy| (*copy).into()).collect(),
        positions,
        head: projections.log.head().await?,
    })
}

/// Brings the generations up to date, records the act, and goes on with them until the running system does.
pub async fn switch(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    switch: Switch,
    names: &[ProjectionName],
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<Switched, ProjectionsError> {
    let generations = projections.generations().await?;
    let copies = targets(&generations, switch, names)?;
    let folds = Folds::start(projections, &copies, None, Policy::Leave, progress, cancel).await;
    let switched = record(projections, operator, reason, switch, &generations, &folds).await;
    match switched {
        Ok((appended, was_kept)) => {
            let taken_over = hand_over(projections, folds, &was_kept).await;
            let to = copies.into_iter().map(Named::from).collect();
            Ok(Switched { to, position: appended.position, taken_over })
        }
        Err(error) => {
            folds.end().await;
            Err(error)
        }
    }
}

/// Waits until the generations that `folds` work on are not behind what readers see, and records the act. Answers with
/// where it is, and of which generations the running system keeps the live one here.
pub(super) async fn record(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    switch: Switch,
    generations: &Generations,
    folds: &Folds<'_>,
) -> Result<(Appended, Vec<(Copy, bool)>), ProjectionsError> {
    let live = |copy: Copy| Copy { generation: generations.of(copy.projection).live, ..copy };
    let head = projections.log.head().await?;
    folds
        .wait(Phase::Folding, async |fold, status| {
            let at = match status.state {
                // Another process folds: what it has stored tells.
                State::StandingBy => projections.position(fold.copy).await?,
                State::Live => status.position,
                _ => return Ok(false),
            };
            // What readers see may be gone or broken: that is no reason to keep them on it.
            let seen = projections.position(live(fold.copy)).await.unwrap_or_default();
            Ok(at >= seen && projections.nothing_between(at, head).await?)
        })
        .await?;
    let mut was_kept = Vec::new();
    for fold in &folds.all {
        was_kept.push((fold.copy, is_kept(projections, live(fold.copy)).await));
    }
    folds.tell(Phase::Recording);
    let copies = folds.all.iter().map(|fold| fold.copy).collect();
    let operation: Operation = match switch {
        Switch::Promote => ProjectionsPromoted { copies, reason }.into(),
        Switch::RollBack => ProjectionsRolledBack { copies, reason }.into(),
    };
    Ok((acts::record(&*projections.log, operator, &operation).await?, was_kept))
}

fn targets(
    generations: &Generations,
    switch: Switch,
    names: &[ProjectionName],
) -> Result<Vec<Copy>, ProjectionsError> {
    let target = |name: &ProjectionName| {
        let line = generations.of(*name);
        let found = match switch {
            Switch::Promote => line.building.or_else(|| line.left_over.last().copied()),
            Switch::RollBack => line.previous(),
        };
        let nothing = || {
            let name = name.as_str();
            ProjectionsError::Nothing(match switch {
                Switch::Promote => {
                    format!("there is no generation of {name} to promote; `rebuild` makes one")
                }
                Switch::RollBack => format!("there is no generation of {name} to go back to"),
            })
        };
        found.map(|generation| Copy { projection: *name, generation }).ok_or_else(nothing)
    };
    names.iter().map(target).collect()
}
