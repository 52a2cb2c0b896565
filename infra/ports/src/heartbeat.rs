//! Heartbeats: the state that a projector publishes beside its projection, for other processes.
//!
//! A killed process can't remove its heartbeat, so other processes ignore a heartbeat that is not recent.

use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{Position, Timestamp};
use serde::{Deserialize, Serialize};

/// The maximal age of a recent heartbeat. Projectors publish a heartbeat every second.
const MAX_AGE: Duration = Duration::from_secs(5);

/// The state of a projector at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The time of publication.
    pub at: Timestamp,
    /// The projector's state, in snake case.
    pub state: String,
    /// The position up to which the projector had folded the log.
    pub position: Position,
    /// The rate of folding, measured over about a second.
    pub events_per_second: u64,
    /// The failure from which the projector has yet to recover, or after which it has stopped, if any.
    pub last_error: Option<String>,
}

impl Heartbeat {
    /// Whether the heartbeat is recent enough to show that the projector is alive.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        let age_millis = now.millis().saturating_sub(self.at.millis());
        // The age is negative if the clock of the projector's machine is ahead.
        u64::try_from(age_millis).map_or(true, |millis| Duration::from_millis(millis) <= MAX_AGE)
    }
}

/// The role of the projector that publishes a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectorRole {
    /// The projector writes the projection.
    Active,
    /// The projector takes over when the active projector stops.
    Standby,
}

impl ProjectorRole {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Active, Self::Standby];

    /// The stored name of the role.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "keeper",
            Self::Standby => "stand-by",
        }
    }
}

/// Stores one heartbeat for each role. Errors are ignored: the next heartbeat follows a second later.
#[async_trait]
pub trait HeartbeatStore: Send + 'static {
    /// Replaces the heartbeat of a role.
    async fn publish(&mut self, role: ProjectorRole, heartbeat: Heartbeat);

    /// Removes the heartbeat of a role.
    async fn remove(&mut self, role: ProjectorRole);

    /// Reads the last heartbeat of a role; `None` if it is missing or unreadable.
    async fn read(&mut self, role: ProjectorRole) -> Option<Heartbeat>;
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
    fn a_heartbeat_is_recent_for_five_seconds() {
        assert!(heartbeat(10_000).is_recent(Timestamp::from_millis(15_000)));
        assert!(!heartbeat(10_000).is_recent(Timestamp::from_millis(15_001)));
        assert!(
            heartbeat(10_000).is_recent(Timestamp::from_millis(9_000)),
            "a heartbeat from the future is recent, since the clocks of two machines differ"
        );
    }
}
