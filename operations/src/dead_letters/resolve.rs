//! Resolving dead letters: retrying, discarding and acknowledging them by operator actions in the log.

use std::time::Duration;

use chat_domain::operator_action::{DeadLetterDiscarded, DeadLettersRetried, DiscardAcknowledged};
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_domain::{OperatorAction, Position, StreamId};
use chat_ports::dead_letter::{DeadLetterFilter, DeadLetterQuery};
use chat_projector::dead_letters::advance_projection;
use chat_projector::projection::{ProjectionError, ProjectionStore, ensure_log_matches};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{BlockingEvent, DeadLetterState, DeadLetterView, missing_dead_letter};
use crate::operator_actions::{Operator, record_action};
use crate::projections::{Projections, ProjectionsError, projection_error};

/// The interval at which the position of a projection is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The interval at which this process tries to do the projector's work, in case no projector runs.
const TAKE_OVER_INTERVAL: Duration = Duration::from_millis(500);
/// The maximal number of dead letters or events per read.
const PAGE_LEN: usize = 1_000;

/// A selection of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterSelection {
    /// As [`Self::Stream`], for the stream of the dead letter at this position.
    Event(Position),
    /// The dead letters of a stream. An app's stream includes the streams of its chats.
    Stream(String),
    /// All dead letters.
    All,
}

/// A stream that a dead letter blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockedStream {
    /// The projection.
    pub projection: ProjectionName,
    /// The stream.
    pub stream: String,
    /// The position of its first dead letter.
    pub position: Position,
    /// The number of its dead letters.
    #[serde(rename = "parked")]
    pub pending: u64,
}

/// How to resolve the dead letters of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The stream.
    pub blocked_stream: BlockedStream,
    /// Whether to discard its first dead letter. The others are retried in either case.
    pub discards_first: bool,
}

/// The outcome of resolving the dead letters of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolutionOutcome {
    /// The projection.
    pub projection: ProjectionName,
    /// The stream.
    pub stream: String,
    /// The position of the discarded event; `None` if no event was discarded. If `outcome` is `None`, the discard is
    /// recorded but not applied yet, and may still turn out to have no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<Position>,
    /// The position of the operator action.
    #[serde(rename = "act")]
    pub action_position: Position,
    /// The state of the stream afterwards; `None` if the projection has not reached the action in time.
    pub outcome: Option<StreamRetryOutcome>,
}

/// The state of a stream after a retry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRetryOutcome {
    /// The number of its events that were applied.
    pub applied: u64,
    /// The number of its dead letters.
    #[serde(rename = "parked")]
    pub pending: u64,
    /// The event that blocks it.
    pub stopped: Option<BlockingEvent>,
}

/// Finds the selected blocked streams, in the order in which they have to be retried: apps before chats.
pub async fn blocked_streams(
    projections: &Projections,
    names: &[ProjectionName],
    selection: &DeadLetterSelection,
) -> Result<Vec<BlockedStream>, ProjectionsError> {
    let mut blocked_streams = Vec::new();
    for name in names {
        let generation_id = projections.live_generation(*name).await?;
        let resolved_selection = match selection {
            DeadLetterSelection::Event(position) => {
                match projections.dead_letter(generation_id, *position).await? {
                    Some(dead_letter) if dead_letter.discarded.is_none() => {
                        DeadLetterSelection::Stream(dead_letter.stream)
                    }
                    _ => continue,
                }
            }
            other => other.clone(),
        };
        collect_blocked_streams(projections, generation_id, &resolved_selection, &mut blocked_streams)
            .await?;
    }
    let is_app_stream = |stream: &str| matches!(StreamId::parse(stream), Ok(StreamId::App(_)));
    blocked_streams
        .sort_by_key(|blocked| (blocked.projection, !is_app_stream(&blocked.stream), blocked.position));
    Ok(blocked_streams)
}

/// Adds the selected blocked streams of one generation to `blocked_streams`. The caller replaces a
/// [`DeadLetterSelection::Event`] by its stream first.
async fn collect_blocked_streams(
    projections: &Projections,
    generation_id: ProjectionGeneration,
    selection: &DeadLetterSelection,
    blocked_streams: &mut Vec<BlockedStream>,
) -> Result<(), ProjectionsError> {
    let selected_app = match selection {
        DeadLetterSelection::Stream(stream) => match StreamId::parse(stream) {
            Ok(StreamId::App(app)) => Some(app),
            _ => None,
        },
        _ => None,
    };
    let is_selected = |stream: &str| match selection {
        DeadLetterSelection::Stream(name) if name == stream => true,
        DeadLetterSelection::Stream(_) => {
            matches!(StreamId::parse(stream), Ok(StreamId::Chat(app, _)) if Some(app) == selected_app)
        }
        _ => true,
    };
    // The streams of an app and its chats can't be queried together, so all streams are read and filtered.
    let queried_stream = match selection {
        DeadLetterSelection::Stream(stream) if selected_app.is_none() => Some(stream.clone()),
        _ => None,
    };
    let mut after = Position::START;
    loop {
        let query = DeadLetterQuery {
            after,
            limit: PAGE_LEN,
            filter: DeadLetterFilter::NeedsAttention,
            stream: queried_stream.clone(),
        };
        let page = projections.dead_letters(generation_id, query).await?;
        let Some(last) = page.dead_letters.last() else { return Ok(()) };
        after = last.dead_letter.position;
        for listed in page.dead_letters {
            if listed.dead_letter.discarded.is_none() && is_selected(&listed.dead_letter.stream) {
                blocked_streams.push(BlockedStream {
                    projection: generation_id.projection,
                    stream: listed.dead_letter.stream,
                    position: listed.dead_letter.position,
                    pending: 1 + listed.waiting_behind,
                });
            }
        }
    }
}

