//! Lists generations with the state of their projectors and their lag.

use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use chat_ports::event_store::LogLineage;
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use chat_projector::generations::GenerationState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::context::{Projections, find_mismatch};
use super::error::ProjectionsError;
use crate::envelope::{Diagnostic, Report};

/// The generations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ProjectionGenerations)]
pub struct GenerationList {
    /// Every generation that was not dropped.
    pub generations: Vec<ListedGeneration>,
}

/// A generation of a projection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ProjectionGeneration)]
pub struct ListedGeneration {
    /// The projection's name.
    #[schema(value_type = String, example = "read_model")]
    pub projection: ProjectionName,
    /// The number of the generation.
    #[schema(value_type = u32)]
    pub generation: Generation,
    /// Whether it is live, the previous one, being built, or left over.
    #[schema(value_type = String, example = "live")]
    #[serde(rename = "standing")]
    pub generation_state: GenerationState,
    /// The version of the tables or index fields that this program uses for the projection.
    pub version: u32,
    /// Its location.
    #[serde(rename = "place")]
    pub location: String,
    /// The state of its projector, by its last heartbeat.
    pub state: ListedProjectorState,
    /// The position up to which it is built; `None` if it can't be read.
    #[schema(value_type = Option<u64>)]
    pub position: Option<Position>,
    /// The last position of the log.
    #[schema(value_type = u64)]
    pub head: Position,
    /// The number of events it lacks; `None` if positions do not count events, or its position can't be read.
    pub lag_events: Option<u64>,
    /// The age in milliseconds of the first event it lacks, 0 if it lacks none; `None` if its position can't be read.
    pub lag_ms: Option<u64>,
    /// Events applied per second, by the last heartbeat of its projector.
    pub events_per_second: Option<u64>,
    /// The last error of its projector, or why the generation can't be read or used.
    pub last_error: Option<String>,
    /// The number of dead letters that wait for a retry; `None` if it can't be read.
    #[serde(rename = "parked")]
    pub pending_dead_letters: Option<u64>,
    /// Whether it has events that the log has lost, so that it can't be used: `last_error` says more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beyond_log: bool,
}

impl GenerationList {
    fn missing_live(&self) -> impl Iterator<Item = &ListedGeneration> {
        self.generations.iter().filter(|listed| {
            listed.generation_state == GenerationState::Live && listed.state == ListedProjectorState::Missing
        })
    }
}

impl Report for GenerationList {
    /// Whether a live generation is missing, or a generation has events that the log has lost.
    fn has_findings(&self) -> bool {
        self.missing_live().next().is_some() || self.generations.iter().any(|listed| listed.beyond_log)
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let warning = |ListedGeneration { projection, generation, location, .. }: &ListedGeneration| {
            let option = match projection {
                ProjectionName::ReadModel => "DATABASE_URL",
                ProjectionName::SearchIndex => "SEARCH_INDEX_DIR",
            };
            Diagnostic::warning(format!(
                "the live generation {} of {} can't be read at {location}. If it is elsewhere, set {option} and --data-dir as \
                 the processes have them; if not, a projector builds it there",
                generation.0,
                projection.as_str()
            ))
        };
        self.missing_live().map(warning).collect()
    }
}

/// The state of the projector of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProjectorState)]
pub enum ListedProjectorState {
    /// It applies new events.
    Live,
    /// It works through a backlog, or a standby is about to take over.
    CatchingUp,
    /// It builds the generation from the start of the log.
    Rebuilding,
    /// It applies new events, and there are dead letters.
    #[serde(rename = "parked")]
    HasDeadLetters,
    /// It waits for a dependency that is unavailable.
    Waiting,
    /// No projector runs.
    NotRunning,
    /// The generation is not on this machine, does not exist yet, or can't be read.
    Missing,
}

impl ListedProjectorState {
    /// Returns the state's name in output for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchingUp => "catching up",
            Self::Rebuilding => "rebuilding",
            Self::HasDeadLetters => "parked",
            Self::Waiting => "waiting",
            Self::NotRunning => "not running",
            Self::Missing => "missing",
        }
    }

    fn from_heartbeat(
        heartbeat: &Heartbeat,
        generation_state: GenerationState,
        pending_dead_letters: u64,
    ) -> Self {
        match heartbeat.state.as_str() {
            "waiting" => Self::Waiting,
            _ if generation_state == GenerationState::Building => Self::Rebuilding,
            "rebuilding" => Self::Rebuilding,
            "catching_up" => Self::CatchingUp,
            _ if pending_dead_letters > 0 => Self::HasDeadLetters,
            _ => Self::Live,
        }
    }
}

