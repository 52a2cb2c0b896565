//! Building new generations beside those that readers see, and promoting them.

use std::time::Duration;

use chat_domain::operation::{Copy, ProjectionName, RebuildStarted};
use chat_domain::{Position, Timestamp};
use chat_projector::generations::Generations;
use chat_projector::{Policy, State};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::compare::{Comparison, compare_all};
use super::fold::{Folds, Phase, Progress};
use super::handover::hand_over;
use super::switch::{Switch, Switched, record};
use super::{Named, Projections, ProjectionsError, failed};
use crate::acts::{self, Operator};

/// Events that a machine folds in a second, about, for an estimate: half of what the slower projection does on two
/// cores, since both are folded at a time.
const EVENTS_PER_SECOND: u64 = 30_000;

/// How long another rebuild's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What to rebuild, and how.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// Which projections.
    pub names: Vec<ProjectionName>,
    /// Whether what an earlier rebuild has left unfinished is thrown away, instead of going on with it.
    pub from_scratch: bool,
    /// Up to where; what ends before the log's end is not promoted.
    pub until: Option<Until>,
    /// Whether differences from what is live are no reason not to promote.
    pub accept_differences: bool,
}

/// Where a rebuild ends, instead of at the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
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
    pub named: Named,
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
pub struct Rebuilt {
    /// What was built.
    pub generations: Vec<Named>,
    /// Up to where each is folded.
    pub positions: Vec<Position>,
    /// How each compares with the live one; empty where it was not compared.
    pub comparisons: Vec<Comparison>,
    /// The promotion; `None` where there was none.
    pub promoted: Option<Switched>,
}

impl Rebuilt {
    /// Whether something differs from what is live, and was not promoted for it.
    pub fn has_findings(&self) -> bool {
        self.promoted.is_none() && self.comparisons.iter().any(Comparison::is_finding)
    }
}

/// Says what a rebuild would do.
pub async fn plan(projections: &Projections, rebuild: &Rebuild) -> Result<RebuildPlan, ProjectionsError> {
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let until = end_of(projections, rebuild.until, head).await?;
    let mut planned = Vec::new();
    for (copy, is_new) in copies(&generations, rebuild) {
        let place = projections.place(copy);
        let live = Copy { generation: generations.of(copy.projection).live, ..copy };
        let resumes_at = if is_new { None } else { place.position().await.ok() };
        let left = until.get().saturating_sub(resumes_at.unwrap_or_default().get());
        planned.push(PlannedGeneration {
            named: copy.into(),
            place: place.to_string(),
            resumes_at,
            events: projections.log.counts_events().then_some(left),
            live_bytes: projections.place(live).bytes().await,
        });
    }
    let most = planned.iter().filter_map(|generation| generation.events).max();
    Ok(RebuildPlan {
        generations: planned,
        head,
        until,
        estimated_seconds: most.map(|events| events.div_ceil(EVENTS_PER_SECOND)),
    })
}

/// Rebuilds, compares and promotes. A rebuild that is killed at any time goes on where it was when it is called again.
pub async fn rebuild(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    rebuild: &Rebuild,
    progress: &watch::Sender<Progress>,
    cancel: &watch::Receiver<bool>,
) -> Result<Rebuilt, ProjectionsError> {
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let until = match rebuild.until {
        Some(until) => Some(end_of(projections, Some(until), head).await?),
        None => None,
    };
    let copies = begin(projections, operator, &reason, rebuild, &generations).await?;
    let folds = Folds::start(projections, &copies, until, Policy::Mend, progress, cancel).await;
    let built = build(projections, operator, reason, rebuild, until, &folds).await;
    let (mut done, was_kept) = match built {
        Ok(built) => built,
        Err(error) => {
            folds.end().await;
            return Err(error);
        }
    };
    if let Some(promoted) = &mut done.promoted {
        promoted.taken_over = hand_over(projections, folds, &was_kept).await;
    } else {
        folds.end().await;
    }
    Ok(done)
}

/// Records that the rebuild begins, as far as it is not the rest of an earlier one.
async fn begin(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    rebuild: &Rebuild,
    generations: &Generations,
) -> Result<Vec<Copy>, ProjectionsError> {
    let all = copies(generations, rebuild);
    if rebuild.from_scratch {
        for (copy, _) in &all {
            let place = projections.place(*copy);
            place.remove().await.map_err(|error| failed(*copy, &place, error))?;
        }
    }
    let new: Vec<Copy> = all.iter().filter(|(_, is_new)| *is_new).map(|(copy, _)| *copy).collect();
    if !new.is_empty() {
        let act = RebuildStarted { copies: new, reason: reason.to_owned() }.into();
        acts::record(&*projections.log, operator, &act).await?;
    }
    Ok(all.into_iter().map(|(copy, _)| copy).collect())
}

async fn build(
    projections: &Projections,
    operator: &Operator,
    reason: String,
    rebuild: &Rebuild,
    until: Option<Position>,
    folds: &Folds<'_>,
) -> Result<(Rebuilt, Vec<(Copy, bool)>), ProjectionsError> {
    let mut stands_by_since: Option<Instant> = None;
    folds
        .wait(Phase::Folding, async |fold, status| match (status.state, until) {
            // The lock of a rebuild that was killed is free as soon as its engine has noticed.
            (State::StandingBy, _)
                if stands_by_since.get_or_insert_with(Instant::now).elapsed() < LOCK_PATIENCE =>
            {
                Ok(false)
            }
            (State::StandingBy, _) => Err(ProjectionsError::Busy(format!(
                "another process builds generation {} of {}",
                fold.copy.generation.0,
                fold.copy.projection.as_str()
            ))),
            (_, Some(until)) => {
                Ok(status.position >= until || projections.nothing_between(status.position, until).await?)
            }
            (state, None) => Ok(state == State::Live),
        })
        .await?;
    let mut done = Rebuilt {
        generations: folds.all.iter().map(|fold| fold.copy.into()).collect(),
        positions: folds.all.iter().map(|fold| fold.status().position).collect(),
        comparisons: Vec::new(),
        promoted: None,
    };
    if until.is_some() {
        return Ok((done, Vec::new()));
    }
    done.comparisons = compare_all(projections, folds).await?;
    done.positions = folds.all.iter().map(|fold| fold.status().position).collect();
    let differs = done.comparisons.iter().any(Comparison::is_finding);
    if differs && !rebuild.accept_differences {
        return Ok((done, Vec::new()));
    }
    let generations = projections.generations().await?;
    let (act, was_kept) = record(projections, operator, reason, Switch::Promote, &generations, folds).await?;
    done.promoted =
        Some(Switched { to: done.generations.clone(), position: act.position, taken_over: false });
    Ok((done, was_kept))
}

/// What is to be built, and whether that is new.
fn copies(generations: &Generations, rebuild: &Rebuild) -> Vec<(Copy, bool)> {
    let copy = |name: &ProjectionName| {
        let line = generations.of(*name);
        let is_new = line.building.is_none() || rebuild.from_scratch;
        (Copy { projection: *name, generation: line.building.unwrap_or_else(|| line.next()) }, is_new)
    };
    rebuild.names.iter().map(copy).collect()
}

/// Where a rebuild ends.
async fn end_of(
    projections: &Projections,
    until: Option<Until>,
    head: Position,
) -> Result<Position, ProjectionsError> {
    let time = match until {
        None => return Ok(head),
        Some(Until::Position(position)) => return Ok(position.min(head)),
        Some(Until::Time(time)) => time,
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
