//! Dropping generations that are not live.

use chat_domain::Position;
use chat_domain::operator_action::ProjectionsDropped;
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_projector::generations::GenerationState;
use chat_projector::projection::ProjectionError;
use serde::{Deserialize, Serialize};

use super::context::{GenerationName, Projections};
use super::error::{ProjectionsError, projection_error};
use super::handover::has_active_projector;
use crate::envelope::Diagnostic;
use crate::operator_actions::{self, Operator};

/// The generations that dropping would remove, or has removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReport {
    /// The generations.
    pub generations: Vec<DroppedGeneration>,
    /// The other generations of the same projections, which stay.
    pub kept: Vec<KeptGeneration>,
    /// The position of the operator action; `None` if nothing was done.
    pub position: Option<Position>,
}

impl DropReport {
    /// Whether nothing was done yet, and a projector works on one of the generations, so that the drop would be refused.
    pub fn has_findings(&self) -> bool {
        self.position.is_none() && self.generations.iter().any(|generation| generation.in_use)
    }

    /// Returns a warning for each generation because of which the drop would be refused.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let in_use =
            self.generations.iter().filter(|generation| self.position.is_none() && generation.in_use);
        let warning = |generation: &DroppedGeneration| {
            let name = generation.named;
            Diagnostic::warning(format!(
                "the drop would be refused: a projector of the running system works on {name}"
            ))
        };
        in_use.map(warning).collect()
    }
}

/// A generation that was removed, or that a dry run would remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedGeneration {
    /// The generation.
    #[serde(flatten)]
    pub named: GenerationName,
    /// Its state; `None` if it was dropped before.
    #[serde(rename = "standing")]
    pub generation_state: Option<GenerationState>,
    /// Its location.
    #[serde(rename = "place")]
    pub location: String,
    /// Its size on disk.
    pub bytes: Option<u64>,
    /// Whether a projector of the running system works on it. It can't be dropped before the projector stops.
    pub in_use: bool,
}

/// A generation that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGeneration {
    /// The generation.
    #[serde(flatten)]
    pub named: GenerationName,
    /// Its state.
    #[serde(rename = "standing")]
    pub generation_state: GenerationState,
    /// Whether it has events that the log has lost, so that it can't become live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beyond_log: bool,
}

/// Drops the generation with the number `requested`, or all left-over generations. Without `executed_by`, this is a dry
/// run.
///
/// The live generation is never dropped. The generation that a rollback would return to, and one that is being built,
/// are dropped only by number. The number of an already dropped generation is accepted, too, while its files are still
/// on this machine.
pub async fn drop_generations(
    projections: &Projections,
    names: &[ProjectionName],
    requested: Option<Generation>,
    executed_by: Option<(&Operator, String)>,
) -> Result<DropReport, ProjectionsError> {
    let generations = projections.generations().await?;
    let (mut selected, mut all) = (Vec::new(), Vec::new());
    for name in names {
        let projection = generations.for_projection(*name);
        let state_of = |number| {
            projection.all().into_iter().find(|(candidate, _)| *candidate == number).map(|(_, state)| state)
        };
        all.extend(
            projection
                .all()
                .into_iter()
                .map(|(generation, state)| (ProjectionGeneration { projection: *name, generation }, state)),
        );
        match requested {
            Some(number) if number == projection.live => {
                let name = name.as_str();
                return Err(ProjectionsError::NotFound(format!("generation {} of {name} is live", number.0)));
            }
            // A generation of this number was never built.
            Some(number) if number >= projection.next_generation() || number.0 == 0 => {}
            Some(number) => {
                let generation_id = ProjectionGeneration { projection: *name, generation: number };
                let state = state_of(number);
                // Of a generation that was dropped before, something may still be stored at this machine.
                if state.is_some() || is_stored(projections, generation_id).await? {
                    selected.push((generation_id, state));
                }
            }
            None => selected.extend(
                projection.all().into_iter().filter(|(_, state)| *state == GenerationState::LeftOver).map(
                    |(generation, state)| {
                        (ProjectionGeneration { projection: *name, generation }, Some(state))
                    },
                ),
            ),
        }
    }
    if let Some(number) = requested.filter(|_| selected.is_empty()) {
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        return Err(ProjectionsError::NotFound(format!(
            "there is no generation {} of {}, or it was dropped; `projections list` lists them",
            number.0,
            names.join(" or ")
        )));
    }
    let kept = all.into_iter().filter(|(id, _)| !selected.iter().any(|(selected_id, _)| selected_id == id));
    let kept_ids: Vec<(ProjectionGeneration, GenerationState)> = kept.collect();
    let mut kept = Vec::new();
    for (id, state) in kept_ids {
        let beyond_log = projections.mismatch_with_log(id).await?.is_some();
        kept.push(KeptGeneration { named: id.into(), generation_state: state, beyond_log });
    }
    let mut dropped = Vec::new();
    for (generation_id, state) in &selected {
        let store = projections.store(*generation_id);
        dropped.push(DroppedGeneration {
            named: (*generation_id).into(),
            generation_state: *state,
            location: store.to_string(),
            bytes: store.size_in_bytes().await,
            in_use: has_active_projector(projections, *generation_id).await,
        });
    }
    let Some((operator, reason)) = executed_by.filter(|_| !selected.is_empty()) else {
        return Ok(DropReport { generations: dropped, kept, position: None });
    };
    projections.ensure_log_takes_appends()?;
    if let Some(((generation_id, _), _)) =
        selected.iter().zip(&dropped).find(|(_, described)| described.in_use)
    {
        return Err(ProjectionsError::in_use(*generation_id));
    }
    let generations = selected.iter().map(|(generation_id, _)| *generation_id).collect();
    let action = ProjectionsDropped { generations, reason }.into();
    let recorded = operator_actions::record_action(&*projections.log, operator, &action).await?;
    // Another operator may have promoted a selected generation before this action was recorded. The promotion is then
    // earlier in the log, so the generation is live and stays.
    let generations_now = projections.generations().await?;
    let is_live =
        |id: ProjectionGeneration| generations_now.for_projection(id.projection).live == id.generation;
    for (generation_id, _) in &selected {
        if is_live(*generation_id) {
            kept.push(KeptGeneration {
                named: (*generation_id).into(),
                generation_state: GenerationState::Live,
                beyond_log: false,
            });
            dropped.retain(|described| described.named != GenerationName::from(*generation_id));
            continue;
        }
        let store = projections.store(*generation_id);
        store.remove().await.map_err(|error| match error {
            ProjectionError::InUse => ProjectionsError::in_use(*generation_id),
            error => projection_error(*generation_id, &store, error),
        })?;
    }
    Ok(DropReport { generations: dropped, kept, position: Some(recorded.position) })
}

async fn is_stored(
    projections: &Projections,
    generation_id: ProjectionGeneration,
) -> Result<bool, ProjectionsError> {
    let stored = projections.locations.stored_generations(generation_id.projection).await;
    let stored = stored
        .map_err(|source| projection_error(generation_id, &projections.store(generation_id), source))?;
    Ok(stored.contains(&generation_id.generation))
}
