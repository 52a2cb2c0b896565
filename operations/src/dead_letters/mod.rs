//! Events that a projection could not apply: what they are, and what is to become of them.
//!
//! Reading is of the generations that readers see. What is to become of letters is decided by an act in the log, which
//! every generation carries out where it comes to it ([`chat_projector::dead_letters`]); [`decide`] records it and waits, and
//! [`trial`] says before what it would come to.

pub mod dry_run;
pub mod list;
pub mod resolve;
pub mod show;

use chat_domain::operator_action::{ProjectionGeneration, ProjectionName};
use chat_domain::{Position, Revision};
use chat_ports::dead_letter::{
    DeadLetter, DeadLetterFilter, DeadLetterPage, DeadLetterQuery, ListedDeadLetter,
};
use chat_projector::dead_letters::ActionOutcome;
use serde::Serialize;
use utoipa::ToSchema;

use crate::projections::{Projections, ProjectionsError, projection_error};

/// An event that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterView {
    /// Its place in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The projection that could not apply it.
    #[schema(value_type = String)]
    pub projection: ProjectionName,
    /// What has become of it.
    pub state: LetterState,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Its type.
    pub event_type: String,
    /// Why it could not be applied.
    pub reason: String,
    /// When it was parked.
    pub parked_at: String,
    /// How many later events of its stream wait behind it.
    pub waiting: u64,
    /// By which act, when and why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<GivenUp>,
}

/// What has become of an event that could not be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// It holds its stream up.
    Parked,
    /// It waits behind one that does.
    Waiting,
    /// It was given up, and nobody has acknowledged it.
    Discarded,
    /// It was given up.
    Acknowledged,
}

/// That an event was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GivenUp {
    /// The position of the act.
    #[schema(value_type = u64)]
    pub by: Position,
    /// When.
    pub at: String,
    /// Why.
    pub reason: String,
    /// The position of the act by which that was acknowledged.
    #[schema(value_type = Option<u64>)]
    pub acknowledged_by: Option<Position>,
}

/// Where a stream stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StreamStop)]
pub struct BlockingEvent {
    /// The first event that can't be applied.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its type.
    pub event_type: String,
    /// Why it can't.
    pub reason: String,
}

impl LetterState {
    /// As answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Discarded => "discarded",
            Self::Acknowledged => "acknowledged",
        }
    }
}

impl DeadLetterView {
    fn from_listed(projection: ProjectionName, listed: ListedDeadLetter) -> Self {
        let ListedDeadLetter { letter, waiting_behind: waiting } = listed;
        let state = match &letter.discarded {
            None if letter.is_waiting() => LetterState::Waiting,
            None => LetterState::Parked,
            Some(discarded) if discarded.acknowledged.is_none() => LetterState::Discarded,
            Some(_) => LetterState::Acknowledged,
        };
        Self {
            position: letter.position,
            projection,
            state,
            stream: letter.stream,
            revision: letter.revision,
            event_type: letter.event_type,
            reason: letter.reason,
            parked_at: letter.dead_lettered_at.to_string(),
            waiting,
            discarded: letter.discarded.map(|discarded| GivenUp {
                by: discarded.by,
                at: discarded.at.to_string(),
                reason: discarded.reason,
                acknowledged_by: discarded.acknowledged,
            }),
        }
    }
}

impl From<DeadLetter> for BlockingEvent {
    fn from(letter: DeadLetter) -> Self {
        Self { position: letter.position, event_type: letter.event_type, reason: letter.reason }
    }
}

impl Projections {
    /// The generation of a projection that readers see.
    async fn live_generation(
        &self,
        projection: ProjectionName,
    ) -> Result<ProjectionGeneration, ProjectionsError> {
        let generation = self.generations().await?.live().for_projection(projection);
        Ok(ProjectionGeneration { projection, generation })
    }

    /// A page of the letters of a projection.
    async fn dead_letters(
        &self,
        copy: ProjectionGeneration,
        list: DeadLetterQuery,
    ) -> Result<DeadLetterPage, ProjectionsError> {
        let place = self.location(copy);
        place.dead_letter_page(list).await.map_err(|source| projection_error(copy, &place, source))
    }

    /// The letter of the event at a position.
    async fn dead_letter(
        &self,
        copy: ProjectionGeneration,
        position: Position,
    ) -> Result<Option<DeadLetterView>, ProjectionsError> {
        let list = DeadLetterQuery {
            after: Position::new(position.get().saturating_sub(1)),
            limit: 1,
            filter: DeadLetterFilter::All,
            stream: None,
        };
        let page = self.dead_letters(copy, list).await?;
        let found = page.letters.into_iter().find(|listed| listed.letter.position == position);
        Ok(found.map(|listed| DeadLetterView::from_listed(copy.projection, listed)))
    }
}

/// Where an act would leave a stream, or left it.
fn blocking_event(outcome: &ActionOutcome) -> Option<BlockingEvent> {
    outcome.first_failure.clone().map(BlockingEvent::from)
}
