//! Parked events: what a projection could not apply, and what became of them.
//!
//! A letter is *parked* until a retry applies its event (then it is gone) or an operator discards it (then it stays, as
//! *discarded*, and takes no part any more). Of the parked letters of a stream the first is the one that could not be
//! applied; the others *wait* behind it.

use chat_domain::{Position, Revision, Timestamp};
use serde::{Deserialize, Serialize};

/// [`WAITS`](dead_letter::WAITS) as a literal, for SQL statements.
#[macro_export]
macro_rules! behind_dead_letter {
    () => {
        "an earlier event of its stream is parked"
    };
}

/// The reason of a letter that waits: nothing is known against its event but that it comes after one that is parked.
pub const BEHIND_DEAD_LETTER: &str = behind_dead_letter!();

/// An event that a projection could not apply, kept by the projection in the same transaction or commit that moved
/// its checkpoint past it. The payload stays in the log alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's place in the log.
    pub position: Position,
    /// The event's stream. Later events of it are parked too, so that nothing is applied out of order.
    pub stream: String,
    /// The event's place in its stream: there the log is asked for it again.
    pub revision: Revision,
    /// The event's type.
    pub event_type: String,
    /// Why it could not be applied.
    pub reason: String,
    /// When it was parked.
    pub dead_lettered_at: Timestamp,
    /// Set when an operator gave it up; `None` while it is parked.
    pub discarded: Option<DiscardRecord>,
}

/// That an operator gave a parked event up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardRecord {
    /// The position of the operator's act.
    pub by: Position,
    /// When the operator did it.
    pub at: Timestamp,
    /// The operator's reason.
    pub reason: String,
    /// The position of the act by which somebody took note of it; `None` until then.
    pub acknowledged: Option<Position>,
}

impl DeadLetter {
    /// Whether it only waits for an earlier one of its stream.
    pub fn is_waiting(&self) -> bool {
        self.discarded.is_none() && self.reason == BEHIND_DEAD_LETTER
    }

    /// Whether somebody should have a look: it holds its stream up, or was discarded and nobody has acknowledged that.
    pub fn needs_attention(&self) -> bool {
        self.discarded.as_ref().map_or(!self.is_waiting(), |discarded| discarded.acknowledged.is_none())
    }
}

/// How many letters a projection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterCounts {
    /// Parked: they wait for a retry, or to be discarded.
    pub pending: u64,
    /// Discarded, and nobody has acknowledged it.
    pub unacknowledged_discards: u64,
}

/// Which letters to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Those after this position.
    pub after: Position,
    /// So many at most.
    pub limit: usize,
    /// Which of them.
    pub filter: DeadLetterFilter,
    /// Those of this stream; `None`: of any.
    pub stream: Option<String>,
}

/// Which letters to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterFilter {
    /// Those that [stand](DeadLetter::stands).
    NeedsAttention,
    /// All, those that wait and those whose discarding was acknowledged among them.
    All,
}

/// A page of letters, by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// Up to where the log was folded in when they were read.
    pub position: Position,
    /// How many there are, on this page or not.
    pub counts: DeadLetterCounts,
    /// The letters.
    pub letters: Vec<ListedDeadLetter>,
}

/// A letter in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDeadLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// How many others of its stream wait behind it.
    pub waiting_behind: u64,
}
