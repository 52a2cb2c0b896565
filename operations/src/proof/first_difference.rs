//! Compares two logs event by event.

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use serde::Serialize;

use super::ProofError;
use super::alteration::EventIdentity;
use super::log_walk::LogWalk;

/// The first position at which a log differs from a copy of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirstDifference {
    /// The position.
    pub position: Position,
    /// The event that the copy has there.
    pub copy: Option<EventIdentity>,
    /// The event that the log has there; `None` if there is none, or if it can't be read.
    pub log: Option<EventIdentity>,
}

/// Compares a copy with the log up to a position, and returns the first difference; `None` if there is none. A log with
/// an event that can't be read is compared as if the log ended before that event.
pub async fn find_first_difference(
    copy: &dyn EventStore,
    log: &dyn EventStore,
    until: Position,
) -> Result<Option<FirstDifference>, ProofError> {
    let (mut copy_walk, mut log_walk) = (LogWalk::new(copy, Some(until)), LogWalk::new(log, Some(until)));
    loop {
        let copied = copy_walk.next_event().await?;
        let current = match log_walk.next_event().await {
            Err(EventStoreError::Damaged(_)) => None,
            read => read?,
        };
        if copied == current {
            if copied.is_none() {
                return Ok(None);
            }
            continue;
        }
        let Some(position) = [&copied, &current].into_iter().flatten().map(|event| event.position).min()
        else {
            return Ok(None);
        };
        let identity_at_position = |event: Option<RecordedEvent>| {
            event.filter(|event| event.position == position).map(|event| EventIdentity::from_event(&event))
        };
        return Ok(Some(FirstDifference {
            position,
            copy: identity_at_position(copied),
            log: identity_at_position(current),
        }));
    }
}
