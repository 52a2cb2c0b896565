//! Dry runs of operator actions on dead letters: applied without storing the result.

use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_ports::clock;
use chat_projector::dead_letters::{DeadLetterAction, DeadLetterActionKind, apply_action};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::resolve::{BlockedStream, Resolution};
use super::{BlockingEvent, blocking_event};
use crate::projections::{Projections, ProjectionsError, projection_error};

/// The maximal number of streams that one dry run tries in each projection. It keeps a dry run short: a projector that
/// writes to a SQL engine can't commit until the dry run ends.
pub const MAX_STREAMS: usize = 100;

/// The maximal number of chunks of dead letters that a dry run tries in each stream.
const MAX_CHUNKS: usize = 1;

/// The predicted outcome of a retry of a blocked stream, or of the discard of its first dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RetryTrial)]
pub struct ResolutionDryRun {
    /// The projection.
    #[schema(value_type = String)]
    pub projection: ProjectionName,
    /// The blocked stream.
    pub stream: String,
    /// The position of its first dead letter.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The number of its dead letters.
    #[serde(rename = "parked")]
    pub pending: u64,
    /// The number of events that would be applied.
    pub would_apply: u64,
    /// Whether the first dead letter would be discarded.
    pub would_discard: bool,
    /// The event that would block the stream again.
    pub would_stop: Option<BlockingEvent>,
    /// Whether the stream was tried up to its end or to `would_stop`. A dry run tries at most 512 events of a stream.
    pub complete: bool,
}

/// Predicts the outcome of resolutions, at most [`MAX_STREAMS`] for each projection.
///
/// Each resolution is applied to the results of the previous ones. For example, the messages of a chat can be applied
/// after the event of the app's stream that creates the chat.
pub async fn dry_run(
    projections: &Projections,
    resolutions: &[Resolution],
) -> Result<Vec<ResolutionDryRun>, ProjectionsError> {
    let log_id = projections.log.log_id().await?;
    let mut outcomes = Vec::new();
    for name in ProjectionName::ALL {
        let generation_id = projections.live_generation(name).await?;
        let store = projections.store(generation_id);
        let mut projection_dry_run = None;
        for resolution in resolutions
            .iter()
            .filter(|resolution| resolution.blocked_stream.projection == name)
            .take(MAX_STREAMS)
        {
            if projection_dry_run.is_none() {
                projection_dry_run = Some(
                    store
                        .open_dry_run()
                        .await
                        .map_err(|source| projection_error(generation_id, &store, source))?,
                );
            }
            let Some(dry_run) = projection_dry_run.as_mut() else { continue };
            let BlockedStream { projection, stream, position, pending } = resolution.blocked_stream.clone();
            let kind = if resolution.discards_first {
                DeadLetterActionKind::Discard { event: position, reason: String::new() }
            } else {
                DeadLetterActionKind::Retry { stream: stream.clone() }
            };
            // The incarnation that the projector has adopted, which may be older than the log's current one.
            let checkpoint_log_id = dry_run.checkpoint().log.unwrap_or(log_id);
            // The action is not in the log, so the position of the checkpoint stands in for its own.
            let action =
                DeadLetterAction { position: dry_run.checkpoint().position, recorded_at: clock::now(), kind };
            let outcome = apply_action(
                dry_run.dead_letter_queue(),
                &*projections.log,
                checkpoint_log_id,
                &action,
                MAX_CHUNKS,
            )
            .await;
            let outcome = outcome.map_err(|source| projection_error(generation_id, &store, source))?;
            outcomes.push(ResolutionDryRun {
                projection,
                stream,
                position,
                pending,
                would_apply: outcome.applied,
                would_discard: outcome.has_discarded_or_acknowledged,
                would_stop: blocking_event(&outcome),
                complete: outcome.is_complete,
            });
        }
    }
    Ok(outcomes)
}
