//! Operators' acts, as far as they are about parked events.

use chat_domain::operator_action::{self, ProjectionName};
use chat_domain::{OperatorAction, Position, Timestamp};
use chat_ports::event_store::RecordedEvent;

/// What an operator decided about parked events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterAction {
    /// Its place in the log: the checkpoint moves here with it.
    pub position: Position,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What it is.
    pub kind: DeadLetterActionKind,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterActionKind {
    /// Try the parked events of a stream again.
    Retry {
        /// The stream's name.
        stream: String,
    },
    /// Give up the first parked event of its stream, and try the rest again.
    Discard {
        /// The event's position.
        event: Position,
        /// Why.
        reason: String,
    },
    /// Take note of a discarded event.
    Acknowledge {
        /// The event's position.
        event: Position,
    },
}

impl DeadLetterAction {
    /// The act that an event records, where it is one and is about what this projection has parked. What a newer program
    /// records and this one can't read says nothing to it.
    pub fn from_event(event: &RecordedEvent, of: ProjectionName) -> Option<Self> {
        if *event.stream != *operator_action::STREAM {
            return None;
        }
        let operation = OperatorAction::decode(&event.event_type, event.schema_version, &event.data).ok()?;
        let (projection, deed) = match operation {
            OperatorAction::DeadLettersRetried(retried) => {
                (retried.projection, DeadLetterActionKind::Retry { stream: retried.stream })
            }
            OperatorAction::DeadLetterDiscarded(discarded) => {
                let deed =
                    DeadLetterActionKind::Discard { event: discarded.position, reason: discarded.reason };
                (discarded.projection, deed)
            }
            OperatorAction::DiscardAcknowledged(acknowledged) => {
                (acknowledged.projection, DeadLetterActionKind::Acknowledge { event: acknowledged.position })
            }
            _ => return None,
        };
        (projection == of).then_some(Self {
            position: event.position,
            recorded_at: event.recorded_at,
            kind: deed,
        })
    }
}
