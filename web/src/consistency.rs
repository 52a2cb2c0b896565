//! Consistency tokens: read-your-writes across processes with `Consistency-Token` and `Prefer: wait`.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, iter};

use axum::extract::{FromRef, FromRequestParts};
use chat_domain::Position;
use chat_ports::event_store::{LogId, LogLineage};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The request and response header of a [`ConsistencyToken`].
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// The response header with the age of a query's snapshot: milliseconds behind the log.
pub const READ_MODEL_LAG: HeaderName = HeaderName::from_static("read-model-lag");

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long a query waits for its token by default.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(2);

/// The longest wait that a client may request.
pub const MAX_WAIT: Duration = Duration::from_secs(10);

const TOKEN_PREFIX: &str = "v1-";

/// The number of bits of a [`LogTag`]. Two logs have the same tag with a probability of 1 in 2^48.
const LOG_TAG_BITS: u32 = 48;

/// A short value derived from the identity of the log's incarnation, the same in all processes on the log. It
/// distinguishes the tokens of this log from those of another log, or of this log before a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTag(u64);

impl LogTag {
    const MAX: u64 = (1 << LOG_TAG_BITS) - 1;
}

impl From<LogId> for LogTag {
    fn from(log: LogId) -> Self {
        // The identity is a random UUID, whose last bits are random.
        let (_, last_bits) = log.0.as_u64_pair();
        Self(last_bits & Self::MAX)
    }
}

/// A position of one log, as clients send it back. Opaque to clients. Consists of `v1-`, the log's tag, a full stop and
/// the position. Tag and position are numbers in base 36.
///
/// ```
/// use chat_domain::Position;
/// use chat_ports::event_store::{LogId, LogLineage};
/// use chat_web::consistency::{ConsistencyToken, LogTag};
/// use uuid::Uuid;
///
/// let tag = LogTag::from(LogId(Uuid::from_u128(82)));
/// let token = ConsistencyToken::new(tag, Position::new(1_000));
/// assert_eq!(token.to_string(), "v1-2a.rs");
/// assert_eq!("v1-2a.rs".parse(), Ok(token));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyToken {
    /// `None` in a token of version 0.1, which had no tag.
    tag: Option<LogTag>,
    position: Position,
}

impl ConsistencyToken {
    /// Creates the token of a position of the log with this tag.
    pub fn new(tag: LogTag, position: Position) -> Self {
        Self { tag: Some(tag), position }
    }

    /// Returns the token's position in its log.
    pub fn position(self) -> Position {
        self.position
    }

    /// Returns the token's position in a log with this lineage. `None` if the token is of another log, or if the log
    /// has not kept all events up to the position. Does not check whether the log has reached the position.
    pub fn position_in(self, lineage: &LogLineage) -> Option<Position> {
        let incarnations = lineage.later().iter().map(|incarnation| incarnation.log);
        let mut logs = iter::once(lineage.original()).chain(incarnations);
        let log = match self.tag {
            Some(tag) => logs.find(|log| LogTag::from(*log) == tag),
            // Version 0.1 issued the token. It knew only the original incarnation.
            None => Some(lineage.original()),
        };
        // Passes the largest position as the head, so that a position that the log has not reached yet is accepted.
        let is_kept = |log: &LogId| lineage.check(*log, self.position, Position::new(u64::MAX)).is_ok();
        log.filter(is_kept).map(|_| self.position)
    }
}

/// The error for text that is not a consistency token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a consistency token")]
pub struct InvalidConsistencyToken;

impl FromStr for ConsistencyToken {
    type Err = InvalidConsistencyToken;

    fn from_str(text: &str) -> Result<Self, InvalidConsistencyToken> {
        let text = text.strip_prefix(TOKEN_PREFIX).ok_or(InvalidConsistencyToken)?;
        let (tag, position) = match text.split_once('.') {
            Some((tag, position)) => (Some(parse_base36(tag)?), position),
            None => (None, text),
        };
        if tag.is_some_and(|tag| tag > LogTag::MAX) {
            return Err(InvalidConsistencyToken);
        }
        Ok(Self { tag: tag.map(LogTag), position: Position::new(parse_base36(position)?) })
    }
}

