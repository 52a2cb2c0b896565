//! Points in the log as operators write them: a position or a time.

use chat_domain::{Position, Timestamp};
use chat_ports::clock;
use chat_ports::event_store::{EventStore, EventStoreError};

use super::seek;
use super::time::parse_time;
use crate::envelope::Diagnostic;

/// A point in the log, given by position or by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPoint {
    /// After the event at this position.
    Position(Position),
    /// After the last event recorded at this time or before.
    Time(Timestamp),
}

/// A point that was found in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPoint {
    /// The position that [`LogPoint::resolve`] returns, but at most the head of the log.
    pub position: Position,
    /// The position that [`LogPoint::resolve`] returns.
    pub unclamped_position: Position,
    /// A warning if the point is beyond the head of the log or in the future.
    pub remark: Option<Diagnostic>,
}

impl LogPoint {
    /// Parses a position (digits) or a time. `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(position) = Position::parse(text) {
            return Some(Self::Position(position));
        }
        parse_time(text).map(Self::Time)
    }

    /// Finds the position like [`LogPoint::resolve`]. A point beyond the head of the log resolves to the head, with a
    /// remark.
    pub async fn resolve_up_to_head(self, log: &dyn EventStore) -> Result<ResolvedPoint, EventStoreError> {
        let unclamped_position = self.resolve(log).await?;
        let head = log.head().await?;
        let remark = match self {
            Self::Position(position) if position > head => Some(Diagnostic::warning(format!(
                "position {position} is beyond the head of the log, which is {head}"
            ))),
            Self::Time(time) if time > clock::now() => Some(Diagnostic::warning(format!(
                "{time} is in the future: the last event so far is at {head}"
            ))),
            _ => None,
        };
        Ok(ResolvedPoint { position: unclamped_position.min(head), unclamped_position, remark })
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
    fn parses_positions_and_times_and_nothing_else() {
        assert_eq!(LogPoint::parse("2026"), Some(LogPoint::Position(Position::new(2026))));
        let time = Timestamp::from_millis(1_790_000_000_007);
        assert_eq!(LogPoint::parse(&time.to_string()), Some(LogPoint::Time(time)));
        for wrong in ["", "-1", "9223372036854775808", "99999999999999999999", "now"] {
            assert_eq!(LogPoint::parse(wrong), None, "{wrong}");
        }
    }
}
