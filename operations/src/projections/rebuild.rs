//! Rebuilds: new generations are built beside the live ones, compared with them, and promoted.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chat_domain::operator_action::RebuildStarted;
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_domain::{Position, Timestamp};
use chat_projector::generations::Generations;
use chat_projector::{ProjectorState, RecoveryPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::compare::{Comparison, compare_all};
use super::context::{GenerationName, Projections};
use super::error::{ProjectionsError, projection_error};
use super::handover::{Handover, hand_over};
use super::local_projectors::{LocalProjectors, Phase, Progress};
use super::switch_over::{SwitchDirection, SwitchOverReport, record_switch_over};
use crate::operator_actions::{self, Operator};

/// The rate that estimates assume, in events per second. Less than half of the measured rate of the slower projection,
/// because both projections are built at the same time, and other machines may be slower.
const ESTIMATED_EVENTS_PER_SECOND: u64 = 30_000;

/// How long a rebuild waits for another process to release the lock of a generation.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a generation that this rebuild has had open. After a failure, a merge of the index that is still running
/// in this process keeps the lock until it ends, which takes minutes in a large index.
const REOPEN_TIMEOUT: Duration = Duration::from_mins(10);

/// Options of a rebuild.
#[derive(Clone, Debug)]
pub struct RebuildOptions {
    /// The projections to rebuild.
    pub names: Vec<ProjectionName>,
    /// Whether to discard an unfinished earlier rebuild instead of resuming it.
    pub from_scratch: bool,
    /// The end of the rebuild; `None` for the head of the log. A rebuild with an end is not promoted.
    pub until: Option<RebuildEnd>,
    /// Whether to promote even if the new generation differs from the live one, or the live one can't be read.
    pub accept_differences: bool,
}

/// The end of a rebuild, before the head of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildEnd {
    /// The event at this position.
    Position(Position),
    /// The last event recorded at or before this time.
    Time(Timestamp),
}

/// The plan of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildPlan {
    /// The generations that the rebuild would build.
    pub generations: Vec<PlannedGeneration>,
    /// The last position of the log.
    pub head: Position,
    /// The position at which the rebuild would end.
    pub until: Position,
    /// The estimated duration in seconds; `None` if positions do not count events.
    pub estimated_seconds: Option<u64>,
}

/// A generation that a rebuild would build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedGeneration {
    /// The generation.
    #[serde(flatten)]
    pub named: GenerationName,
    /// Its location.
    #[serde(rename = "place")]
    pub location: String,
    /// The position of an unfinished earlier rebuild that this rebuild would resume.
    pub resumes_at: Option<Position>,
    /// The number of events to apply; `None` if positions do not count events.
    pub events: Option<u64>,
    /// The size on disk of the live generation, as an estimate of the size of the new one.
    pub live_bytes: Option<u64>,
}

/// The result of a rebuild.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebuildReport {
    /// The generations that were built.
    pub generations: Vec<GenerationName>,
    /// The position of each generation in `generations`.
    pub positions: Vec<Position>,
    /// The comparison of each with the live one; empty if they were not compared.
    pub comparisons: Vec<Comparison>,
    /// The promotion; `None` if the generations were not promoted.
    pub promoted: Option<SwitchOverReport>,
}

impl RebuildReport {
    /// Whether the result needs attention. If the generations were promoted: the running system has not taken them
    /// over. If they were not promoted: one of them differs from the live one, or a live one can't be read.
    pub fn has_findings(&self) -> bool {
        match &self.promoted {
            Some(promoted) => promoted.has_findings(),
            None => self.comparisons.iter().any(Comparison::has_findings),
        }
    }

    /// Whether a new generation differs from the live one. `false` also if no live generation can be read.
    pub fn differs(&self) -> bool {
        self.comparisons.iter().any(|comparison| comparison.differing > 0)
    }
}

