//! What acts would come to: they are carried out beside the running projector, and nothing of it is stored.

use chat_domain::Position;
use chat_domain::operator_action::ProjectionName;
use chat_ports::clock;
use chat_projector::dead_letters::{DeadLetterAction, DeadLetterActionKind, apply_action};
use serde::Serialize;
use utoipa::ToSchema;

use super::resolve::{BlockedStream, Resolution};
use super::{BlockingEvent, blocking_event};
use crate::projections::{Projections, ProjectionsError, projection_error};

/// Streams that are tried in one go, at most: the projector waits for as long.
pub const MAX_STREAMS: usize = 100;

/// What an act would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RetryTrial)]
pub struct RetryDryRun {
    /// In which projection.
    #[schema(value_type = String)]
    pub projection: ProjectionName,
    /// Of which stream.
    pub stream: String,
    /// The first event of it that is parked.
    #[schema(value_type = u64)]
    pub position: Position,
    /// How many are parked.
    pub parked: u64,
    /// How many would be applied.
    pub would_apply: u64,
    /// Whether the first would be given up.
    pub would_discard: bool,
    /// Where the stream would stop again.
    pub would_stop: Option<BlockingEvent>,
    /// Whether all of the stream was tried. A trial is short, and goes no further than some hundred events.
    pub complete: bool,
}

/// Tries steps out, one after another, each on what the one before would leave: a chat's messages can be applied once its
/// app's stream has made the chat. Goes through [`STREAMS`] of them at most.
pub async fn dry_run(
    projections: &Projections,
    steps: &[Resolution],
) -> Result<Vec<RetryDryRun>, ProjectionsError> {
    let log = projections.log.log_id().await?;
    let mut tried = Vec::new();
    for name in ProjectionName::ALL {
        let copy = projections.live_generation(name).await?;
        let place = projections.location(copy);
        let mut trial = None;
        for step in steps.iter().filter(|step| step.blocked_stream.projection == name).take(MAX_STREAMS) {
            if trial.is_none() {
                trial = Some(
                    place.open_dry_run().await.map_err(|source| projection_error(copy, &place, source))?,
                );
            }
            let Some(trial) = trial.as_mut() else { continue };
            let BlockedStream { projection, stream, position, parked } = step.blocked_stream.clone();
            let deed = if step.discards_first {
                DeadLetterActionKind::Discard { event: position, reason: String::new() }
            } else {
                DeadLetterActionKind::Retry { stream: stream.clone() }
            };
            // As if it came next in the log.
            let act = DeadLetterAction {
                position: trial.checkpoint().position,
                recorded_at: clock::now(),
                kind: deed,
            };
            let outcome = apply_action(trial.dead_letter_queue(), &*projections.log, log, &act, 1).await;
            let outcome = outcome.map_err(|source| projection_error(copy, &place, source))?;
            tried.push(RetryDryRun {
                projection,
                stream,
                position,
                parked,
                would_apply: outcome.applied,
                would_discard: outcome.has_discarded_or_acknowledged,
                would_stop: blocking_event(&outcome),
                complete: outcome.is_complete,
            });
        }
    }
    Ok(tried)
}