fn parse_base36(digits: &str) -> Result<u64, InvalidConsistencyToken> {
    if !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'z')) {
        return Err(InvalidConsistencyToken);
    }
    u64::from_str_radix(digits, 36).map_err(|_| InvalidConsistencyToken)
}

impl fmt::Display for ConsistencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TOKEN_PREFIX)?;
        if let Some(LogTag(tag)) = self.tag {
            write_base36(f, tag)?;
            f.write_str(".")?;
        }
        write_base36(f, self.position.get())
    }
}

fn write_base36(f: &mut fmt::Formatter<'_>, value: u64) -> fmt::Result {
    // 13 digits of base 36 hold every u64.
    let mut digits = [0; 13];
    let mut start = digits.len();
    let mut rest = value;
    loop {
        start -= 1;
        digits[start] =
            b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(rest % 36).unwrap_or_default()];
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    f.write_str(std::str::from_utf8(&digits[start..]).unwrap_or_default())
}

impl From<ConsistencyToken> for HeaderValue {
    fn from(token: ConsistencyToken) -> Self {
        // Letters, digits, a hyphen and a full stop are a valid header value, so the fallback is never used.
        Self::try_from(token.to_string()).unwrap_or_else(|_| Self::from_static("v1-0"))
    }
}

/// The freshness that a query requires of its snapshot. As an extractor, it refuses tokens of another log, and tokens
/// of an earlier incarnation for events that the log no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The snapshot must be at this position or later.
    pub min_position: Option<Position>,
    /// How long to wait for that position.
    pub max_wait: Duration,
}

impl<S: Sync> FromRequestParts<S> for Freshness
where
    Arc<LogLineage>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let min_position = newest_position(&parts.headers, &Arc::<LogLineage>::from_ref(state))?;
        Ok(Self { min_position, max_wait: preferred_wait(&parts.headers) })
    }
}

/// Returns the newest position of the tokens sent: a client may have written through several connections.
fn newest_position(headers: &HeaderMap, lineage: &LogLineage) -> Result<Option<Position>, Problem> {
    let mut newest = None;
    for value in headers.get_all(CONSISTENCY_TOKEN) {
        for text in value.to_str().map_err(|_| malformed_token())?.split(',') {
            let token: ConsistencyToken = text.trim().parse().map_err(|_| malformed_token())?;
            let position = token.position_in(lineage).ok_or(ErrorCode::ConsistencyTokenUnknown)?;
            newest = newest.max(Some(position));
        }
    }
    Ok(newest)
}

fn malformed_token() -> Problem {
    Problem::new(ErrorCode::MalformedHeader, "`Consistency-Token` must be the token of a response, unchanged")
}

/// Returns how long the client wants a query to wait for its token, at most [`MAX_WAIT`].
fn preferred_wait(headers: &HeaderMap) -> Duration {
    wait_preference(headers).map_or(DEFAULT_WAIT, |wait| wait.min(MAX_WAIT))
}

/// Returns the first `wait` preference (RFC 7240, 4.3). Malformed preferences are ignored, as the RFC requires.
pub fn wait_preference(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(parse_wait_preference)
        .map(Duration::from_secs)
}