/// Plans a rebuild without doing it.
pub async fn plan(
    projections: &Projections,
    options: &RebuildOptions,
) -> Result<RebuildPlan, ProjectionsError> {
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let until = end_position(projections, options.until, head).await?;
    let mut planned = Vec::new();
    for (generation_id, from_start) in target_generations(&generations, options) {
        let store = projections.store(generation_id);
        let live = ProjectionGeneration {
            generation: generations.for_projection(generation_id.projection).live,
            ..generation_id
        };
        let resumes_at = if from_start { None } else { store.position().await.ok() };
        let remaining = until.get().saturating_sub(resumes_at.unwrap_or_default().get());
        planned.push(PlannedGeneration {
            named: generation_id.into(),
            location: store.to_string(),
            resumes_at,
            events: projections.log.has_contiguous_positions().then_some(remaining),
            live_bytes: projections.store(live).size_in_bytes().await,
        });
    }
    let most_events = planned.iter().filter_map(|generation| generation.events).max();
    Ok(RebuildPlan {
        generations: planned,
        head,
        until,
        estimated_seconds: most_events.map(|events| events.div_ceil(ESTIMATED_EVENTS_PER_SECOND)),
    })
}

/// Builds new generations, compares them with the live ones and promotes them. The next call resumes a rebuild whose
/// process was killed. Fails if the log takes no appends, or if another rebuild or promotion makes one of these generations
/// live meanwhile.
pub async fn rebuild(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    options: &RebuildOptions,
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<RebuildReport, ProjectionsError> {
    projections.ensure_log_takes_appends()?;
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let until = match options.until {
        Some(until) => Some(end_position(projections, Some(until), head).await?),
        None => None,
    };
    let generation_ids = record_start(projections, operator, &reason, options, &generations).await?;
    let projectors = LocalProjectors::start(
        projections,
        &generation_ids,
        until,
        RecoveryPolicy::Rebuild,
        progress,
        cancel,
    )
    .await;
    let built = build_and_promote(projections, operator, reason, options, until, &projectors).await;
    let (mut report, had_active_projector) = match built {
        Ok(built) => built,
        Err(error) => {
            projectors.stop().await;
            return Err(error);
        }
    };
    if let Some(promoted) = &mut report.promoted {
        let handover = hand_over(projections, projectors, &had_active_projector).await;
        *promoted = SwitchOverReport::new(promoted.to.clone(), promoted.position, handover);
    } else {
        projectors.stop().await;
    }
    Ok(report)
}

/// Records the start of the rebuild for the generations that are not resumed. A rebuild from scratch first removes what
/// is stored of the generations. Returns all generations to build, also the resumed ones.
async fn record_start(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    options: &RebuildOptions,
    generations: &Generations,
) -> Result<Vec<ProjectionGeneration>, ProjectionsError> {
    let targets = target_generations(generations, options);
    if options.from_scratch {
        let all: Vec<_> = targets.iter().map(|(generation_id, _)| *generation_id).collect();
        // Another operator may have promoted the unfinished rebuild, and a live generation must not be removed.
        projections.ensure_not_live(&all).await?;
        for (generation_id, _) in &targets {
            let store = projections.store(*generation_id);
            store.remove().await.map_err(|error| projection_error(*generation_id, &store, error))?;
        }
    }
    let started: Vec<ProjectionGeneration> = targets
        .iter()
        .filter(|(_, from_start)| *from_start)
        .map(|(generation_id, _)| *generation_id)
        .collect();
    if !started.is_empty() {
        let ensure_not_live = async || projections.ensure_not_live(&started).await;
        let action = RebuildStarted { generations: started.clone(), reason: reason.to_owned() }.into();
        operator_actions::record_action_if(&*projections.log, operator, &action, ensure_not_live).await?;
    }
    Ok(targets.into_iter().map(|(generation_id, _)| generation_id).collect())
}

/// Waits until the generations are built up to `until` or to the head. Without `until`, compares and promotes them, if
/// the comparison or the options allow it. Also returns for each promoted generation whether the running system had an
/// active projector for the generation that was live before, see [`record_switch_over`].
async fn build_and_promote(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    options: &RebuildOptions,
    until: Option<Position>,
    projectors: &LocalProjectors<'_>,
) -> Result<(RebuildReport, Vec<(ProjectionGeneration, bool)>), ProjectionsError> {
    let mut standing_by_since: HashMap<ProjectionName, Instant> = HashMap::new();
    let mut opened: HashSet<ProjectionName> = HashSet::new();
    projectors
        .wait_until(Phase::Folding, async |projector, status| {
            let ProjectionGeneration { projection, generation } = projector.generation_id;
            if status.state == ProjectorState::StandingBy {
                let since = *standing_by_since.entry(projection).or_insert_with(Instant::now);
                // The engine may take a moment to release the lock of a rebuild that was killed.
                let timeout = if opened.contains(&projection) { REOPEN_TIMEOUT } else { LOCK_TIMEOUT };
                if since.elapsed() < timeout {
                    return Ok(false);
                }
                return Err(ProjectionsError::Busy(format!(
                    "another process builds generation {} of {}",
                    generation.0,
                    projection.as_str()
                )));
            }
            standing_by_since.remove(&projection);
            if matches!(status.state, ProjectorState::Rebuilding | ProjectorState::CatchingUp) {
                opened.insert(projection);
            }
            match until {
                Some(until) => Ok(status.position >= until
                    || projections.has_no_events_between(status.position, until).await?),
                None => Ok(status.state == ProjectorState::Live),
            }
        })
        .await?;
    let mut report = RebuildReport {
        generations: projectors.projectors.iter().map(|projector| projector.generation_id.into()).collect(),
        positions: projectors.projectors.iter().map(|projector| projector.status().position).collect(),
        comparisons: Vec::new(),
        promoted: None,
    };
    if until.is_some() {
        return Ok((report, Vec::new()));
    }
    report.comparisons = compare_all(projections, projectors).await?;
    report.positions = projectors.projectors.iter().map(|projector| projector.status().position).collect();
    let has_findings = report.comparisons.iter().any(Comparison::has_findings);
    if has_findings && !options.accept_differences {
        return Ok((report, Vec::new()));
    }
    let generations = projections.generations().await?;
    let (receipt, had_active_projector) =
        record_switch_over(projections, operator, reason, SwitchDirection::Promote, &generations, projectors)
            .await?;
    // A placeholder: `rebuild` replaces it with the outcome of the handover.
    let handover = Handover::Failed { obstacle: None };
    report.promoted = Some(SwitchOverReport::new(report.generations.clone(), receipt.position, handover));
    Ok((report, had_active_projector))
}

/// Returns the generations to build, and for each whether it is built from the start of the log.
fn target_generations(
    generations: &Generations,
    options: &RebuildOptions,
) -> Vec<(ProjectionGeneration, bool)> {
    let target = |name: &ProjectionName| {
        let projection = generations.for_projection(*name);
        let from_start = projection.building.is_none() || options.from_scratch;
        (
            ProjectionGeneration {
                projection: *name,
                generation: projection.building.unwrap_or_else(|| projection.next_generation()),
            },
            from_start,
        )
    };
    options.names.iter().map(target).collect()
}

/// Resolves the end of a rebuild to a position.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chat_domain::operator_action::ProjectionsPromoted;
    use chat_domain::projection::Generation;
    use chat_ports::event_store::EventStore;
    use chat_projector::generations::ProjectionLocations;
    use chat_sqlite::{SqliteEventStore, SqliteReadModelStorage};

    use super::*;

    #[tokio::test]
    async fn a_rebuild_from_scratch_removes_no_generation_that_was_promoted_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        let locations = ProjectionLocations {
            read_model: Arc::new(SqliteReadModelStorage::new(folder.path().join("read-model.db"))),
            search_index: folder.path().join("search-index"),
        };
        let projections = Projections { log, locations };
        let operator = Operator { name: "nadia".to_owned(), program: "chat-api/9".to_owned(), job: None };
        let building =
            ProjectionGeneration { projection: ProjectionName::ReadModel, generation: Generation(2) };
        let started = RebuildStarted { generations: vec![building], reason: String::new() };
        operator_actions::record_action(&*projections.log, &operator, &started.into()).await.unwrap();
        let generations_before = projections.generations().await.unwrap();
        let promoted = ProjectionsPromoted { generations: vec![building], reason: String::new() };
        operator_actions::record_action(&*projections.log, &operator, &promoted.into()).await.unwrap();
        let writer = projections.locations.read_model(Generation(2)).open().await.unwrap();
        drop(writer);

        let options = RebuildOptions {
            names: vec![ProjectionName::ReadModel],
            from_scratch: true,
            until: None,
            accept_differences: false,
        };
        let refused = record_start(&projections, &operator, "test", &options, &generations_before).await;
        assert!(refused.is_err());
        assert!(projections.store(building).position().await.is_ok(), "the live generation was removed");
    }
}
