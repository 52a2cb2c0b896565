//! Parked events: what a projection could not apply.

use chat_domain::{Position, Timestamp};

/// An event that a projection could not apply, kept by the projection in the same transaction or commit that moved
/// its checkpoint past it. The payload stays in the log alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's place in the log.
    pub position: Position,
    /// The event's stream. Later events of it are parked too, so that nothing is applied out of order.
    pub stream: String,
    /// The event's type.
    pub event_type: String,
    /// Why it could not be applied.
    pub reason: String,
    /// When it was parked.
    pub parked_at: Timestamp,
}
