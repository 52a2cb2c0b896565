//! Building new generations beside those that readers see, and promoting them.

use std::time::Duration;

use chat_domain::operator_action::{ProjectionGeneration, ProjectionName, RebuildStarted};
use chat_domain::{Position, Timestamp};
use chat_projector::generations::Generations;
use chat_projector::{ProjectorState, RecoveryPolicy};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::compare::{Comparison, compare_all};
use super::handover::hand_over;
use super::local_projectors::{LocalProjectors, Phase, Progress};
use super::switch_over::{SwitchDirection, SwitchOverReport, record_switch_over};
use super::{GenerationName, Projections, ProjectionsError, projection_error};
use crate::operator_actions::{self, Operator};

/// Events that a machine folds in a second, about, for an estimate: half of what the slower projection does on two
/// cores, since both are folded at a time.
const ESTIMATED_EVENTS_PER_SECOND: u64 = 30_000;

/// How long another rebuild's lock is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// What to rebuild, and how.
#[derive(Clone, Debug)]
pub struct RebuildOptions {
    /// Which projections.
    pub names: Vec<ProjectionName>,
    /// Whether what an earlier rebuild has left unfinished is thrown away, instead of going on with it.
    pub from_scratch: bool,
    /// Up to where; what ends before the log's end is not promoted.
    pub until: Option<RebuildEnd>,
    /// Whether differences from what is live are no reason not to promote.
    pub accept_differences: bool,
}

/// Where a rebuild ends, instead of at the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildEnd {
    /// With this position.
    Position(Position),
    /// With the last event recorded by then.
    Time(Timestamp),
}

/// What a rebuild would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RebuildPlan {
    /// The generations that it would build.
    pub generations: Vec<PlannedGeneration>,
    /// The end of the log.
    pub head: Position,
    /// Where it would end.
    pub until: Position,
    /// Seconds that it may take, about; `None` where events are not counted.
    pub estimated_seconds: Option<u64>,
}

/// A generation that a rebuild would build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedGeneration {
    /// Which one.
    #[serde(flatten)]
    pub named: GenerationName,
    /// Where it would be.
    pub place: String,
    /// Where an earlier rebuild, of which this is the rest, has come to.
    pub resumes_at: Option<Position>,
    /// Events to fold, where they are counted.
    pub events: Option<u64>,
    /// Bytes of disk that the live one takes; this one will take about as much.
    pub live_bytes: Option<u64>,
}

/// What a rebuild came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RebuildReport {
    /// What was built.
    pub generations: Vec<GenerationName>,
    /// Up to where each is folded.
    pub positions: Vec<Position>,
    /// How each compares with the live one; empty where it was not compared.
    pub comparisons: Vec<Comparison>,
    /// The promotion; `None` where there was none.
    pub promoted: Option<SwitchOverReport>,
}

impl RebuildReport {
    /// Whether something differs from what is live, and was not promoted for it.
    pub fn has_findings(&self) -> bool {
        self.promoted.is_none() && self.comparisons.iter().any(Comparison::has_findings)
    }
}

/// Says what a rebuild would do.
pub async fn plan(
    projections: &Projections,
    rebuild: &RebuildOptions,
) -> Result<RebuildPlan, ProjectionsError> {
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let until = end_position(projections, rebuild.until, head).await?;
    let mut planned = Vec::new();
    for (copy, is_new) in target_generations(&generations, rebuild) {
        let place = projections.location(copy);
        let live =
            ProjectionGeneration { generation: generations.for_projection(copy.projection).live, ..copy };
        let resumes_at = if is_new { None } else { place.position().await.ok() };
        let left = until.get().saturating_sub(resumes_at.unwrap_or_default().get());
        planned.push(PlannedGeneration {
            named: copy.into(),
            place: place.to_string(),
            resumes_at,
            events: projections.log.has_contiguous_positions().then_some(left),
            live_bytes: projections.location(live).size_in_bytes().await,
        });
    }
    let most = planned.iter().filter_map(|generation| generation.events).max();
    Ok(RebuildPlan {
        generations: planned,
        head,
        until,
        estimated_seconds: most.map(|events| events.div_ceil(ESTIMATED_EVENTS_PER_SECOND)),
    })
}

