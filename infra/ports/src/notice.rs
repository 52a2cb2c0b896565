//! What a projector says of itself beside what it keeps, so that other processes can see it.
//!
//! A notice is worth as much as its time: a process that was killed takes none down.

use std::time::Duration;

use chat_domain::{Position, Timestamp};
use serde::{Deserialize, Serialize};

/// How old a notice may be: whoever posts one posts the next after a second.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// What a projector says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it said so.
    pub at: Timestamp,
    /// What it was doing, in snake case.
    pub state: String,
    /// Up to where it had folded.
    pub position: Position,
    /// Events that it folded in the second before.
    pub events_per_second: u64,
    /// What kept it from going on.
    pub last_error: Option<String>,
}

impl Notice {
    /// Whether it is recent enough to be believed.
    pub fn is_good(&self, now: Timestamp) -> bool {
        let age = now.millis().saturating_sub(self.at.millis());
        u64::try_from(age).map_or(true, |age| Duration::from_millis(age) <= GOOD_FOR)
    }
}

/// In which capacity a projector says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// It keeps the projection.
    Keeper,
    /// It waits for another one to end.
    StandBy,
}

impl Capacity {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Keeper, Self::StandBy];

    /// A name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::StandBy => "stand-by",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(at: i64) -> Notice {
        Notice {
            at: Timestamp::from_millis(at),
            state: "live".to_owned(),
            position: Position::new(7),
            events_per_second: 3,
            last_error: None,
        }
    }

    #[test]
    fn a_notice_is_believed_for_a_few_seconds() {
        assert!(notice(10_000).is_good(Timestamp::from_millis(15_000)));
        assert!(!notice(10_000).is_good(Timestamp::from_millis(15_001)));
        assert!(notice(10_000).is_good(Timestamp::from_millis(9_000)), "clocks of two machines differ");
    }
}
