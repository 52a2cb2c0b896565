//! Times and numbers that were copied from a page into a field.

/// The length of a date and a time without seconds: `2026-11-29 21:58`.
const MINUTES_CHARS: usize = 16;

/// The index of the space between date and time.
const SPACE: usize = 10;

/// Returns a value in the format that the parsers of fields accept: a time as in RFC 3339, a number without commas.
/// Pages show times as `2026-11-29 21:58:03.120 UTC`, and numbers with their thousands set apart. A text that looks
/// like neither is returned without white space around it.
pub(crate) fn to_parsable(text: &str) -> String {
    let text = text.trim();
    time(text).or_else(|| number(text)).unwrap_or_else(|| text.to_owned())
}

/// Converts a time to the format of RFC 3339. A time without a zone is in UTC.
fn time(text: &str) -> Option<String> {
    let text = text.strip_suffix("UTC").map_or(text, str::trim_end);
    let may_be_time = text.is_ascii()
        && text.len() >= MINUTES_CHARS
        && text.starts_with(|first: char| first.is_ascii_digit());
    if !may_be_time || text.as_bytes()[SPACE] != b' ' {
        return None;
    }
    let (date, clock) = (&text[..SPACE], &text[SPACE + 1..]);
    let seconds = if clock.len() == "21:58".len() { ":00" } else { "" };
    let zone = if clock.contains(['Z', '+', '-']) { "" } else { "Z" };
    Some(format!("{date}T{clock}{seconds}{zone}"))
}

/// Removes the commas of a number such as `1,234,567`.
fn number(text: &str) -> Option<String> {
    let (first, rest) = text.split_once(',')?;
    let has_digits = |part: &str, counts: std::ops::RangeInclusive<usize>| {
        counts.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_number = has_digits(first, 1..=3) && rest.split(',').all(|part| has_digits(part, 3..=3));
    is_number.then(|| text.replace(',', ""))
}

#[cfg(test)]
mod tests {
    use chat_domain::Timestamp;

    use super::*;
    use crate::text;

    #[test]
    fn times_and_numbers_as_pages_show_them_can_be_parsed() {
        let time = Timestamp::from_millis(1_790_000_000_007);
        let parsed = Timestamp::parse_rfc3339(&to_parsable(&text::Time(time).text()));
        assert_eq!(parsed, Some(time));
        for number in [7_u64, 1_200, 1_234_567] {
            assert_eq!(to_parsable(&text::number(number)), number.to_string());
        }
    }

    #[test]
    fn a_time_may_lack_seconds_or_have_a_zone() {
        for (shown, expected) in [
            ("2026-11-29 21:58", "2026-11-29T21:58:00Z"),
            ("2026-11-29 21:58:03", "2026-11-29T21:58:03Z"),
            (" 2026-11-29 21:58:03.120 UTC ", "2026-11-29T21:58:03.120Z"),
            ("2026-11-29 21:58:03+01:00", "2026-11-29T21:58:03+01:00"),
            ("2026-11-29T21:58:03Z", "2026-11-29T21:58:03Z"),
        ] {
            assert_eq!(to_parsable(shown), expected);
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in
            ["2h", "2026-11-29", "1,2", "12,3456", "a,bcd", "ääääääääää bbbbb", "yesterday evening ago", ""]
        {
            assert_eq!(to_parsable(text), text);
        }
    }
}
