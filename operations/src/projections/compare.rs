//! Two generations at one position of the log: whether they hold the same, and where not.

use chat_domain::Position;
use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_projector::{ProjectorState, RecoveryPolicy};
use serde::Serialize;
use tokio::sync::watch;

use super::explain::{ExplainedDifference, LiveReader, explain};
use super::handover::has_active_projector;
use super::local_projectors::{LocalProjector, LocalProjectors, Phase, Progress};
use super::{Projections, ProjectionsError, projection_error};

/// Differences that are looked into; of the others it is told how many there are.
pub const MAX_EXPLAINED: usize = 20;

/// How a generation compares with the live one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The projection.
    pub name: ProjectionName,
    /// The generation that readers see.
    pub live: Generation,
    /// The other one.
    pub other: Generation,
    /// Where both were compared.
    pub position: Position,
    /// Why the live one can't be read, where it can't: then nothing was compared.
    pub unreadable: Option<String>,
    /// The digest of the live one there.
    pub live_digest: Option<String>,
    /// The digest of the other one there.
    pub other_digest: Option<String>,
    /// Rows or documents that differ.
    pub differing: usize,
    /// The first of them, looked into.
    pub shown: Vec<ExplainedDifference>,
}

impl Comparison {
    /// Whether somebody should have a look: rows differ, or nothing could be compared.
    pub fn has_findings(&self) -> bool {
        self.differing > 0 || self.unreadable.is_some()
    }
}

/// Compares the generations that are built, or were live before, with the live ones.
pub async fn diff(
    projections: &Projections,
    names: &[ProjectionName],
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<Vec<Comparison>, ProjectionsError> {
    let generations = projections.generations().await?;
    let mut copies = Vec::new();
    for name in names {
        let line = generations.for_projection(*name);
        let other = line.building.or(line.previous()).or_else(|| line.left_over.last().copied());
        copies.extend(other.map(|generation| ProjectionGeneration { projection: *name, generation }));
    }
    if copies.is_empty() {
        return Err(ProjectionsError::NotFound("there is no other generation to compare with".to_owned()));
    }
    let folds =
        LocalProjectors::start(projections, &copies, None, RecoveryPolicy::Stop, progress, cancel).await;
    let compared = compare_all(projections, &folds).await;
    folds.stop().await;
    compared
}

/// Compares each generation that is being folded with the live one, one after the other.
pub(super) async fn compare_all(
    projections: &Projections,
    folds: &LocalProjectors<'_>,
) -> Result<Vec<Comparison>, ProjectionsError> {
    folds
        .wait_until(Phase::Folding, async |fold, status| match status.state {
            ProjectorState::StandingBy => Err(in_use_error(fold.generation_id)),
            state => Ok(state == ProjectorState::Live),
        })
        .await?;
    let generations = projections.generations().await?;
    let mut compared = Vec::new();
    for fold in &folds.projectors {
        let live = ProjectionGeneration {
            generation: generations.for_projection(fold.generation_id.projection).live,
            ..fold.generation_id
        };
        compared.push(compare(projections, folds, fold, live).await?);
        fold.log.remove_limit();
    }
    Ok(compared)
}

fn in_use_error(copy: ProjectionGeneration) -> ProjectionsError {
    ProjectionsError::Busy(format!(
        "another process works on generation {} of {}; after a switch it goes on for as long as --keep-previous says",
        copy.generation.0,
        copy.projection.as_str()
    ))
}

/// Brings both to one position, and compares them there.
///
/// The live one can't be stopped. So the other one is held, the live one is read in one snapshot when it is not behind
/// that, and the other one is let go up to exactly the snapshot's position.
async fn compare(
    projections: &Projections,
    folds: &LocalProjectors<'_>,
    fold: &LocalProjector,
    live: ProjectionGeneration,
) -> Result<Comparison, ProjectionsError> {
    let place = projections.location(live);
    let held = fold.log.pause();
    wait_until_reached(projections, folds, fold, held).await?;
    if let Err(error) = place.position().await {
        return Ok(Comparison {
            name: live.projection,
            live: live.generation,
            other: fold.generation_id.generation,
            position: held,
            unreadable: Some(error.to_string()),
            live_digest: None,
            other_digest: None,
            differing: 0,
            shown: Vec::new(),
        });
    }
    if projections.position(live).await? < held && !has_active_projector(projections, live).await {
        catch_up(projections, folds, live, held).await?;
    }
    while !projections.has_no_events_between(projections.position(live).await?, held).await? {
        folds.report_progress(Phase::Comparing);
        folds.sleep_unless_cancelled().await?;
    }
    folds.report_progress(Phase::Comparing);
    let (position, ours) = place.contents().await.map_err(|error| projection_error(live, &place, error))?;
    let position = position.max(held);
    fold.log.set_limit(position);
    wait_until_reached(projections, folds, fold, position).await?;
    let other = projections.location(fold.generation_id);
    let (_, theirs) =
        other.contents().await.map_err(|error| projection_error(fold.generation_id, &other, error))?;
    let differences = ours.differences(&theirs);
    let suspect = LiveReader::open(projections, live)?;
    let shown = explain(projections, &suspect, &differences[..differences.len().min(MAX_EXPLAINED)]).await?;
    Ok(Comparison {
        name: live.projection,
        live: live.generation,
        other: fold.generation_id.generation,
        position,
        unreadable: None,
        live_digest: Some(ours.digest.to_string()),
        other_digest: Some(theirs.digest.to_string()),
        differing: differences.len(),
        shown,
    })
}

/// Waits until a fold has everything up to a position.
async fn wait_until_reached(
    projections: &Projections,
    folds: &LocalProjectors<'_>,
    fold: &LocalProjector,
    position: Position,
) -> Result<(), ProjectionsError> {
    folds
        .wait_until(Phase::Comparing, async |other, status| {
            if other.generation_id != fold.generation_id {
                return Ok(true);
            }
            Ok(status.position >= position
                || projections.has_no_events_between(status.position, position).await?)
        })
        .await
}

/// Where no projector runs, the live generation stands still: it is brought up to where the other one is.
async fn catch_up(
    projections: &Projections,
    folds: &LocalProjectors<'_>,
    live: ProjectionGeneration,
    up_to: Position,
) -> Result<(), ProjectionsError> {
    let fold = LocalProjector::start(projections, live, Some(up_to), RecoveryPolicy::Stop).await;
    let wait_until_caught_up = async {
        loop {
            let status = fold.status();
            fold.ensure_running(&status)?;
            let stored = projections.position(live).await?;
            if projections.has_no_events_between(stored.max(status.position), up_to).await? {
                return Ok(());
            }
            folds.report_progress(Phase::Comparing);
            folds.sleep_unless_cancelled().await?;
        }
    };
    let wait_until_caught_up: Result<(), ProjectionsError> = wait_until_caught_up.await;
    fold.stop().await;
    wait_until_caught_up
}
