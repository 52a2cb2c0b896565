//! Points in the log as operators write them: a position or a time.

use chat_domain::{Position, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError};

use super::seek;
use super::time::parse_time;

/// A point in the log, given by position or by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPoint {
    /// After the event at this position.
    Position(Position),
    /// After the last event recorded at this time or before.
    Time(Timestamp),
}

impl LogPoint {
    /// Parses a position (digits) or a time. `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(position) = Position::parse(text) {
            return Some(Self::Position(position));
        }
        parse_time(text).map(Self::Time)
    }

    /// Returns a position unchanged. For a time, finds the position of the last event up to it; [`Position::START`]
    /// if there is none.
    pub async fn resolve(self, log: &dyn EventStore) -> Result<Position, EventStoreError> {
        match self {
            Self::Position(position) => Ok(position),
            Self::Time(time) => seek::last_position_recorded_by(log, time).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_digits_as_a_position_and_other_text_as_a_time() {
        assert_eq!(LogPoint::parse("2026"), Some(LogPoint::Position(Position::new(2026))));
        let time = Timestamp::from_millis(1_790_000_000_007);
        assert_eq!(LogPoint::parse(&time.to_string()), Some(LogPoint::Time(time)));
        for wrong in ["", "-1", "9223372036854775808", "99999999999999999999", "now"] {
            assert_eq!(LogPoint::parse(wrong), None, "{wrong}");
        }
    }
}
