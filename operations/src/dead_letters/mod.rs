//! Dead letters: events that a projection could not apply, and the operator actions on them.
//!
//! [`list`] and [`show`] read the dead letters of the live generations. An operator action on a dead letter is an event
//! in the log. Each generation applies the action when its projector reaches that event
//! ([`chat_projector::dead_letters`]). [`resolve`] records actions and waits for them. [`dry_run`] predicts their
//! outcome.

pub mod dry_run;
pub mod list;
mod refused_commands;
pub mod resolve;
pub mod show;

use chat_domain::event::DecodeError;
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_domain::{Position, Revision, StreamId};
use chat_ports::dead_letter::{
    DeadLetter, DeadLetterFilter, DeadLetterPage, DeadLetterQuery, ListedDeadLetter,
};
use chat_ports::event_store::{EventStore, EventStoreError, StreamRead};
use chat_projector::dead_letters::{ActionOutcome, DeadLetterReason};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use refused_commands::RefusedCommands;

use crate::projections::{Projections, ProjectionsError, projection_error};

/// A dead letter: an event that a projection could not apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterView {
    /// The position of the event in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The projection that could not apply it.
    #[schema(value_type = String)]
    pub projection: ProjectionName,
    /// The state of the dead letter.
    pub state: DeadLetterState,
    /// The stream of the event.
    pub stream: String,
    /// The revision of the event in its stream.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// The type of the event.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Why it could not be applied.
    pub reason: String,
    /// When it became a dead letter.
    #[serde(rename = "parked_at")]
    pub dead_lettered_at: String,
    /// The number of later events of its stream that wait behind it.
    pub waiting: u64,
    /// The commands on the stream that are refused until it is resolved. Only in lists, for the read model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_commands: Option<RefusedCommands>,
    /// How it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<DiscardView>,
}

/// The state of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// It blocks its stream.
    #[serde(rename = "parked")]
    Blocking,
    /// It waits behind a dead letter that blocks its stream.
    Waiting,
    /// It was discarded, and the discard is not acknowledged yet.
    Discarded,
    /// It was discarded, and the discard is acknowledged.
    Acknowledged,
}

/// The operator action that discarded a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscardView {
    /// The position of the operator action.
    #[schema(value_type = u64)]
    pub by: Position,
    /// When it was discarded.
    pub at: String,
    /// The reason that the operator gave.
    pub reason: String,
    /// The position of the operator action that acknowledged the discard.
    #[schema(value_type = Option<u64>)]
    pub acknowledged_by: Option<Position>,
}

/// The event that blocks a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StreamStop)]
pub struct BlockingEvent {
    /// The position of the first event that can't be applied.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Why it can't be applied.
    pub reason: String,
}

impl DeadLetterState {
    /// The name of the state in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocking => "parked",
            Self::Waiting => "waiting",
            Self::Discarded => "discarded",
            Self::Acknowledged => "acknowledged",
        }
    }
}

impl DeadLetterView {
    fn from_listed(projection: ProjectionName, listed: ListedDeadLetter) -> Self {
        let ListedDeadLetter { dead_letter, waiting_behind } = listed;
        let state = match &dead_letter.discarded {
            None if dead_letter.is_waiting() => DeadLetterState::Waiting,
            None => DeadLetterState::Blocking,
            Some(discarded) if discarded.acknowledged.is_none() => DeadLetterState::Discarded,
            Some(_) => DeadLetterState::Acknowledged,
        };
        Self {
            position: dead_letter.position,
            projection,
            state,
            stream: dead_letter.stream,
            revision: dead_letter.revision,
            event_type: dead_letter.event_type,
            reason: dead_letter.reason,
            dead_lettered_at: dead_letter.dead_lettered_at.to_string(),
            waiting: waiting_behind,
            refused_commands: None,
            discarded: dead_letter.discarded.map(|discarded| DiscardView {
                by: discarded.by,
                at: discarded.at.to_string(),
                reason: discarded.reason,
                acknowledged_by: discarded.acknowledged,
            }),
        }
    }
}

impl From<DeadLetter> for BlockingEvent {
    fn from(dead_letter: DeadLetter) -> Self {
        Self {
            position: dead_letter.position,
            event_type: dead_letter.event_type,
            reason: dead_letter.reason,
        }
    }
}

/// Says that the log has no stream of this name. `None` if the log has the stream.
pub async fn unknown_stream(log: &dyn EventStore, stream: &str) -> Result<Option<String>, EventStoreError> {
    let last = log.read_stream(StreamRead::last_event(stream)).await?;
    Ok(last.is_empty().then(|| format!("the log has no stream {stream:?}")))
}

/// Says that no dead letter is at a position. If the event was damaged after the projections applied it, also names the
/// rebuild that makes it a dead letter.
pub async fn missing_dead_letter(
    projections: &Projections,
    names: &[ProjectionName],
    position: Position,
) -> Result<String, ProjectionsError> {
    let missing = format!("no dead letter is at position {position}");
    let event = projections.log.event_at(position).await?;
    let Some(event) = event.filter(|event| StreamId::parse(&event.stream).is_ok()) else {
        return Ok(missing);
    };
    // A type or version that this program does not know is no damage: a newer program may have applied the event.
    let Err(error @ DecodeError::InvalidPayload(_)) = event.decode() else { return Ok(missing) };
    for name in names {
        let generation_id = projections.live_generation(*name).await?;
        if projections.position(generation_id).await? < position
            || projections.dead_letter(generation_id, position).await?.is_some()
        {
            return Ok(missing);
        }
    }
    Ok(format!(
        "{missing}, but the event there can't be read: {}. It was damaged after the projections had applied it. \
         `projections rebuild --all --execute`, which stops at the differences, and then `projections promote --execute` \
         make it a dead letter, which can be discarded",
        DeadLetterReason::from(&error).as_str()
    ))
}

impl Projections {
    /// Reads a page of the dead letters of a generation.
    async fn dead_letters(
        &self,
        generation_id: ProjectionGeneration,
        query: DeadLetterQuery,
    ) -> Result<DeadLetterPage, ProjectionsError> {
        let store = self.store(generation_id);
        store.dead_letter_page(query).await.map_err(|source| projection_error(generation_id, &store, source))
    }

    /// Finds the dead letter of the event at a position.
    async fn dead_letter(
        &self,
        generation_id: ProjectionGeneration,
        position: Position,
    ) -> Result<Option<DeadLetterView>, ProjectionsError> {
        let query = DeadLetterQuery {
            after: Position::new(position.get().saturating_sub(1)),
            limit: 1,
            filter: DeadLetterFilter::All,
            stream: None,
        };
        let page = self.dead_letters(generation_id, query).await?;
        let found = page.dead_letters.into_iter().find(|listed| listed.dead_letter.position == position);
        Ok(found.map(|listed| DeadLetterView::from_listed(generation_id.projection, listed)))
    }
}

/// The event that blocks the stream after an operator action.
fn blocking_event(outcome: &ActionOutcome) -> Option<BlockingEvent> {
    outcome.first_failure.clone().map(BlockingEvent::from)
}
