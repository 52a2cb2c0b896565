//! Operator actions on dead letters.

use chat_domain::operator_action;
use chat_domain::projection::ProjectionName;
use chat_domain::{OperatorAction, Position, Timestamp};
use chat_ports::event_store::RecordedEvent;

/// An operator action on dead letters, as recorded in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterAction {
    /// The action's position in the log. The checkpoint moves to this position when the action is complete.
    pub position: Position,
    /// The time at which the action was recorded.
    pub recorded_at: Timestamp,
    /// The kind of action.
    pub kind: DeadLetterActionKind,
}

/// The kinds of actions on dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterActionKind {
    /// Retry the dead letters of a stream.
    Retry {
        /// The stream's name.
        stream: String,
    },
    /// Discard a dead letter if it is the first of its stream, and then retry the later ones of this stream.
    Discard {
        /// The position of the event to discard.
        event: Position,
        /// The operator's reason.
        reason: String,
    },
    /// Acknowledge a discarded event.
    Acknowledge {
        /// The position of the discarded event.
        event: Position,
    },
}

impl DeadLetterAction {
    /// Returns the action that an event records; `None` if the event does not record an action on the dead letters of
    /// this projection. Actions of a newer program are ignored if this program can't decode them.
    pub fn from_event(event: &RecordedEvent, projection: ProjectionName) -> Option<Self> {
        if *event.stream != *operator_action::STREAM {
            return None;
        }
        let action = OperatorAction::decode(&event.event_type, event.schema_version, &event.data).ok()?;
        let (target, kind) = match action {
            OperatorAction::DeadLettersRetried(retried) => {
                (retried.projection, DeadLetterActionKind::Retry { stream: retried.stream })
            }
            OperatorAction::DeadLetterDiscarded(discarded) => {
                let kind =
                    DeadLetterActionKind::Discard { event: discarded.position, reason: discarded.reason };
                (discarded.projection, kind)
            }
            OperatorAction::DiscardAcknowledged(acknowledged) => {
                (acknowledged.projection, DeadLetterActionKind::Acknowledge { event: acknowledged.position })
            }
            _ => return None,
        };
        (target == projection).then_some(Self {
            position: event.position,
            recorded_at: event.recorded_at,
            kind,
        })
    }
}
