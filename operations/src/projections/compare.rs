//! Comparison of two generations at the same position of the log.

use chat_domain::Position;
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_projector::{ProjectorState, RecoveryPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::context::Projections;
use super::error::{ProjectionsError, projection_error};
use super::explain::{ExplainedDifference, LiveReader, explain};
use super::handover::has_active_projector;
use super::local_projectors::{LocalProjector, LocalProjectors, Phase, Progress};
use super::switch_over::projections_being_built;

/// The maximal number of differences that are explained. Further differences are only counted.
pub const MAX_EXPLAINED: usize = 20;

/// The comparison of a generation with the live one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The projection.
    pub projection: ProjectionName,
    /// The live generation.
    pub live: Generation,
    /// The other generation.
    pub other: Generation,
    /// The position of the log at which both were compared.
    pub position: Position,
    /// Why the live generation can't be read, or has events that the log has lost. Then nothing was compared.
    pub unreadable: Option<String>,
    /// The digest of the live generation at that position.
    pub live_digest: Option<String>,
    /// The digest of the other generation at that position.
    pub other_digest: Option<String>,
    /// The number of rows or documents that differ.
    pub differing: usize,
    /// The first differences, explained.
    pub shown: Vec<ExplainedDifference>,
}

impl Comparison {
    /// Whether rows differ, or nothing could be compared.
    pub fn has_findings(&self) -> bool {
        self.differing > 0 || self.unreadable.is_some()
    }
}

/// Returns the projections that are compared if none is named: those that are being built, or else all.
pub async fn default_projections(projections: &Projections) -> Result<Vec<ProjectionName>, ProjectionsError> {
    let built = projections_being_built(&projections.generations().await?);
    Ok(if built.is_empty() { ProjectionName::ALL.to_vec() } else { built })
}

/// Compares another generation of each projection with the live one. The other generation is the one that is being
/// built, or else the one that was live before, or else the newest one that is left over. Leaves out projections
/// without another generation. Fails if the log takes no appends, or if one of these generations has events that the log
/// has lost.
pub async fn diff(
    projections: &Projections,
    names: &[ProjectionName],
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<Vec<Comparison>, ProjectionsError> {
    projections.ensure_log_takes_appends()?;
    let generations = projections.generations().await?;
    let mut others = Vec::new();
    for name in names {
        let projection = generations.for_projection(*name);
        let other =
            projection.building.or(projection.previous()).or_else(|| projection.left_over.last().copied());
        others.extend(other.map(|generation| ProjectionGeneration { projection: *name, generation }));
    }
    if others.is_empty() {
        return Err(ProjectionsError::NotFound("there is no other generation to compare with".to_owned()));
    }
    projections.ensure_within_log(&others).await?;
    let projectors =
        LocalProjectors::start(projections, &others, None, RecoveryPolicy::Stop, progress, cancel).await;
    let comparisons = compare_all(projections, &projectors).await;
    projectors.stop().await;
    comparisons
}

/// Compares the generation of each projector with the live one, one after the other.
pub(super) async fn compare_all(
    projections: &Projections,
    projectors: &LocalProjectors<'_>,
) -> Result<Vec<Comparison>, ProjectionsError> {
    projectors
        .wait_until(Phase::Folding, async |projector, status| match status.state {
            ProjectorState::StandingBy => Err(ProjectionsError::in_use(projector.generation_id)),
            state => Ok(state == ProjectorState::Live),
        })
        .await?;
    let generations = projections.generations().await?;
    let mut comparisons = Vec::new();
    for projector in &projectors.projectors {
        let live = ProjectionGeneration {
            generation: generations.for_projection(projector.generation_id.projection).live,
            ..projector.generation_id
        };
        if live == projector.generation_id {
            return Err(ProjectionsError::already_live(live));
        }
        comparisons.push(compare(projections, projectors, projector, live).await?);
        projector.log.remove_limit();
    }
    Ok(comparisons)
}

/// Brings both generations to one position, and compares them there.
///
/// The live generation can't be paused. So the other generation is paused first. When the live generation has caught
/// up, its content is read in one snapshot. Then the other generation continues exactly up to the snapshot's position.
async fn compare(
    projections: &Projections,
    projectors: &LocalProjectors<'_>,
    projector: &LocalProjector,
    live: ProjectionGeneration,
) -> Result<Comparison, ProjectionsError> {
    let live_store = projections.store(live);
    let paused_at = projector.log.pause();
    wait_until_reached(projections, projectors, projector, paused_at).await?;
    let unreadable = match live_store.position().await {
        Ok(_) => projections.mismatch_with_log(live).await?.map(|mismatch| mismatch.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if unreadable.is_some() {
        return Ok(Comparison {
            projection: live.projection,
            live: live.generation,
            other: projector.generation_id.generation,
            position: paused_at,
            unreadable,
            live_digest: None,
            other_digest: None,
            differing: 0,
            shown: Vec::new(),
        });
    }
    if projections.position(live).await? < paused_at && !has_active_projector(projections, live).await {
        catch_up(projections, projectors, live, paused_at).await?;
    }
    while !projections.has_no_events_between(projections.position(live).await?, paused_at).await? {
        projectors.report_progress(Phase::Comparing);
        projectors.sleep_unless_interrupted().await?;
    }
    projectors.report_progress(Phase::Comparing);
    let (position, live_contents) =
        live_store.contents().await.map_err(|error| projection_error(live, &live_store, error))?;
    let position = position.max(paused_at);
    projector.log.set_limit(position);
    wait_until_reached(projections, projectors, projector, position).await?;
    let other_store = projections.store(projector.generation_id);
    let (_, other_contents) = other_store
        .contents()
        .await
        .map_err(|error| projection_error(projector.generation_id, &other_store, error))?;
    let differences = live_contents.differences(&other_contents);
    let live_reader = LiveReader::open(projections, live)?;
    let shown =
        explain(projections, &live_reader, &differences[..differences.len().min(MAX_EXPLAINED)]).await?;
    Ok(Comparison {
        projection: live.projection,
        live: live.generation,
        other: projector.generation_id.generation,
        position,
        unreadable: None,
        live_digest: Some(live_contents.digest.to_string()),
        other_digest: Some(other_contents.digest.to_string()),
        differing: differences.len(),
        shown,
    })
}

/// Waits until a projector has reached a position.
async fn wait_until_reached(
    projections: &Projections,
    projectors: &LocalProjectors<'_>,
    projector: &LocalProjector,
    position: Position,
) -> Result<(), ProjectionsError> {
    projectors
        .wait_until(Phase::Comparing, async |candidate, status| {
            if candidate.generation_id != projector.generation_id {
                return Ok(true);
            }
            Ok(status.position >= position
                || projections.has_no_events_between(status.position, position).await?)
        })
        .await
}

/// Advances the live generation to a position in this process, because no projector of the running system does.
async fn catch_up(
    projections: &Projections,
    projectors: &LocalProjectors<'_>,
    live: ProjectionGeneration,
    up_to: Position,
) -> Result<(), ProjectionsError> {
    let projector = LocalProjector::start(projections, live, Some(up_to), RecoveryPolicy::Stop).await;
    let wait_until_caught_up = async {
        loop {
            let status = projector.status();
            projector.ensure_running(&status)?;
            let stored = projections.position(live).await?;
            if projections.has_no_events_between(stored.max(status.position), up_to).await? {
                return Ok(());
            }
            projectors.report_progress(Phase::Comparing);
            projectors.sleep_unless_interrupted().await?;
        }
    };
    let outcome: Result<(), ProjectionsError> = wait_until_caught_up.await;
    projector.stop().await;
    outcome
}
