//! Shows one dead letter in full.

use chat_domain::projection::ProjectionName;
use chat_domain::{Position, Revision};
use chat_ports::event_store::{ReadStart, RecordedEvent, StreamRead};
use chat_projector::dead_letters::DeadLetterReason;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::dry_run::{ResolutionDryRun, dry_run};
use super::resolve::{DeadLetterSelection, Resolution, blocked_streams};
use super::{DeadLetterState, DeadLetterView, missing_dead_letter};
use crate::projections::{Projections, ProjectionsError};

/// A dead letter with its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeadLetterDetails)]
pub struct DeadLetterDetails {
    /// The dead letter in each projection that has it.
    #[serde(rename = "letters")]
    pub dead_letters: Vec<DeadLetterView>,
    /// The event as it is stored; `None` if the log no longer has it.
    pub event: Option<StoredEvent>,
    /// Why this program can't decode the event, or that the log no longer has it; `None` if it can be decoded.
    pub unreadable: Option<String>,
    /// The predicted outcome of retrying the event's stream, in each projection in which the event is not discarded.
    pub retry: Vec<ResolutionDryRun>,
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StoredEvent)]
pub struct StoredEvent {
    /// Its position in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its stream.
    pub stream: String,
    /// Its revision in the stream.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The schema version of its payload.
    pub schema_version: u32,
    /// When it was recorded, by the clock of its writer.
    pub recorded_at: String,
    /// The payload: as JSON, or as text if the bytes are not JSON.
    pub data: Value,
    /// The metadata: as JSON, or as text if the bytes are not JSON.
    pub metadata: Value,
}

impl DeadLetterDetails {
    /// Whether the event needs attention: it is a pending dead letter, or its discard is not acknowledged.
    pub fn has_findings(&self) -> bool {
        self.dead_letters.iter().any(|dead_letter| dead_letter.state != DeadLetterState::Acknowledged)
    }
}

/// Shows the dead letter at a position, with its event and the predicted outcome of a retry.
///
/// # Errors
/// [`ProjectionsError::NotFound`] if no projection has a dead letter at the position.
pub async fn show(
    projections: &Projections,
    names: &[ProjectionName],
    position: Position,
) -> Result<DeadLetterDetails, ProjectionsError> {
    let mut dead_letters = Vec::new();
    for name in names {
        let generation_id = projections.live_generation(*name).await?;
        dead_letters.extend(projections.dead_letter(generation_id, position).await?);
    }
    let Some(first) = dead_letters.first() else {
        return Err(ProjectionsError::NotFound(missing_dead_letter(projections, names, position).await?));
    };
    let read = StreamRead::all(first.stream.as_str(), ReadStart::Forwards(first.revision), 1);
    let event = projections.log.read_stream(read).await?.pop().filter(|event| event.position == position);
    let unreadable = match event.as_ref().map(RecordedEvent::decode) {
        None => Some(DeadLetterReason::NOT_IN_LOG.as_str().to_owned()),
        Some(Err(error)) => Some(DeadLetterReason::from(&error).as_str().to_owned()),
        Some(Ok(_)) => None,
    };
    let is_pending = dead_letters
        .iter()
        .any(|dead_letter| matches!(dead_letter.state, DeadLetterState::Blocking | DeadLetterState::Waiting));
    let retry = if is_pending {
        let streams = blocked_streams(projections, names, &DeadLetterSelection::Event(position)).await?;
        let blocked = streams.into_iter().filter(|blocked| blocked.stream == first.stream);
        let resolutions: Vec<_> =
            blocked.map(|blocked_stream| Resolution { blocked_stream, discards_first: false }).collect();
        dry_run(projections, &resolutions).await?
    } else {
        Vec::new()
    };
    Ok(DeadLetterDetails { dead_letters, event: event.map(StoredEvent::from), unreadable, retry })
}

impl From<RecordedEvent> for StoredEvent {
    fn from(event: RecordedEvent) -> Self {
        Self {
            position: event.position,
            stream: event.stream.to_string(),
            revision: event.revision,
            id: event.id.uuid().to_string(),
            event_type: event.event_type,
            schema_version: event.schema_version.0,
            recorded_at: event.recorded_at.to_string(),
            data: json_or_text(&event.data),
            metadata: json_or_text(&event.metadata),
        }
    }
}

fn json_or_text(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
