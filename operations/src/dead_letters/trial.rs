//! What acts would come to: they are carried out beside the running projector, and nothing of it is stored.

use chat_domain::Position;
use chat_domain::operation::ProjectionName;
use chat_ports::clock;
use chat_projector::letters::{Act, Deed, carry_out};
use serde::Serialize;
use utoipa::ToSchema;

use super::decide::{Parked, Step};
use super::{Stop, stop};
use crate::projections::{Projections, ProjectionsError, failed};

/// Streams that are tried in one go, at most: the projector waits for as long.
pub const STREAMS: usize = 100;

/// What an act would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RetryTrial)]
pub struct Tried {
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
    pub would_stop: Option<Stop>,
    /// Whether all of the stream was tried. A trial is short, and goes no further than some hundred events.
    pub complete: bool,
}

/// Tries steps out, one after another, each on what the one before would leave: a chat's messages can be applied once its
/// app's stream has made the chat. Goes through [`STREAMS`] of them at most.
pub async fn try_out(projections: &Projections, steps: &[Step]) -> Result<Vec<Tried>, ProjectionsError> {
    let log = projections.log.log_id().await?;
    let mut tried = Vec::new();
    for name in ProjectionName::ALL {
        let copy = projections.live(name).await?;
        let place = projections.place(copy);
        let mut trial = None;
        for step in steps.iter().filter(|step| step.parked.projection == name).take(STREAMS) {
            if trial.is_none() {
                trial = Some(place.try_out().await.map_err(|source| failed(copy, &place, source))?);
            }
            let Some(trial) = trial.as_mut() else { continue };
            let Parked { projection, stream, position, parked } = step.parked.clone();
            let deed = if step.discard {
                Deed::Discard { event: position, reason: String::new() }
            } else {
                Deed::Retry { stream: stream.clone() }
            };
            // As if it came next in the log.
            let act = Act { position: trial.checkpoint().position, at: clock::now(), deed };
            let outcome = carry_out(trial.letter_box(), &*projections.log, log, &act, 1).await;
            let outcome = outcome.map_err(|source| failed(copy, &place, source))?;
            tried.push(Tried {
                projection,
                stream,
                position,
                parked,
                would_apply: outcome.applied,
                would_discard: outcome.marked,
                would_stop: stop(&outcome),
                complete: outcome.complete,
            });
        }
    }
    Ok(tried)
}