/// Plans to discard the dead letter at a position, in every projection in which it blocks its stream.
///
/// # Errors
/// [`ProjectionsError::NotFound`] if no projection has a pending dead letter at the position, or if every such dead
/// letter waits behind another one of its stream.
pub async fn plan_discard(
    projections: &Projections,
    names: &[ProjectionName],
    position: Position,
) -> Result<Vec<Resolution>, ProjectionsError> {
    // For an event of an app, this includes the blocked streams of its chats.
    let blocked_streams = blocked_streams(projections, names, &DeadLetterSelection::Event(position)).await?;
    let mut resolutions = Vec::new();
    let mut blocked_by = None;
    for name in names {
        let generation_id = projections.live_generation(*name).await?;
        let Some(dead_letter) = projections.dead_letter(generation_id, position).await? else { continue };
        let in_stream =
            |blocked: &&BlockedStream| blocked.projection == *name && blocked.stream == dead_letter.stream;
        for blocked in blocked_streams.iter().filter(in_stream) {
            if blocked.position == position {
                resolutions.push(Resolution { blocked_stream: blocked.clone(), discards_first: true });
            } else {
                blocked_by = Some(blocked.position);
            }
        }
    }
    match (resolutions.is_empty(), blocked_by) {
        (false, _) => Ok(resolutions),
        (true, Some(blocked_by)) => Err(ProjectionsError::NotFound(format!(
            "the event at position {position} waits behind the one at {blocked_by}; retry or discard that one first"
        ))),
        (true, None) => {
            Err(ProjectionsError::NotFound(missing_dead_letter(projections, names, position).await?))
        }
    }
}

/// Finds discarded dead letters that are not acknowledged: all, or the one at a position.
pub async fn unacknowledged_discards(
    projections: &Projections,
    names: &[ProjectionName],
    position: Option<Position>,
) -> Result<Vec<DeadLetterView>, ProjectionsError> {
    let mut discards = Vec::new();
    for name in names {
        let generation_id = projections.live_generation(*name).await?;
        let mut after =
            position.map_or(Position::START, |position| Position::new(position.get().saturating_sub(1)));
        loop {
            let query = DeadLetterQuery {
                after,
                limit: PAGE_LEN,
                filter: DeadLetterFilter::NeedsAttention,
                stream: None,
            };
            let page = projections.dead_letters(generation_id, query).await?;
            let Some(last) = page.dead_letters.last() else { break };
            after = last.dead_letter.position;
            let dead_letters =
                page.dead_letters.into_iter().map(|listed| DeadLetterView::from_listed(*name, listed));
            discards.extend(dead_letters.filter(|dead_letter| {
                dead_letter.state == DeadLetterState::Discarded
                    && position.is_none_or(|position| dead_letter.position == position)
            }));
            if position.is_some_and(|position| after >= position) {
                break;
            }
        }
    }
    Ok(discards)
}

/// Records an operator action for each resolution, and waits until the projections have applied them, up to `timeout`.
/// Fails if the log takes no appends.
pub async fn resolve(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    resolutions: Vec<Resolution>,
    timeout: Duration,
) -> Result<Vec<ResolutionOutcome>, ProjectionsError> {
    projections.ensure_log_takes_appends()?;
    let mut recorded = Vec::with_capacity(resolutions.len());
    for resolution in resolutions {
        let BlockedStream { projection, stream, position, .. } = resolution.blocked_stream.clone();
        let reason = reason.to_owned();
        let action: OperatorAction = if resolution.discards_first {
            DeadLetterDiscarded { projection, position, reason }.into()
        } else {
            DeadLettersRetried { projection, stream, reason }.into()
        };
        let action_position = record_action(&*projections.log, operator, &action).await?.position;
        recorded.push((resolution, action_position));
    }
    let deadline = Instant::now() + timeout;
    let mut outcomes = Vec::with_capacity(recorded.len());
    for (Resolution { blocked_stream, discards_first }, action_position) in recorded {
        let generation_id = projections.live_generation(blocked_stream.projection).await?;
        let is_applied = wait_until_applied(projections, generation_id, action_position, deadline).await?;
        // Until the action is applied, its discard is expected. An applied action may have discarded nothing, because
        // another operator's action came first.
        let has_discarded = discards_first
            && (!is_applied
                || projections
                    .dead_letter(generation_id, blocked_stream.position)
                    .await?
                    .and_then(|dead_letter| dead_letter.discarded)
                    .is_some_and(|discarded| discarded.by == action_position));
        let outcome = if is_applied {
            Some(retry_outcome(projections, generation_id, &blocked_stream, has_discarded).await?)
        } else {
            None
        };
        outcomes.push(ResolutionOutcome {
            projection: blocked_stream.projection,
            stream: blocked_stream.stream,
            discarded: has_discarded.then_some(blocked_stream.position),
            action_position,
            outcome,
        });
    }
    Ok(outcomes)
}

