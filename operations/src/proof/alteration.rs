//! What was altered in a log, told from the hashes of its leaves before.

use std::path::Path;

use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use serde::Serialize;

use super::ProofError;
use super::leaf::LeafHasher;
use super::leaves_file::{Leaf, LeavesReader};
use super::log_walk::LogWalk;

/// The first event that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Alteration {
    /// The event at this place holds something else now.
    Changed {
        /// Where.
        position: Position,
        /// What stands there now.
        now: EventIdentity,
    },
    /// The event at this place is gone.
    Removed {
        /// Where it stood.
        position: Position,
    },
    /// This event was not there.
    Inserted {
        /// Where it stands.
        position: Position,
        /// What it is.
        now: EventIdentity,
    },
    /// An event stands where another one stood, or none.
    Moved {
        /// Where the order first differs.
        position: Position,
        /// What stands there now, and where it stood before.
        now: Option<(EventIdentity, Position)>,
        /// Where the event that stood there is now.
        gone_to: Option<Position>,
    },
    /// The event at this place can't be read any more.
    Unreadable {
        /// Where it stood.
        position: Position,
        /// What the event store says.
        because: String,
    },
}

/// An event, as far as it is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventIdentity {
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    pub revision: Revision,
    /// Its type.
    pub event_type: String,
    /// Its identity.
    pub id: EventId,
}

impl EventIdentity {
    fn from_event(event: &RecordedEvent) -> Self {
        Self {
            stream: event.stream.to_string(),
            revision: event.revision,
            event_type: event.event_type.clone(),
            id: event.id,
        }
    }
}

impl Alteration {
    /// Where it is.
    pub fn position(&self) -> Position {
        let (Self::Changed { position, .. }
        | Self::Removed { position }
        | Self::Inserted { position, .. }
        | Self::Moved { position, .. }
        | Self::Unreadable { position, .. }) = self;
        *position
    }

    /// That the event which should stand there can't be read.
    pub(super) fn unreadable(position: Position, error: &EventStoreError) -> Self {
        let mut because = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            because = format!("{because}: {cause}");
            source = cause.source();
        }
        Self::Unreadable { position, because }
    }

    /// Names what happened where the log first differs: there `was` was, and `is` is. Looks through all leaves and the
    /// whole log for where they have come from and gone to.
    pub(super) async fn classify(
        log: &dyn EventStore,
        leaves: &Path,
        expected: Leaf,
        found: Option<RecordedEvent>,
    ) -> Result<Self, ProofError> {
        let gone_to = current_position_of(log, expected).await?;
        let Some(is) = found else {
            return Ok(Self::removed_or_moved(expected.position, gone_to));
        };
        if is.position > expected.position {
            return Ok(Self::removed_or_moved(expected.position, gone_to));
        }
        let now = EventIdentity::from_event(&is);
        let position = is.position;
        Ok(match (original_position_of(&is, leaves)?, gone_to) {
            // What is there stood somewhere else, and what stood there is nowhere: the rest has moved up.
            (Some(_), None) if position == expected.position => Self::Removed { position },
            (Some(origin), gone_to) => Self::Moved { position, now: Some((now, origin)), gone_to },
            (None, None) if position == expected.position => Self::Changed { position, now },
            (None, _) => Self::Inserted { position, now },
        })
    }

    /// Nothing stands where an event stood.
    fn removed_or_moved(position: Position, gone_to: Option<Position>) -> Self {
        match gone_to {
            None => Self::Removed { position },
            gone_to => Self::Moved { position, now: None, gone_to },
        }
    }
}

/// Where the log has an event now that had this leaf.
async fn current_position_of(log: &dyn EventStore, was: Leaf) -> Result<Option<Position>, ProofError> {
    let mut walk = LogWalk::new(log, None);
    loop {
        match walk.next_event().await {
            Ok(Some(event)) if LeafHasher::from_event(&event).hash_at(was.position) == was.hash => {
                return Ok(Some(event.position));
            }
            Ok(Some(_)) => {}
            // What is behind an event that can't be read is out of reach.
            Ok(None) | Err(EventStoreError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where an event stood when the leaves were written.
fn original_position_of(event: &RecordedEvent, leaves: &Path) -> Result<Option<Position>, ProofError> {
    let content = LeafHasher::from_event(event);
    let mut leaves = LeavesReader::open(leaves)?;
    while let Some(leaf) = leaves.read()? {
        if content.hash_at(leaf.position) == leaf.hash {
            return Ok(Some(leaf.position));
        }
    }
    Ok(None)
}
