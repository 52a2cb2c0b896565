//! Short texts from operators and from request paths: times, durations, points of the log, stream names, numbers, URLs.

use std::time::Duration;

use chat_domain::{AppToken, ChatNumber, MessageNumber, StreamId, Timestamp};
use chat_operations::audit::time::{parse_duration, parse_time};
use chat_operations::audit::{EventSelector, LogPoint};
use chat_operations::replay::EndpointOptions;
use chat_ports::event_store::LogId;
use chat_web::client_address::TrustedProxies;
use chat_web::host_policy::AllowedHosts;

/// The times that RFC 3339 can write, in milliseconds since 1970: years 0 to 9999.
const WRITABLE_TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Parsed values can be written and read back, durations are the sums of their parts, and a URL that a replay
/// accepts holds no credentials.
pub fn check(case: &[u8]) {
    let Ok(text) = str::from_utf8(case) else { return };
    if let Some(time) = parse_time(text).filter(|time| WRITABLE_TIMES.contains(&time.millis())) {
        assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Some(time));
    }
    assert_eq!(parse_duration(text), sum_of_parts(text), "{text}");
    match LogPoint::parse(text) {
        Some(LogPoint::Position(position)) => assert_eq!(position.to_string(), canonical(text)),
        Some(LogPoint::Time(time)) => assert_eq!(parse_time(text), Some(time)),
        None => {}
    }
    match EventSelector::parse(text) {
        Some(EventSelector::Position(position)) => assert_eq!(position.to_string(), canonical(text)),
        Some(EventSelector::Id(id)) => {
            assert_eq!(EventSelector::parse(&id.uuid().to_string()), Some(EventSelector::Id(id)));
        }
        None => {}
    }
    if let Ok(stream) = StreamId::parse(text) {
        assert_eq!(stream.to_string(), text);
    }
    if let Ok(number) = ChatNumber::parse(text) {
        assert_eq!(number.to_string(), text);
        assert_eq!(MessageNumber::parse(text).map(MessageNumber::get), Ok(number.get()));
    }
    if let Ok(token) = AppToken::parse(text) {
        assert_eq!(token.expose(), text);
        assert!(!format!("{token:?}").contains(text));
    }
    if EndpointOptions::new(text, LogId::NIL).is_ok() {
        let authority = text.split_once("://").expect("a scheme").1.split(['/', '?', '#']).next();
        assert!(!authority.is_some_and(|authority| authority.contains('@')), "credentials in {text}");
    }
    let _ = (text.parse::<AllowedHosts>(), text.parse::<TrustedProxies>());
}

/// Removes leading zeros, but keeps the last digit.
fn canonical(digits: &str) -> &str {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() { "0" } else { digits }
}

/// The duration by the definition of its text: numbers, each followed by a unit.
fn sum_of_parts(text: &str) -> Option<Duration> {
    let (mut sum, mut digits) = (0_u128, String::new());
    for char in text.chars() {
        let unit: u128 = match char {
            '0'..='9' => {
                digits.push(char);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        let number: u128 = digits.parse().ok()?;
        digits.clear();
        sum = sum.checked_add(number.checked_mul(unit)?.checked_mul(1_000)?)?;
        if sum > u128::try_from(i64::MAX).ok()? {
            return None;
        }
    }
    let is_complete = !text.is_empty() && digits.is_empty();
    u64::try_from(sum).ok().filter(|_| is_complete).map(Duration::from_millis)
}
