//! Values as pages show them. Templates call these functions with values or references.

use std::borrow::Borrow;

use chat_domain::metadata::Actor;
use chat_domain::{AppToken, Timestamp};
use chat_operations::audit::filter::actor_kind_name;

/// The number of characters of a token that pages show: enough to find the app by.
const TOKEN_PREFIX: usize = 4;

/// A time, in UTC for machines and for browsers without scripts. The script shows it in the reader's time zone, unless
/// the reader switches to UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Time {
    /// Parses an RFC 3339 time.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Timestamp::parse_rfc3339(text).map(Self)
    }

    /// The time for machines, in the format of RFC 3339.
    pub(crate) fn machine(self) -> String {
        self.0.to_string()
    }

    /// The hour and minute for people: `21:58 UTC`.
    pub(crate) fn time_of_day(self) -> String {
        format!("{} UTC", self.0.to_string().get(11..16).unwrap_or_default())
    }

    /// The time for people: `2026-11-29 21:58:03.120 UTC`.
    pub(crate) fn text(self) -> String {
        let text = self.0.to_string();
        match text.split_once('T') {
            Some((date, time)) => format!("{date} {} UTC", time.trim_end_matches('Z')),
            None => text,
        }
    }
}

/// A timestamp as a [`Time`]. Templates call this with the timestamps of read model rows.
pub(crate) fn time(time: impl Borrow<Timestamp>) -> Time {
    Time(*time.borrow())
}

/// A number with its thousands set apart: `1,234,567`.
pub(crate) fn number(number: impl Borrow<u64>) -> String {
    let digits = number.borrow().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of things with its thousands set apart, such as `1 event` or `1,200 events`.
pub(crate) fn counted(count: impl Borrow<u64>, noun: &str) -> String {
    let count = count.borrow();
    let ending = if *count == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", number(count))
}

/// A size: `12.4 MiB`.
pub(crate) fn bytes(bytes: impl Borrow<u64>) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let bytes = *bytes.borrow();
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// A duration: `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn duration(millis: impl Borrow<u64>) -> String {
    let millis = *millis.borrow();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

/// An identifier in words: `read_model` as `Read model`.
pub(crate) fn in_words(name: &str) -> String {
    let spaced = name.replace('_', " ");
    let mut characters = spaced.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The beginning of an app's token.
pub(crate) fn short_token(token: &AppToken) -> String {
    short_secret(token.expose())
}

/// The beginning of a secret. Nothing is assumed about its format.
pub(crate) fn short_secret(text: &str) -> String {
    text.chars().take(TOKEN_PREFIX).chain(['…']).collect()
}

/// Shortens the tokens of the stream names in a text.
pub(crate) fn shorten_tokens(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) =
        ["app-", "chat-"].iter().filter_map(|prefix| Some(rest.find(prefix)? + prefix.len())).min()
    {
        let (before, after) = rest.split_at(start);
        shown.push_str(before);
        rest = match after.get(..AppToken::LENGTH).map(AppToken::parse) {
            Some(Ok(token)) => {
                shown.push_str(&short_token(&token));
                &after[AppToken::LENGTH..]
            }
            Some(Err(_)) | None => after,
        };
    }
    shown + rest
}

/// A reason as a sentence: with a capital and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map_or_else(String::new, |first| first.to_uppercase().collect());
    format!("{first}{}.", characters.as_str())
}

/// Returns the text of an actor: `operator alice@ops-1`, `app`.
pub(crate) fn actor(actor: &Actor) -> String {
    let kind = actor_kind_name(actor.kind);
    match &actor.name {
        Some(name) => format!("{kind} {name}"),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_set_apart() {
        let texts: Vec<_> = [0_u64, 999, 1_000, 12_345, 1_234_567].into_iter().map(number).collect();
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!([bytes(5_u64), bytes(1_536_u64), bytes(3_u64 << 30)], ["5 B", "1.5 KiB", "3.0 GiB"]);
        let durations: Vec<_> =
            [850_u64, 12_400, 180_000, 18_000_000, 200_000_000].into_iter().map(duration).collect();
        assert_eq!(durations, ["850 ms", "12 s", "3 min", "5 h", "2 d"]);
    }

    #[test]
    fn tokens_of_streams_are_shortened() {
        let token = "k".repeat(36);
        let shown = shorten_tokens(&format!("app-x chat-{token}-3 and app-{token}, app-"));
        assert_eq!(shown, "app-x chat-kkkk…-3 and app-kkkk…, app-");
        assert_eq!(shorten_tokens("é"), "é");
    }

    #[test]
    fn times_are_shown_in_utc() {
        let time = Time(Timestamp::from_millis(1_790_000_000_007));
        assert_eq!(time.text(), "2026-09-21 14:13:20.007 UTC");
        assert_eq!(time.machine(), "2026-09-21T14:13:20.007Z");
    }
}
