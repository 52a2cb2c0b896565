//! Dead letters: events that a projection could not apply.
//!
//! A dead letter is *pending* until a retry applies its event or an operator discards it. A retry that applies the
//! event removes the dead letter. A discarded dead letter is kept. The projection lacks its event for good, so the
//! dead letter needs attention until a second operator action acknowledges the discard. With this second action, an
//! operator confirms that the affected people were informed.
//!
//! A stream with a pending dead letter is *blocked*. The first pending dead letter of a stream is the event that could
//! not be applied, and the later ones *wait* behind it.

use chat_domain::{Position, Revision, Timestamp};
use serde::{Deserialize, Serialize};

/// [`BEHIND_DEAD_LETTER`](crate::dead_letter::BEHIND_DEAD_LETTER) as a literal, for SQL statements.
#[macro_export]
macro_rules! behind_dead_letter {
    () => {
        "an earlier event of its stream is parked"
    };
}

/// The stored reason of a dead letter that waits: its event may be fine, but an earlier event of the stream is a dead
/// letter.
pub const BEHIND_DEAD_LETTER: &str = behind_dead_letter!();

/// An event that a projection could not apply. The projection stores it in the same transaction or commit that moves
/// its checkpoint past the event. The payload stays in the log only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's position in the log.
    pub position: Position,
    /// The event's stream. Later events of this stream become dead letters as well, so that no event is applied out of
    /// order.
    pub stream: String,
    /// The event's revision in its stream. A retry reads the event from the log by its stream and revision.
    pub revision: Revision,
    /// The event's type.
    pub event_type: String,
    /// The reason why the event could not be applied.
    pub reason: String,
    /// The time at which the dead letter was created.
    pub dead_lettered_at: Timestamp,
    /// The record of the discard; `None` while the dead letter is pending.
    pub discarded: Option<DiscardRecord>,
}

/// The record of a discarded dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardRecord {
    /// The position of the operator action that discarded the dead letter.
    pub by: Position,
    /// The time of the discard.
    pub at: Timestamp,
    /// The operator's reason.
    pub reason: String,
    /// The position of the operator action that acknowledged the discard; `None` until then.
    pub acknowledged: Option<Position>,
}

impl DeadLetter {
    /// Whether the dead letter only waits behind an earlier dead letter of its stream.
    pub fn is_waiting(&self) -> bool {
        self.discarded.is_none() && self.reason == BEHIND_DEAD_LETTER
    }

    /// Whether the dead letter needs an operator: it blocks its stream, or its discard is not acknowledged.
    pub fn needs_attention(&self) -> bool {
        self.discarded.as_ref().map_or(!self.is_waiting(), |discarded| discarded.acknowledged.is_none())
    }
}

/// The counts of a projection's dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterCounts {
    /// Dead letters that are neither applied nor discarded.
    pub pending: u64,
    /// Discarded dead letters whose discard is not acknowledged yet.
    pub unacknowledged_discards: u64,
}

/// A request for a page of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// The page starts after this position.
    pub after: Position,
    /// The largest size of the page.
    pub limit: usize,
    /// The states to list.
    pub filter: DeadLetterFilter,
    /// The stream to list; `None` lists all streams.
    pub stream: Option<String>,
}

/// The states of dead letters to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterFilter {
    /// Dead letters that [need attention](DeadLetter::needs_attention).
    NeedsAttention,
    /// All dead letters, including waiting ones and those with acknowledged discards.
    All,
}

/// A page of dead letters, in the order of their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// The position of the projection when the page was read.
    pub position: Position,
    /// The counts of all dead letters of the projection, not only of this page.
    pub counts: DeadLetterCounts,
    /// The dead letters.
    pub dead_letters: Vec<ListedDeadLetter>,
}

/// A dead letter in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDeadLetter {
    /// The dead letter.
    pub dead_letter: DeadLetter,
    /// The number of dead letters of the same stream that wait behind this one.
    pub waiting_behind: u64,
}
