//! One event that could not be applied, whole.

use chat_domain::operator_action::ProjectionName;
use chat_domain::{Position, Revision};
use chat_ports::event_store::{EventTypeFilter, ReadStart, RecordedEvent, StreamRead};
use chat_projector::dead_letters::DeadLetterReason;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::dry_run::{RetryDryRun, dry_run};
use super::resolve::{DeadLetterSelection, Resolution, blocked_streams};
use super::{DeadLetterView, LetterState};
use crate::projections::{Projections, ProjectionsError};

/// An event that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ShownDeadLetter)]
pub struct DeadLetterDetails {
    /// What the projections say of it.
    pub letters: Vec<DeadLetterView>,
    /// The event as it is stored; `None` where the log does not have it any more.
    pub event: Option<StoredEvent>,
    /// Why this program can't read it; `None` where it can.
    pub unreadable: Option<String>,
    /// What a retry of its stream would come to, where it is parked.
    pub retry: Vec<RetryDryRun>,
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StoredEvent)]
pub struct StoredEvent {
    /// Its place in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Its identity.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// The version of its payload's shape.
    pub schema_version: u32,
    /// When its writer decided it.
    pub recorded_at: String,
    /// The payload: JSON, or the text as far as it is one.
    pub data: Value,
    /// The circumstances: JSON, or the text as far as it is one.
    pub metadata: Value,
}

/// Shows the event at a position, and what has become of it.
///
/// # Errors
/// [`ProjectionsError::Nothing`] where no projection has a letter of it.
pub async fn show(
    projections: &Projections,
    names: &[ProjectionName],
    position: Position,
) -> Result<DeadLetterDetails, ProjectionsError> {
    let mut letters = Vec::new();
    for name in names {
        let copy = projections.live_generation(*name).await?;
        letters.extend(projections.dead_letter(copy, position).await?);
    }
    let Some(first) = letters.first() else {
        return Err(ProjectionsError::NotFound(format!(
            "no event at position {position} is parked or was discarded"
        )));
    };
    let read = StreamRead {
        stream: first.stream.as_str().into(),
        start: ReadStart::Forwards(first.revision),
        filter: EventTypeFilter::All,
        limit: 1,
    };
    let event = projections.log.read_stream(read).await?.pop().filter(|event| event.position == position);
    let unreadable = match event.as_ref().map(RecordedEvent::decode) {
        None => Some(DeadLetterReason::NOT_IN_LOG.as_str().to_owned()),
        Some(Err(error)) => Some(DeadLetterReason::from(&error).as_str().to_owned()),
        Some(Ok(_)) => None,
    };
    let parked =
        letters.iter().any(|letter| matches!(letter.state, LetterState::Parked | LetterState::Waiting));
    let retry = if parked {
        let streams = blocked_streams(projections, names, &DeadLetterSelection::Event(position)).await?;
        let blocked = streams.into_iter().filter(|parked| parked.stream == first.stream);
        let steps: Vec<_> =
            blocked.map(|parked| Resolution { blocked_stream: parked, discards_first: false }).collect();
        dry_run(projections, &steps).await?
    } else {
        Vec::new()
    };
    Ok(DeadLetterDetails { letters, event: event.map(StoredEvent::from), unreadable, retry })
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