/// Records the acknowledgement of discards, and waits up to `timeout` until the projections have applied it. Returns
/// whether all of them have applied it. Fails if the log takes no appends.
pub async fn acknowledge(
    projections: &Projections,
    operator: &Operator,
    reason: &str,
    dead_letters: &[DeadLetterView],
    timeout: Duration,
) -> Result<bool, ProjectionsError> {
    projections.ensure_log_takes_appends()?;
    let mut recorded = Vec::with_capacity(dead_letters.len());
    for dead_letter in dead_letters {
        let action: OperatorAction = DiscardAcknowledged {
            projection: dead_letter.projection,
            position: dead_letter.position,
            reason: reason.to_owned(),
        }
        .into();
        recorded.push((
            dead_letter.projection,
            record_action(&*projections.log, operator, &action).await?.position,
        ));
    }
    let deadline = Instant::now() + timeout;
    let mut are_all_applied = true;
    for (projection, action_position) in recorded {
        let generation_id = projections.live_generation(projection).await?;
        are_all_applied &= wait_until_applied(projections, generation_id, action_position, deadline).await?;
    }
    Ok(are_all_applied)
}

/// Reads the state of a stream after a retry, or after the discard of its first dead letter. `before` is the state of
/// the blocked stream before the retry or discard.
async fn retry_outcome(
    projections: &Projections,
    generation_id: ProjectionGeneration,
    before: &BlockedStream,
    has_discarded: bool,
) -> Result<StreamRetryOutcome, ProjectionsError> {
    let mut blocked_streams = Vec::new();
    collect_blocked_streams(
        projections,
        generation_id,
        &DeadLetterSelection::Stream(before.stream.clone()),
        &mut blocked_streams,
    )
    .await?;
    let after = blocked_streams.into_iter().find(|blocked| blocked.stream == before.stream);
    let pending = after.as_ref().map_or(0, |after| after.pending);
    let stopped = match after {
        Some(after) => projections.dead_letter(generation_id, after.position).await?,
        None => None,
    };
    Ok(StreamRetryOutcome {
        applied: before.pending.saturating_sub(pending + u64::from(has_discarded)),
        pending,
        stopped: stopped.map(|dead_letter| BlockingEvent {
            position: dead_letter.position,
            event_type: dead_letter.event_type,
            reason: dead_letter.reason,
        }),
    })
}

/// Waits until a generation has reached an operator action, and returns `false` at the deadline. Advances the
/// generation in this process if no projector runs.
async fn wait_until_applied(
    projections: &Projections,
    generation_id: ProjectionGeneration,
    action_position: Position,
    deadline: Instant,
) -> Result<bool, ProjectionsError> {
    let store = projections.store(generation_id);
    let mut next_attempt_at = Instant::now();
    loop {
        if projections.position(generation_id).await? >= action_position {
            return Ok(true);
        }
        if Instant::now() >= next_attempt_at {
            match advance_up_to(projections, &*store, action_position).await {
                Ok(()) => return Ok(true),
                Err(ProjectionError::InUse) => {}
                Err(source) => return Err(projection_error(generation_id, &store, source)),
            }
            next_attempt_at = Instant::now() + TAKE_OVER_INTERVAL;
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn advance_up_to(
    projections: &Projections,
    store: &dyn ProjectionStore,
    up_to: Position,
) -> Result<(), ProjectionError> {
    let (mut projection, _) = store.open().await?;
    let log_id = ensure_log_matches(&mut *projection, &*projections.log).await?;
    loop {
        let from = projection.checkpoint().position;
        if from >= up_to {
            return Ok(());
        }
        let mut events = projections.log.read_all(from, PAGE_LEN).await?;
        events.retain(|event| event.position <= up_to);
        let last = events.last().map_or(up_to, |event| event.position);
        advance_projection(&mut *projection, &*projections.log, log_id, events, last).await?;
    }
}
