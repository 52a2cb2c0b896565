//! Timestamps with millisecond precision.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z. Displayed as RFC 3339 UTC with milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates a timestamp from milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The milliseconds since 1970-01-01T00:00:00Z.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Formats the time as RFC 3339, which has only the years 0 to 9999: a time outside of them is moved to the first
    /// second of 1970. A page of messages holds a hundred timestamps, so this avoids the slower general formatter.
    pub fn to_rfc3339(self) -> Rfc3339Text {
        let time = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1_000))
            .ok()
            .filter(|time| time.year() >= 0)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second) = time.to_hms();
        let (year, millis) = (year.unsigned_abs(), u32::try_from(self.0.rem_euclid(1_000)).unwrap_or(0));
        let mut text = *b"0000-00-00T00:00:00.000Z";
        write_digits(&mut text[..4], year);
        write_digits(&mut text[20..23], millis);
        for (offset, value) in [(5, u8::from(month)), (8, day), (11, hour), (14, minute), (17, second)] {
            write_digits(&mut text[offset..offset + 2], u32::from(value));
        }
        Rfc3339Text(text)
    }

    /// Parses an RFC 3339 time, truncated to milliseconds; `None` if the text is not valid.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_rfc3339().as_str())
    }
}

/// The text of a timestamp: RFC 3339 UTC with milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339Text([u8; 24]);

impl Rfc3339Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Writes a number with leading zeros. The number must not have more digits than the buffer.
fn write_digits(buffer: &mut [u8], mut number: u32) {
    for digit in buffer.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_milliseconds_and_parses_them_back() {
        let time = Timestamp::from_millis(1_790_000_000_007);
        assert_eq!(time.to_string(), "2026-09-21T14:13:20.007Z");
        assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Some(time));
    }

    #[test]
    fn formats_every_part_of_a_timestamp() {
        for text in [
            "1970-01-01T00:00:00.000Z",
            "1969-12-31T23:59:59.999Z",
            "2000-02-29T01:02:03.004Z",
            "0000-01-01T00:00:00.000Z",
            "9999-12-31T23:59:59.999Z",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text).map(|time| time.to_string()).as_deref(), Some(text));
        }
        // RFC 3339 has no years before 0 and after 9999. Such a time is shown in the first second of 1970.
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "1970-01-01T00:00:00.807Z");
        assert_eq!(Timestamp::from_millis(-62_198_755_200_000).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn parses_offsets_and_truncates_finer_fractions() {
        let time = Timestamp::parse_rfc3339("1969-12-31T23:59:59.9995-01:00");
        assert_eq!(time.map(Timestamp::millis), Some(3_599_999));
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }
}
