//! Positions in the whole log and revisions in one stream.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The position of an event in the whole log. Positions rise in commit order: no event is ever added before a position
/// that a reader has read. Positions need not be consecutive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

/// The error for text that is not a position.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a position is a whole number from 0 to {}", i64::MAX)]
pub struct InvalidPosition;

impl Position {
    /// The position before the first event.
    pub const START: Self = Self(0);

    /// Parses a position: decimal digits, at most [`i64::MAX`]. No event store has a greater one, and clients read
    /// positions as signed integers.
    pub fn parse(text: &str) -> Result<Self, InvalidPosition> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidPosition);
        }
        let position = text.parse::<i64>().ok().and_then(|position| u64::try_from(position).ok());
        position.map(Self).ok_or(InvalidPosition)
    }

    /// Creates a position from the number that an event store assigned; 0 is before the first event.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The position as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The revision of an event in its stream: 0, 1, 2 … without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// The revision of a stream's first event.
    pub const FIRST: Self = Self(0);

    /// Creates a revision from a number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The revision as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The revision that an append expects its stream to end with. If the stream ends with another revision, the append is
/// a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpectedRevision {
    /// The stream has no event yet.
    NoStream,
    /// The stream's last event has this revision.
    Exact(Revision),
}

impl ExpectedRevision {
    /// Expects `last` as the revision of the stream's last event.
    pub fn from_last_revision(last: Option<Revision>) -> Self {
        last.map_or(Self::NoStream, Self::Exact)
    }

    /// The revision that the first appended event gets.
    pub fn next(self) -> Revision {
        match self {
            Self::NoStream => Revision::FIRST,
            Self::Exact(last) => last.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_positions_that_a_log_can_have() {
        for (text, position) in [("0", 0), ("007", 7), ("9223372036854775807", i64::MAX.unsigned_abs())] {
            assert_eq!(Position::parse(text), Ok(Position::new(position)), "{text}");
        }
        for wrong in ["", "+1", "-1", " 1", "1a", "9223372036854775808", "18446744073709551616"] {
            assert_eq!(Position::parse(wrong), Err(InvalidPosition), "{wrong}");
        }
    }
}