/// Rebuilds, compares and promotes. A rebuild that is killed at any time goes on where it was when it is called again.
pub async fn rebuild(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    options: &RebuildOptions,
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<RebuildReport, ProjectionsError> {
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let until = match options.until {
        Some(until) => Some(end_position(projections, Some(until), head).await?),
        None => None,
    };
    let copies = record_start(projections, operator, &reason, options, &generations).await?;
    let folds =
        LocalProjectors::start(projections, &copies, until, RecoveryPolicy::Rebuild, progress, cancel).await;
    let built = build_and_promote(projections, operator, reason, options, until, &folds).await;
    let (mut done, was_kept) = match built {
        Ok(built) => built,
        Err(error) => {
            folds.stop().await;
            return Err(error);
        }
    };
    if let Some(promoted) = &mut done.promoted {
        promoted.taken_over = hand_over(projections, folds, &was_kept).await;
    } else {
        folds.stop().await;
    }
    Ok(done)
}

/// Records that the rebuild begins, as far as it is not the rest of an earlier one.
async fn record_start(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    options: &RebuildOptions,
    generations: &Generations,
) -> Result<Vec<ProjectionGeneration>, ProjectionsError> {
    let all = target_generations(generations, options);
    if options.from_scratch {
        for (copy, _) in &all {
            let place = projections.location(*copy);
            place.remove().await.map_err(|error| projection_error(*copy, &place, error))?;
        }
    }
    let new: Vec<ProjectionGeneration> =
        all.iter().filter(|(_, is_new)| *is_new).map(|(copy, _)| *copy).collect();
    if !new.is_empty() {
        let act = RebuildStarted { copies: new, reason: reason.to_owned() }.into();
        operator_actions::record_action(&*projections.log, operator, &act).await?;
    }
    Ok(all.into_iter().map(|(copy, _)| copy).collect())
}

async fn build_and_promote(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    options: &RebuildOptions,
    until: Option<Position>,
    projectors: &LocalProjectors<'_>,
) -> Result<(RebuildReport, Vec<(ProjectionGeneration, bool)>), ProjectionsError> {
    let mut standing_by_since: Option<Instant> = None;
    projectors
        .wait_until(Phase::Folding, async |fold, status| match (status.state, until) {
            // The lock of a rebuild that was killed is free as soon as its engine has noticed.
            (ProjectorState::StandingBy, _)
                if standing_by_since.get_or_insert_with(Instant::now).elapsed() < LOCK_TIMEOUT =>
            {
                Ok(false)
            }
            (ProjectorState::StandingBy, _) => Err(ProjectionsError::Busy(format!(
                "another process builds generation {} of {}",
                fold.generation_id.generation.0,
                fold.generation_id.projection.as_str()
            ))),
            (_, Some(until)) => {
                Ok(status.position >= until
                    || projections.has_no_events_between(status.position, until).await?)
            }
            (state, None) => Ok(state == ProjectorState::Live),
        })
        .await?;
    let mut done = RebuildReport {
        generations: projectors.projectors.iter().map(|fold| fold.generation_id.into()).collect(),
        positions: projectors.projectors.iter().map(|fold| fold.status().position).collect(),
        comparisons: Vec::new(),
        promoted: None,
    };
    if until.is_some() {
        return Ok((done, Vec::new()));
    }
    done.comparisons = compare_all(projections, projectors).await?;
    done.positions = projectors.projectors.iter().map(|fold| fold.status().position).collect();
    let differs = done.comparisons.iter().any(Comparison::has_findings);
    if differs && !options.accept_differences {
        return Ok((done, Vec::new()));
    }
    let generations = projections.generations().await?;
    let (act, was_kept) =
        record_switch_over(projections, operator, reason, SwitchDirection::Promote, &generations, projectors)
            .await?;
    done.promoted =
        Some(SwitchOverReport { to: done.generations.clone(), position: act.position, taken_over: false });
    Ok((done, was_kept))
}

/// What is to be built, and whether that is new.
fn target_generations(
    generations: &Generations,
    rebuild: &RebuildOptions,
) -> Vec<(ProjectionGeneration, bool)> {
    let copy = |name: &ProjectionName| {
        let line = generations.for_projection(*name);
        let is_new = line.building.is_none() || rebuild.from_scratch;
        (
            ProjectionGeneration {
                projection: *name,
                generation: line.building.unwrap_or_else(|| line.next_generation()),
            },
            is_new,
        )
    };
    rebuild.names.iter().map(copy).collect()
}

/// Where a rebuild ends.
async fn end_position(
    projections: &Projections,
    until: Option<RebuildEnd>,
    head: Position,
) -> Result<Position, ProjectionsError> {
    let time = match until {
        None => return Ok(head),
        Some(RebuildEnd::Position(position)) => return Ok(position.min(head)),
        Some(RebuildEnd::Time(time)) => time,
    };
    let mut before = None;
    loop {
        let events = projections.log.read_all_backwards(before, 1_024).await?;
        let Some(earliest) = events.last() else { return Ok(Position::START) };
        if let Some(event) = events.iter().find(|event| event.recorded_at <= time) {
            return Ok(event.position);
        }
        before = Some(earliest.position);
    }
}
