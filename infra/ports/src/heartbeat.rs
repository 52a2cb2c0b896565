//! What a projector says of itself beside what it keeps, so that other processes can see it.
//!
//! A notice is worth as much as its time: a process that was killed takes none down.

use std::time::Duration;

use chat_domain::{Position, Timestamp};
use serde::{Deserialize, Serialize};

/// How old a notice may be: whoever posts one posts the next after a second.
const MAX_AGE: Duration = Duration::from_secs(5);

/// What a projector says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
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

impl Heartbeat {
    /// Whether it is recent enough to be believed.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let age = now.millis().saturating_sub(self.at.millis());
        u64::try_from(age).map_or(true, |age| Duration::from_millis(age) <= MAX_AGE)
    }
}

/// In which capacity a projector says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectorRole {
    /// It keeps the projection.
    Active,
    /// It waits for another one to end.
    Standby,
}

impl ProjectorRole {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Active, Self::Standby];

    /// A name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "keeper",
            Self::Standby => "stand-by",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(at: i64) -> Heartbeat {
        Heartbeat {
            at: Timestamp::from_millis(at),
            state: "live".to_owned(),
            position: Position::new(7),
            events_per_second: 3,
            last_error: None,
        }
    }

    #[test]
    fn a_heartbeat_is_fresh_for_five_seconds() {
        assert!(heartbeat(10_000).is_fresh(Timestamp::from_millis(15_000)));
        assert!(!heartbeat(10_000).is_fresh(Timestamp::from_millis(15_001)));
        assert!(heartbeat(10_000).is_fresh(Timestamp::from_millis(9_000)), "clocks of two machines differ");
    }
}
