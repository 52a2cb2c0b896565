//! Times and durations as operators write them.

use std::time::Duration;

use chat_domain::Timestamp;
use serde::Serializer;

/// The assumed greatest difference between the clocks of writers, in milliseconds.
///
/// The writer of an event sets its time, so times need not rise with positions. A read bounded by time therefore does
/// not end at the first event outside the bound, but only at an event outside it by more than this difference. In case
/// clocks differ by more, such a read also probes events beyond its ends, and reads on if one of them is within the bound.
/// It may still miss events; a read bounded by positions misses none.
pub const MAX_CLOCK_SKEW_MS: i64 = 60_000;

/// Units of durations, in milliseconds.
const UNITS: [(char, i64); 5] =
    [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000), ('w', 7 * 86_400_000)];

/// Parses a time in the format of RFC 3339, or a date, which stands for its start in UTC. `None` if it is neither.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(text).or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
}

/// Parses a duration such as `2h`, `90s` or `1d12h`. `None` if it is malformed or out of range.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut millis = 0_i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digit_count = rest.find(|character: char| !character.is_ascii_digit())?;
        let (number, after) = rest.split_at(digit_count);
        let (unit, length) = UNITS.iter().find(|(unit, _)| after.starts_with(*unit))?;
        millis = millis.checked_add(number.parse::<i64>().ok()?.checked_mul(*length)?)?;
        rest = &after[unit.len_utf8()..];
    }
    (!text.is_empty()).then(|| u64::try_from(millis).ok()).flatten().map(Duration::from_millis)
}

/// Serializes a time as RFC 3339 in UTC, with milliseconds.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
pub(super) fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_parts_of_durations_and_rejects_malformed_ones() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("2h"), Some(7_200));
        assert_eq!(seconds("1w1d12h"), Some(8 * 86_400 + 43_200));
        for wrong in ["", "2", "h", "2 h", "-2h", "2y", "99999999999999999999d", "9223372036854775807w"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parses_a_date_as_its_start_and_rejects_words() {
        assert_eq!(parse_time("2026-09-21"), Timestamp::parse_rfc3339("2026-09-21T00:00:00Z"));
        assert_eq!(parse_time("yesterday"), None);
    }
}
