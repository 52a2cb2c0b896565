//! The summary of a log's content: two logs with the same root have the same events.

use chat_domain::Position;
use chat_ports::event_store::EventStore;

use super::log_walk::LogWalk;
use super::tree::{Frontier, Hash};
use super::{ProgressCallback, ProofError, leaf};

/// The number of events of a log up to a position, and the root of their tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRoot {
    /// The number of events.
    pub events: u64,
    /// The position of the last event.
    pub position: Position,
    /// The root of the tree of these events.
    pub root: Hash,
}

impl LogRoot {
    /// Computes the root of a log up to a position, or to the head.
    pub async fn compute(
        log: &dyn EventStore,
        until: Option<Position>,
        on_progress: ProgressCallback<'_>,
    ) -> Result<Self, ProofError> {
        let (mut tree, mut walk) = (Frontier::default(), LogWalk::new(log, until));
        let mut position = Position::START;
        while let Some(event) = walk.next_event().await? {
            position = event.position;
            tree.push(leaf::hash(&event));
            on_progress(tree.leaf_count());
        }
        Ok(Self { events: tree.leaf_count(), position, root: tree.root() })
    }
}
