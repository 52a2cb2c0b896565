//! Times and places in the log as operators write them.

use std::time::Duration;

use chat_domain::{Position, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError};
use serde::Serializer;

use super::seek;

/// How far apart the clocks of those who write may be, in milliseconds. An event's time is its writer's, so times need
/// not rise with positions; reads that look for a time go on for as long as an event may still follow whose writer's
/// clock was that much behind another's. Where clocks were further apart, positions tell for certain.
pub const MAX_CLOCK_SKEW_MS: i64 = 60_000;

/// Units of durations, in milliseconds.
const UNITS: [(char, i64); 5] =
    [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000), ('w', 7 * 86_400_000)];

/// Reads a time: RFC 3339, or a date alone, which is its first moment in UTC. `None` where it is neither.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(text).or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
}

/// Reads a duration such as `2h`, `90s` or `1d12h`. `None` where it is none, or longer than there is time.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut millis = 0_i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let (unit, length) = UNITS.iter().find(|(unit, _)| after.starts_with(*unit))?;
        millis = millis.checked_add(number.parse::<i64>().ok()?.checked_mul(*length)?)?;
        rest = &after[unit.len_utf8()..];
    }
    (!text.is_empty()).then(|| u64::try_from(millis).ok()).flatten().map(Duration::from_millis)
}

/// A place in the log, named by position or by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPoint {
    /// After the event at this position.
    Position(Position),
    /// After the last event recorded at this time or before.
    Time(Timestamp),
}

impl LogPoint {
    /// Reads a position (digits) or a time. `None` where it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit()) {
            return text.parse().ok().map(|position| Self::Position(Position::new(position)));
        }
        parse_time(text).map(Self::Time)
    }

    /// The position that the point stands for: everything up to it counts. [`Position::START`] where the log had no
    /// event yet.
    pub async fn resolve(self, log: &dyn EventStore) -> Result<Position, EventStoreError> {
        match self {
            Self::Position(position) => Ok(position),
            Self::Time(time) => seek::last_position_recorded_by(log, time).await,
        }
    }
}

/// Writes a time as RFC 3339 UTC with milliseconds.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks")]
pub(super) fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_parts() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("2h"), Some(7_200));
        assert_eq!(seconds("1w1d12h"), Some(8 * 86_400 + 43_200));
        for wrong in ["", "2", "h", "2 h", "-2h", "2y", "99999999999999999999d", "9223372036854775807w"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_date_is_its_first_moment() {
        assert_eq!(parse_time("2026-09-21"), Timestamp::parse_rfc3339("2026-09-21T00:00:00Z"));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn digits_are_a_position_and_all_else_a_time() {
        assert_eq!(LogPoint::parse("2026"), Some(LogPoint::Position(Position::new(2026))));
        let time = Timestamp::from_millis(1_790_000_000_007);
        assert_eq!(LogPoint::parse(&time.to_string()), Some(LogPoint::Time(time)));
        for wrong in ["", "-1", "99999999999999999999", "now"] {
            assert_eq!(LogPoint::parse(wrong), None, "{wrong}");
        }
    }
}
