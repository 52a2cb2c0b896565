//! Alterations of a log: where its events differ from the leaves file that was written with a checkpoint.

use std::path::Path;

use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision};
use chat_ports::error_chain;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use serde::Serialize;

use super::ProofError;
use super::leaf::LeafHasher;
use super::leaves_file::{LeafRecord, LeavesReader};
use super::log_walk::LogWalk;

/// The first difference of a log from its earlier content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Alteration {
    /// The event at this position has other content.
    Changed {
        /// The position of the event.
        position: Position,
        /// The event that is there now.
        now: EventIdentity,
    },
    /// The event at this position is missing.
    Removed {
        /// The position where it was.
        position: Position,
    },
    /// This event was added.
    Inserted {
        /// The position of the event.
        position: Position,
        /// The event.
        now: EventIdentity,
    },
    /// An event is at another position than before.
    Moved {
        /// The first position at which the order differs.
        position: Position,
        /// The event that is there now, with its earlier position; `None` if there is no event now.
        now: Option<(EventIdentity, Position)>,
        /// The current position of the event that was at this position, or if none was, of the next one after it.
        /// `None` if that event is missing now.
        gone_to: Option<Position>,
    },
    /// The event at this position can't be read any more.
    Unreadable {
        /// The position where it was.
        position: Position,
        /// The error of the event store.
        because: String,
    },
}

/// The identity of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventIdentity {
    /// Its stream.
    pub stream: String,
    /// Its revision in the stream.
    pub revision: Revision,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its id.
    pub id: EventId,
}

impl EventIdentity {
    pub(super) fn from_event(event: &RecordedEvent) -> Self {
        Self {
            stream: event.stream.to_string(),
            revision: event.revision,
            event_type: event.event_type.clone(),
            id: event.id,
        }
    }
}

impl Alteration {
    /// The position of the alteration.
    pub fn position(&self) -> Position {
        let (Self::Changed { position, .. }
        | Self::Removed { position }
        | Self::Inserted { position, .. }
        | Self::Moved { position, .. }
        | Self::Unreadable { position, .. }) = self;
        *position
    }

    /// Creates the alteration for an event that can't be read.
    pub(super) fn unreadable(position: Position, error: &EventStoreError) -> Self {
        Self::Unreadable { position, because: error_chain(error) }
    }

    /// Classifies the first difference of a log: after the events that match, the log had the event of the leaf
    /// `expected`, and now has the event `found`, or none if it ends there. Searches the whole log for the current
    /// position of the expected event, and all leaves for the earlier position of the found event.
    pub(super) async fn classify(
        log: &dyn EventStore,
        leaves: &Path,
        expected: LeafRecord,
        found: Option<RecordedEvent>,
    ) -> Result<Self, ProofError> {
        let gone_to = current_position_of(log, expected).await?;
        let Some(found) = found else {
            return Ok(Self::removed_or_moved(expected.position, gone_to));
        };
        if found.position > expected.position {
            return Ok(Self::removed_or_moved(expected.position, gone_to));
        }
        let now = EventIdentity::from_event(&found);
        let position = found.position;
        Ok(match (original_position_of(&found, leaves)?, gone_to) {
            // The found event was at another position, and the expected event is missing. So the expected event was
            // removed, and later events have moved up.
            (Some(_), None) if position == expected.position => Self::Removed { position },
            (Some(origin), gone_to) => Self::Moved { position, now: Some((now, origin)), gone_to },
            (None, None) if position == expected.position => Self::Changed { position, now },
            (None, _) => Self::Inserted { position, now },
        })
    }

    /// Classifies a position without an event.
    fn removed_or_moved(position: Position, gone_to: Option<Position>) -> Self {
        match gone_to {
            None => Self::Removed { position },
            gone_to => Self::Moved { position, now: None, gone_to },
        }
    }
}

/// Finds the current position of the event with the given leaf. A leaf hash covers the position, so each event is
/// hashed as if it were at the leaf's position.
async fn current_position_of(log: &dyn EventStore, leaf: LeafRecord) -> Result<Option<Position>, ProofError> {
    let mut walk = LogWalk::new(log, None);
    loop {
        match walk.next_event().await {
            Ok(Some(event)) if LeafHasher::from_event(&event).hash_at(leaf.position) == leaf.hash => {
                return Ok(Some(event.position));
            }
            Ok(Some(_)) => {}
            // Events after an unreadable one can't be read either.
            Ok(None) | Err(EventStoreError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Finds the position that an event had when the leaves were written.
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
