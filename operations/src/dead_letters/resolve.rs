//! Deciding what is to become of parked events: recorded in the log, and waited for.

use std::time::Duration;

use chat_domain::operator_action::{
    DeadLetterDiscarded, DeadLettersRetried, DiscardAcknowledged, ProjectionGeneration, ProjectionName,
};
use chat_domain::{OperatorAction, Position, StreamId};
use chat_ports::dead_letter::{DeadLetterFilter, DeadLetterQuery};
use chat_projector::dead_letters::advance_projection;
use chat_projector::projection::{ProjectionError, ProjectionStore};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{BlockingEvent, DeadLetterView, LetterState};
use crate::operator_actions::{Operator, record_action};
use crate::projections::{Projections, ProjectionsError, projection_error};

/// How often it is looked whether a projection has come to an act.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often it is tried whether nobody projects.
const TAKE_OVER_INTERVAL: Duration = Duration::from_millis(500);
/// Letters that are read at once.
const PAGE_DEAD_LETTERS: usize = 1_000;

/// Which letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterSelection {
    /// That of the event at a position.
    Event(Position),
    /// Those of a stream; with an app's go those of its chats.
    Stream(String),
    /// All.
    All,
}

/// A stream with parked events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockedStream {
    /// In which projection.
    pub projection: ProjectionName,
    /// The stream.
    pub stream: String,
    /// The first event of it that is parked.
    pub position: Position,
    /// How many are.
    pub parked: u64,
}

/// What is to be done to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The stream.
    pub blocked_stream: BlockedStream,
    /// Whether to give up the first of its parked events; the others are retried either way.
    pub discards_first: bool,
}

/// What was done to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResolutionOutcome {
    /// In which projection.
    pub projection: ProjectionName,
    /// The stream.
    pub stream: String,
    /// The event that was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<Position>,
    /// The position of the act.
    pub act: Position,
    /// What it came to; `None` where the projection has not come to it yet.
    pub outcome: Option<StreamRetryOutcome>,
}

/// What an act left of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamRetryOutcome {
    /// How many of its events were applied.
    pub applied: u64,
    /// How many are parked.
    pub parked: u64,
    /// Where it stops.
    pub stopped: Option<BlockingEvent>,
}

/// The streams with parked events that are meant, in the order in which they have to be retried: apps before chats.
pub async fn blocked_streams(
    projections: &Projections,
    names: &[ProjectionName],
    selection: &DeadLetterSelection,
) -> Result<Vec<BlockedStream>, ProjectionsError> {
    let mut found = Vec::new();
    for name in names {
        let copy = projections.live_generation(*name).await?;
        let meant = match selection {
            DeadLetterSelection::Event(position) => match projections.dead_letter(copy, *position).await? {
                Some(letter) if letter.discarded.is_none() => DeadLetterSelection::Stream(letter.stream),
                _ => continue,
            },
            other => other.clone(),
        };
        collect_blocked_streams(projections, copy, &meant, &mut found).await?;
    }
    let is_apps = |stream: &str| matches!(StreamId::parse(stream), Ok(StreamId::App(_)));
    found.sort_by_key(|parked| (parked.projection, !is_apps(&parked.stream), parked.position));
    Ok(found)
}

/// The first parked event of each stream that is meant.
async fn collect_blocked_streams(
    projections: &Projections,
    copy: ProjectionGeneration,
    selection: &DeadLetterSelection,
    found: &mut Vec<BlockedStream>,
) -> Result<(), ProjectionsError> {
    let chats_of = match selection {
        DeadLetterSelection::Stream(stream) => match StreamId::parse(stream) {
            Ok(StreamId::App(app)) => Some(app),
            _ => None,
        },
        _ => None,
    };
    let is_meant = |stream: &str| match selection {
        DeadLetterSelection::Stream(name) if name == stream => true,
        DeadLetterSelection::Stream(_) => {
            matches!(StreamId::parse(stream), Ok(StreamId::Chat(app, _)) if Some(app) == chats_of)
        }
        _ => true,
    };
    let only = match selection {
        DeadLetterSelection::Stream(stream) if chats_of.is_none() => Some(stream.clone()),
        _ => None,
    };
    let mut after = Position::START;
    loop {
        let asked = DeadLetterQuery {
            after,
            limit: PAGE_DEAD_LETTERS,
            filter: DeadLetterFilter::NeedsAttention,
            stream: only.clone(),
        };
        let page = projections.dead_letters(copy, asked).await?;
        let Some(last) = page.letters.last() else { return Ok(()) };
        after = last.letter.position;
        for listed in page.letters {
            if listed.letter.discarded.is_none() && is_meant(&listed.letter.stream) {
                found.push(BlockedStream {
                    projection: copy.projection,
                    stream: listed.letter.stream,
                    position: listed.letter.position,
                    parked: 1 + listed.waiting_behind,
                });
            }
        }
    }
}

