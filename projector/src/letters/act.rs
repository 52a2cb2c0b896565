//! Operators' acts, as far as they are about parked events.

use chat_domain::operation::{self, ProjectionName};
use chat_domain::{Operation, Position, Timestamp};
use chat_ports::event_store::RecordedEvent;

/// What an operator decided about parked events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Its place in the log: the checkpoint moves here with it.
    pub position: Position,
    /// When it was recorded.
    pub at: Timestamp,
    /// What it is.
    pub deed: Deed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
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

impl Act {
    /// The act that an event records, where it is one and is about what this projection has parked. What a newer program
    /// records and this one can't read says nothing to it.
    pub fn of(event: &RecordedEvent, of: ProjectionName) -> Option<Self> {
        if *event.stream != *operation::STREAM {
            return None;
        }
        let operation = Operation::decode(&event.event_type, event.schema_version, &event.data).ok()?;
        let (projection, deed) = match operation {
            Operation::DeadLettersRetried(retried) => {
                (retried.projection, Deed::Retry { stream: retried.stream })
            }
            Operation::DeadLetterDiscarded(discarded) => {
                let deed = Deed::Discard { event: discarded.position, reason: discarded.reason };
                (discarded.projection, deed)
            }
            Operation::DiscardAcknowledged(acknowledged) => {
                (acknowledged.projection, Deed::Acknowledge { event: acknowledged.position })
            }
            _ => return None,
        };
        (projection == of).then_some(Self { position: event.position, at: event.recorded_at, deed })
    }
}