fn parse_wait_preference(preference: &str) -> Option<u64> {
    let (preference, _parameters) = preference.split_once(';').unwrap_or((preference, ""));
    let (name, value) = preference.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // All characters are digits, so parsing fails only for a number that is too large.
    Some(value.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use chat_domain::Timestamp;
    use chat_ports::event_store::NewIncarnation;
    use uuid::Uuid;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    /// A log whose tag was `100` (base 36, 1,296 in decimal) until it was set back to position 40. Since then its tag
    /// is `2s` (base 36, 100 in decimal).
    fn lineage() -> LogLineage {
        let later = NewIncarnation {
            log: LogId(Uuid::from_u128(100)),
            began_at: Timestamp::from_millis(0),
            reason: "a test".to_owned(),
            replaces: Vec::new(),
        };
        LogLineage::new(LogId(Uuid::from_u128(1_296)), vec![later.begun_after(Position::new(40))])
    }

    fn newest(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
        newest_position(headers, &lineage())
    }

    #[test]
    fn tokens_round_trip() {
        for position in [0, 1, 35, 36, 1_000_000, u64::MAX] {
            for tag in [Some(LogTag(0)), Some(LogTag(LogTag::MAX)), None] {
                let token = ConsistencyToken { tag, position: Position::new(position) };
                assert_eq!(token.to_string().parse(), Ok(token));
            }
        }
    }

    #[test]
    fn rejects_other_text() {
        for wrong in [
            "",
            "v1-",
            "v1",
            "1000",
            "v2-rs",
            "v1-RS",
            "v1-+1",
            "v1- 1",
            "v1-zzzzzzzzzzzzzz",
            "v1-.1",
            "v1-1.",
            "v1-1.1.1",
            "v1-+1.1",
            "v1-zzzzzzzzzz.1",
        ] {
            assert_eq!(wrong.parse::<ConsistencyToken>(), Err(InvalidConsistencyToken), "{wrong}");
        }
    }

    #[test]
    fn the_newest_of_several_tokens_counts() {
        let headers = headers(&[("consistency-token", "v1-2s.a, v1-2s.1"), ("consistency-token", "v1-9")]);
        assert_eq!(newest(&headers).unwrap(), Some(Position::new(10)));
    }

    #[test]
    fn a_token_of_another_log_is_unknown() {
        for tokens in ["v1-101.1", "v1-2s.1, v1-101.1", "v1-0.1"] {
            let problem = newest(&headers(&[("consistency-token", tokens)])).unwrap_err();
            assert_eq!(problem.code(), ErrorCode::ConsistencyTokenUnknown, "{tokens}");
        }
    }

    #[test]
    fn a_token_of_version_0_1_is_accepted() {
        let headers = headers(&[("consistency-token", "v1-12")]);
        assert_eq!(newest(&headers).unwrap(), Some(Position::new(38)));
    }

    #[test]
    fn a_token_of_an_earlier_incarnation_is_good_up_to_where_the_log_was_set_back() {
        let newest_of = |token| newest(&headers(&[("consistency-token", token)]));
        for (token, position) in [("v1-100.14", 40), ("v1-14", 40), ("v1-2s.15", 41), ("v1-2s.zz", 1_295)] {
            assert_eq!(newest_of(token).unwrap(), Some(Position::new(position)), "{token}");
        }
        for token in ["v1-100.15", "v1-15"] {
            assert_eq!(newest_of(token).unwrap_err().code(), ErrorCode::ConsistencyTokenUnknown, "{token}");
        }
    }

    #[test]
    fn names_the_header_of_a_malformed_token() {
        let problem = newest(&headers(&[("consistency-token", "yesterday")])).unwrap_err();
        assert_eq!(problem.code(), ErrorCode::MalformedHeader);
        assert!(problem.detail().contains("Consistency-Token"));
    }

    #[test]
    fn reads_the_preferred_wait() {
        let wait = |pairs: &[_]| preferred_wait(&headers(pairs)).as_secs();
        assert_eq!(wait(&[]), 2);
        assert_eq!(wait(&[("prefer", "wait=5")]), 5);
        assert_eq!(wait(&[("prefer", "wait=0")]), 0);
        assert_eq!(wait(&[("prefer", "respond-async, WAIT = \"3\"; why=not")]), 3);
        assert_eq!(wait(&[("prefer", "handling=lenient"), ("prefer", "wait=4, wait=1")]), 4);
    }

    #[test]
    fn caps_the_preferred_wait() {
        let wait = |value| preferred_wait(&headers(&[("prefer", value)])).as_secs();
        assert_eq!(wait("wait=11"), 10);
        assert_eq!(wait("wait=99999999999999999999999"), 10);
    }

    #[test]
    fn ignores_malformed_preferences() {
        for value in ["wait=-1", "wait=", "wait", "wait=soon", "wait=1.5", "waiting=9", ",;="] {
            assert_eq!(parse_wait_preference(value), None, "{value}");
        }
    }
}