/// The streams whose first parked event is at a position, in the projections that have parked it.
///
/// # Errors
/// [`ProjectionsError::Nothing`] where no projection has, or others of its stream wait before it.
pub async fn plan_discard(
    projections: &Projections,
    names: &[ProjectionName],
    position: Position,
) -> Result<Vec<Resolution>, ProjectionsError> {
    let parked = blocked_streams(projections, names, &DeadLetterSelection::Event(position)).await?;
    // With an app's stream come those of its chats.
    let mut steps = Vec::new();
    let mut before = None;
    for name in names {
        let copy = projections.live_generation(*name).await?;
        let Some(letter) = projections.dead_letter(copy, position).await? else { continue };
        for parked in
            parked.iter().filter(|parked| parked.projection == *name && parked.stream == letter.stream)
        {
            if parked.position == position {
                steps.push(Resolution { blocked_stream: parked.clone(), discards_first: true });
            } else {
                before = Some(parked.position);
            }
        }
    }
    match (steps.is_empty(), before) {
        (false, _) => Ok(steps),
        (true, Some(before)) => Err(ProjectionsError::NotFound(format!(
            "the event at position {position} waits behind the one at {before}, which has to be dealt with first"
        ))),
        (true, None) => Err(ProjectionsError::NotFound(format!("no event at position {position} is parked"))),
    }
}

/// Discarded events that nobody has acknowledged: that at a position, or all.
pub async fn unacknowledged_discards(
    projections: &Projections,
    names: &[ProjectionName],
    position: Option<Position>,
) -> Result<Vec<DeadLetterView>, ProjectionsError> {
    let mut found = Vec::new();
    for name in names {
        let copy = projections.live_generation(*name).await?;
        let mut after =
            position.map_or(Position::START, |position| Position::new(position.get().saturating_sub(1)));
        loop {
            let asked = DeadLetterQuery {
                after,
                limit: PAGE_DEAD_LETTERS,
                filter: DeadLetterFilter::NeedsAttention,
                stream: None,
            };
            let page = projections.dead_letters(copy, asked).await?;
            let Some(last) = page.letters.last() else { break };
            after = last.letter.position;
            let letters = page.letters.into_iter().map(|listed| DeadLetterView::from_listed(*name, listed));
            found.extend(letters.filter(|letter| {
                letter.state == LetterState::Discarded
                    && position.is_none_or(|position| letter.position == position)
            }));
            if position.is_some_and(|position| after >= position) {
                break;
            }
        }
    }
    Ok(found)
}

