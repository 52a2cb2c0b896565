//! Which generations there are, and how they are getting on.

use chat_domain::operator_action::{Generation, ProjectionGeneration, ProjectionName};
use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use chat_projector::generations::GenerationState;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Projections, ProjectionsError};

/// A generation of a projection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Listed {
    /// The projection's name.
    #[schema(value_type = String, example = "read_model")]
    pub name: ProjectionName,
    /// Which generation.
    #[schema(value_type = u32)]
    pub generation: Generation,
    /// What it is to readers.
    #[schema(value_type = String, example = "live")]
    pub standing: GenerationState,
    /// The version of its tables or fields that this program reads and writes.
    pub version: u32,
    /// Where it is.
    pub place: String,
    /// What its projector is doing, told by what it last said of itself.
    pub state: ListedProjectorState,
    /// Up to where it has folded the log; `None` where it can't be read.
    #[schema(value_type = Option<u64>)]
    pub position: Option<Position>,
    /// The end of the log.
    #[schema(value_type = u64)]
    pub head: Position,
    /// Events that it lacks; `None` where the store does not count them.
    pub lag_events: Option<u64>,
    /// The age of the first event that it lacks, in milliseconds.
    pub lag_ms: Option<u64>,
    /// Events folded in a second, as its projector last said.
    pub events_per_second: Option<u64>,
    /// What keeps its projector from going on, or why it can't be read.
    pub last_error: Option<String>,
    /// Events that are parked.
    pub parked: Option<u64>,
}

/// What the projector of a generation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProjectorState)]
pub enum ListedProjectorState {
    /// It folds events as they come.
    Live,
    /// It folds a backlog.
    CatchingUp,
    /// It folds the log from its start.
    Rebuilding,
    /// It folds events as they come, and some are parked.
    Parked,
    /// Something that it needs is out of reach.
    Waiting,
    /// There is none.
    NotRunning,
    /// The generation is not on this machine, or not there yet.
    Missing,
}

impl ListedProjectorState {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchingUp => "catching up",
            Self::Rebuilding => "rebuilding",
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::NotRunning => "not running",
            Self::Missing => "missing",
        }
    }

    fn from_heartbeat(notice: &Heartbeat, standing: GenerationState, parked: u64) -> Self {
        match notice.state.as_str() {
            "waiting" => Self::Waiting,
            _ if standing == GenerationState::Building => Self::Rebuilding,
            "rebuilding" => Self::Rebuilding,
            "catching_up" => Self::CatchingUp,
            _ if parked > 0 => Self::Parked,
            _ => Self::Live,
        }
    }
}

/// Lists the generations of the projections: the live one of each, and all others that were not dropped.
pub async fn list(projections: &Projections) -> Result<Vec<Listed>, ProjectionsError> {
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let mut listed = Vec::new();
    for name in ProjectionName::ALL {
        for (generation, standing) in generations.for_projection(name).all() {
            listed.push(
                describe_generation(
                    projections,
                    ProjectionGeneration { projection: name, generation },
                    standing,
                    head,
                )
                .await?,
            );
        }
    }
    Ok(listed)
}

async fn describe_generation(
    projections: &Projections,
    copy: ProjectionGeneration,
    standing: GenerationState,
    head: Position,
) -> Result<Listed, ProjectionsError> {
    let place = projections.location(copy);
    let now = clock::now();
    let notice = place.heartbeat(ProjectorRole::Active).await.filter(|notice| notice.is_fresh(now));
    let found = async {
        Ok::<_, chat_projector::projection::ProjectionError>((
            place.position().await?,
            place.dead_letter_count().await?,
        ))
    };
    let (position, parked, unreadable) = match found.await {
        Ok((position, parked)) => (Some(position), Some(parked), None),
        Err(error) => (None, None, Some(error.to_string())),
    };
    let state = match (&notice, position) {
        (Some(notice), _) => ListedProjectorState::from_heartbeat(notice, standing, parked.unwrap_or(0)),
        (None, Some(_)) => ListedProjectorState::NotRunning,
        (None, None) => ListedProjectorState::Missing,
    };
    let head = head.max(position.unwrap_or_default());
    Ok(Listed {
        name: copy.projection,
        generation: copy.generation,
        standing,
        version: format_version(copy.projection),
        place: place.to_string(),
        state,
        position,
        head,
        lag_events: position
            .filter(|_| projections.log.has_contiguous_positions())
            .map(|position| head.get().saturating_sub(position.get())),
        lag_ms: match position {
            Some(position) => Some(lag_ms_after(projections, position, now).await?),
            None => None,
        },
        events_per_second: notice.as_ref().map(|notice| notice.events_per_second),
        last_error: notice.and_then(|notice| notice.last_error).or(unreadable),
        parked,
    })
}

fn format_version(projection: ProjectionName) -> u32 {
    match projection {
        ProjectionName::ReadModel => chat_sql::tables::SCHEMA_VERSION.unsigned_abs(),
        ProjectionName::SearchIndex => chat_search::VERSION,
    }
}

/// The age of the first event after a position; 0 where there is none.
async fn lag_ms_after(
    projections: &Projections,
    position: Position,
    now: Timestamp,
) -> Result<u64, ProjectionsError> {
    let next = projections.log.read_all(position, 1).await?;
    let age = next.first().map_or(0, |event| now.millis().saturating_sub(event.recorded_at.millis()));
    Ok(u64::try_from(age).unwrap_or(0))
}
