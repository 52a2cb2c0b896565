//! Removing generations that readers don't see.

use chat_domain::Position;
use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName, ProjectionsDropped};
use chat_projector::generations::GenerationState;
use chat_projector::projection::ProjectionError;
use serde::Serialize;

use super::handover::has_active_projector;
use super::{GenerationName, Projections, ProjectionsError, projection_error};
use crate::operator_actions::{self, Operator};

/// What dropping would remove, or has removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DropReport {
    /// The generations.
    pub generations: Vec<DroppedGeneration>,
    /// Where the act is in the log; `None` where nothing was done.
    pub position: Option<Position>,
}

/// A generation that is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DroppedGeneration {
    /// Which one.
    #[serde(flatten)]
    pub named: GenerationName,
    /// What it is to readers.
    pub standing: Option<GenerationState>,
    /// Where it is.
    pub place: String,
    /// How many bytes of disk it takes.
    pub bytes: Option<u64>,
}

/// Removes one generation, or all that are left over. Without an operator, only says what would be removed.
///
/// What readers see is never removed. The generation that a rollback would go back to, and one that is being built, are
/// only removed by number. A number that was dropped before is taken, too: its place may still be on this machine.
pub async fn drop_generations(
    projections: &Projections,
    names: &[ProjectionName],
    generation: Option<Generation>,
    executed_by: Option<(&Operator, String)>,
) -> Result<DropReport, ProjectionsError> {
    let known = projections.generations().await?;
    let mut found = Vec::new();
    for name in names {
        let line = known.for_projection(*name);
        let standing_of = |wanted| line.all().into_iter().find(|(is, _)| *is == wanted).map(|(_, what)| what);
        match generation {
            Some(wanted) if wanted == line.live => {
                let name = name.as_str();
                return Err(ProjectionsError::NotFound(format!(
                    "readers see generation {} of {name}",
                    wanted.0
                )));
            }
            Some(wanted) if wanted >= line.next_generation() || wanted.0 == 0 => {}
            Some(wanted) => found
                .push((ProjectionGeneration { projection: *name, generation: wanted }, standing_of(wanted))),
            None => found.extend(
                line.all().into_iter().filter(|(_, standing)| *standing == GenerationState::LeftOver).map(
                    |(generation, standing)| {
                        (ProjectionGeneration { projection: *name, generation }, Some(standing))
                    },
                ),
            ),
        }
    }
    let mut generations = Vec::new();
    for (copy, standing) in &found {
        let place = projections.location(*copy);
        generations.push(DroppedGeneration {
            named: (*copy).into(),
            standing: *standing,
            place: place.to_string(),
            bytes: place.size_in_bytes().await,
        });
    }
    let Some((operator, reason)) = executed_by.filter(|_| !found.is_empty()) else {
        return Ok(DropReport { generations, position: None });
    };
    for (copy, _) in &found {
        if has_active_projector(projections, *copy).await {
            return Err(busy_error(*copy));
        }
    }
    let copies = found.iter().map(|(copy, _)| *copy).collect();
    let act = ProjectionsDropped { copies, reason }.into();
    let recorded = operator_actions::record_action(&*projections.log, operator, &act).await?;
    // Somebody may have promoted one of them in between: the order of the log says that it was not dropped then.
    let now = projections.generations().await?;
    for (copy, _) in &found {
        if now.for_projection(copy.projection).live == copy.generation {
            continue;
        }
        let place = projections.location(*copy);
        place.remove().await.map_err(|error| match error {
            ProjectionError::InUse => busy_error(*copy),
            error => projection_error(*copy, &place, error),
        })?;
    }
    Ok(DropReport { generations, position: Some(recorded.position) })
}

fn busy_error(copy: ProjectionGeneration) -> ProjectionsError {
    ProjectionsError::Busy(format!(
        "a projector still works on generation {} of {}; after a switch it goes on for as long as --keep-previous says",
        copy.generation.0,
        copy.projection.as_str()
    ))
}