/// Records the steps, and waits until the projections have come to them, for so long at most.
pub async fn resolve(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    steps: Vec<Resolution>,
    timeout: Duration,
) -> Result<Vec<ResolutionOutcome>, ProjectionsError> {
    let mut taken = Vec::with_capacity(steps.len());
    for step in steps {
        let BlockedStream { projection, stream, position, .. } = step.blocked_stream.clone();
        let reason = reason.to_owned();
        let operation: OperatorAction = if step.discards_first {
            DeadLetterDiscarded { projection, position, reason }.into()
        } else {
            DeadLettersRetried { projection, stream, reason }.into()
        };
        let act = record_action(&*projections.log, operator, &operation).await?.position;
        taken.push((step, act));
    }
    let deadline = Instant::now() + timeout;
    let mut done = Vec::with_capacity(taken.len());
    for (Resolution { blocked_stream: parked, discards_first: discard }, act) in taken {
        let copy = projections.live_generation(parked.projection).await?;
        let carried_out = wait_until_applied(projections, copy, act, deadline).await?;
        // Another operator's act may have come first, and this one have found nothing to give up.
        let discarded = discard
            && (!carried_out
                || projections
                    .dead_letter(copy, parked.position)
                    .await?
                    .and_then(|letter| letter.discarded)
                    .is_some_and(|discarded| discarded.by == act));
        let outcome = if carried_out {
            Some(retry_outcome(projections, copy, &parked, discarded).await?)
        } else {
            None
        };
        done.push(ResolutionOutcome {
            projection: parked.projection,
            stream: parked.stream,
            discarded: discarded.then_some(parked.position),
            act,
            outcome,
        });
    }
    Ok(done)
}

/// Records that somebody has taken note of discarded events, and waits until the projections have come to it, for so long
/// at most; whether they have.
pub async fn acknowledge(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    letters: &[DeadLetterView],
    timeout: Duration,
) -> Result<bool, ProjectionsError> {
    let mut acts = Vec::with_capacity(letters.len());
    for letter in letters {
        let operation: OperatorAction = DiscardAcknowledged {
            projection: letter.projection,
            position: letter.position,
            reason: reason.to_owned(),
        }
        .into();
        acts.push((
            letter.projection,
            record_action(&*projections.log, operator, &operation).await?.position,
        ));
    }
    let deadline = Instant::now() + timeout;
    let mut all = true;
    for (projection, act) in acts {
        let copy = projections.live_generation(projection).await?;
        all &= wait_until_applied(projections, copy, act, deadline).await?;
    }
    Ok(all)
}

/// What is parked of a stream now.
async fn retry_outcome(
    projections: &Projections,
    copy: ProjectionGeneration,
    before: &BlockedStream,
    discarded: bool,
) -> Result<StreamRetryOutcome, ProjectionsError> {
    let mut now = Vec::new();
    collect_blocked_streams(projections, copy, &DeadLetterSelection::Stream(before.stream.clone()), &mut now)
        .await?;
    let now = now.into_iter().find(|now| now.stream == before.stream);
    let parked = now.as_ref().map_or(0, |now| now.parked);
    let stopped = match now {
        Some(now) => projections.dead_letter(copy, now.position).await?,
        None => None,
    };
    Ok(StreamRetryOutcome {
        applied: before.parked.saturating_sub(parked + u64::from(discarded)),
        parked,
        stopped: stopped.map(|letter| BlockingEvent {
            position: letter.position,
            event_type: letter.event_type,
            reason: letter.reason,
        }),
    })
}

/// Waits until a projection has come to an act. Where no projector has it open, it is folded up to there by this process.
async fn wait_until_applied(
    projections: &Projections,
    copy: ProjectionGeneration,
    act: Position,
    deadline: Instant,
) -> Result<bool, ProjectionsError> {
    let place = projections.location(copy);
    let mut try_at = Instant::now();
    loop {
        if projections.position(copy).await? >= act {
            return Ok(true);
        }
        if Instant::now() >= try_at {
            match fold_up_to(projections, &*place, act).await {
                Ok(()) => return Ok(true),
                Err(ProjectionError::InUse) => {}
                Err(source) => return Err(projection_error(copy, &place, source)),
            }
            try_at = Instant::now() + TAKE_OVER_INTERVAL;
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn fold_up_to(
    projections: &Projections,
    place: &dyn ProjectionStore,
    act: Position,
) -> Result<(), ProjectionError> {
    let (mut projection, _) = place.open().await?;
    let log = projections.log.log_id().await?;
    loop {
        let from = projection.checkpoint().position;
        if from >= act {
            return Ok(());
        }
        let mut events = projections.log.read_all(from, PAGE_DEAD_LETTERS).await?;
        events.retain(|event| event.position <= act);
        let up_to = events.last().map_or(act, |event| event.position);
        advance_projection(&mut *projection, &*projections.log, log, events, up_to).await?;
    }
}