/// Lists all generations that were not dropped.
pub async fn list(projections: &Projections) -> Result<Vec<ListedGeneration>, ProjectionsError> {
    let generations = projections.generations().await?;
    let head = projections.log.head().await?;
    let lineage = projections.log.lineage().await?;
    let mut listed = Vec::new();
    for name in ProjectionName::ALL {
        for (generation, generation_state) in generations.for_projection(name).all() {
            listed.push(
                describe_generation(
                    projections,
                    ProjectionGeneration { projection: name, generation },
                    generation_state,
                    (&lineage, head),
                )
                .await?,
            );
        }
    }
    Ok(listed)
}

async fn describe_generation(
    projections: &Projections,
    generation_id: ProjectionGeneration,
    generation_state: GenerationState,
    (lineage, head): (&LogLineage, Position),
) -> Result<ListedGeneration, ProjectionsError> {
    let store = projections.store(generation_id);
    let now = clock::now();
    let recent_heartbeat =
        async |role| store.heartbeat(role).await.filter(|heartbeat| heartbeat.is_recent(now));
    let heartbeat = recent_heartbeat(ProjectorRole::Active).await;
    let read_progress = async {
        Ok::<_, chat_projector::projection::ProjectionError>((
            store.checkpoint().await?,
            store.dead_letter_count().await?,
        ))
    };
    let mut beyond_log = false;
    let (position, pending_dead_letters, unusable) = match read_progress.await {
        Ok((checkpoint, pending_dead_letters)) => {
            // Events may have been appended and applied since the head was read.
            let head = head.max(projections.log.head().await?);
            let mismatch = find_mismatch(&checkpoint, lineage, head);
            beyond_log = mismatch.is_some();
            let unusable = mismatch.map(|mismatch| format!("beyond the log, can't be used: {mismatch}"));
            (Some(checkpoint.position), Some(pending_dead_letters), unusable)
        }
        Err(error) => (None, None, Some(error.to_string())),
    };
    let state = match (&heartbeat, position) {
        (Some(heartbeat), _) => ListedProjectorState::from_heartbeat(
            heartbeat,
            generation_state,
            pending_dead_letters.unwrap_or(0),
        ),
        // A standby takes over within a fraction of a second.
        (None, Some(_)) if recent_heartbeat(ProjectorRole::Standby).await.is_some() => {
            ListedProjectorState::CatchingUp
        }
        (None, Some(_)) => ListedProjectorState::NotRunning,
        (None, None) => ListedProjectorState::Missing,
    };
    let head = head.max(position.unwrap_or_default());
    Ok(ListedGeneration {
        projection: generation_id.projection,
        generation: generation_id.generation,
        generation_state,
        version: format_version(generation_id.projection),
        location: store.to_string(),
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
        events_per_second: heartbeat.as_ref().map(|heartbeat| heartbeat.events_per_second),
        // That a generation can't be used matters more than the last error of its projector.
        last_error: unusable.or_else(|| heartbeat.and_then(|heartbeat| heartbeat.last_error)),
        pending_dead_letters,
        beyond_log,
    })
}

fn format_version(projection: ProjectionName) -> u32 {
    match projection {
        ProjectionName::ReadModel => chat_sql::tables::SCHEMA_VERSION.unsigned_abs(),
        ProjectionName::SearchIndex => chat_search::VERSION,
    }
}

/// Returns the age in milliseconds of the first event after a position, or 0 if there is no such event.
async fn lag_ms_after(
    projections: &Projections,
    position: Position,
    now: Timestamp,
) -> Result<u64, ProjectionsError> {
    let next = projections.log.read_all(position, 1).await?;
    let age = next.first().map_or(0, |event| now.millis().saturating_sub(event.recorded_at.millis()));
    Ok(u64::try_from(age).unwrap_or(0))
}
