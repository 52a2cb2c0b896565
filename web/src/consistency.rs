//! Consistency tokens: read-your-writes across processes with `Consistency-Token` and `Prefer: wait`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::FromRequestParts;
use chat_domain::Position;
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

/// The longest wait that a client may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(10);

const TOKEN_PREFIX: &str = "v1-";

/// A position of the log as clients send it back: opaque to them, `v1-` and base 36 to the server.
///
/// ```
/// use chat_domain::Position;
/// use chat_web::consistency::ConsistencyToken;
///
/// let token = ConsistencyToken(Position::new(1_000));
/// assert_eq!(token.to_string(), "v1-rs");
/// assert_eq!("v1-rs".parse(), Ok(token));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyToken(pub Position);

/// Text that is not a consistency token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a consistency token")]
pub struct InvalidConsistencyToken;

impl FromStr for ConsistencyToken {
    type Err = InvalidConsistencyToken;

    fn from_str(text: &str) -> Result<Self, InvalidConsistencyToken> {
        let digits = text.strip_prefix(TOKEN_PREFIX).ok_or(InvalidConsistencyToken)?;
        if !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'z')) {
            return Err(InvalidConsistencyToken);
        }
        let position = u64::from_str_radix(digits, 36).map_err(|_| InvalidConsistencyToken)?;
        Ok(Self(Position::new(position)))
    }
}

impl fmt::Display for ConsistencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 13 digits hold every u64.
        let mut digits = [0; 13];
        let mut start = digits.len();
        let mut rest = self.0.get();
        loop {
            start -= 1;
            digits[start] =
                b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(rest % 36).unwrap_or_default()];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        write!(f, "{TOKEN_PREFIX}{}", std::str::from_utf8(&digits[start..]).unwrap_or_default())
    }
}

impl From<ConsistencyToken> for HeaderValue {
    fn from(token: ConsistencyToken) -> Self {
        // Letters, digits and a hyphen are a valid header value, so the fallback is never used.
        Self::try_from(token.to_string()).unwrap_or_else(|_| Self::from_static("v1-0"))
    }
}

/// The freshness that a query requires of its snapshot. An extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The snapshot must be at this position or later.
    pub min_position: Option<Position>,
    /// How long to wait for that position.
    pub max_wait: Duration,
}

impl<S: Sync> FromRequestParts<S> for Freshness {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self { min_position: newest_token(&parts.headers)?, max_wait: preferred_wait(&parts.headers) })
    }
}

/// Returns the newest of the tokens sent: a client may have written through several connections.
fn newest_token(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let mut newest = None;
    for value in headers.get_all(CONSISTENCY_TOKEN) {
        for text in value.to_str().map_err(|_| malformed_token())?.split(',') {
            let token: ConsistencyToken = text.trim().parse().map_err(|_| malformed_token())?;
            newest = newest.max(Some(token.0));
        }
    }
    Ok(newest)
}

fn malformed_token() -> Problem {
    Problem::new(
        ErrorCode::MalformedQuery,
        "the header Consistency-Token must be a token that this server issued",
    )
}

/// Returns the first `wait` preference (RFC 7240, 4.3), at most [`MAX_WAIT`]. Malformed preferences are ignored, as the
/// RFC requires.
fn preferred_wait(headers: &HeaderMap) -> Duration {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(parse_wait_preference)
        .map_or(DEFAULT_WAIT, |seconds| Duration::from_secs(seconds).min(MAX_WAIT))
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
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn tokens_round_trip() {
        for position in [0, 1, 35, 36, 1_000_000, u64::MAX] {
            let token = ConsistencyToken(Position::new(position));
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn rejects_other_text() {
        for wrong in ["", "v1-", "v1", "1000", "v2-rs", "v1-RS", "v1-+1", "v1- 1", "v1-zzzzzzzzzzzzzz"] {
            assert_eq!(wrong.parse::<ConsistencyToken>(), Err(InvalidConsistencyToken), "{wrong}");
        }
    }

    #[test]
    fn the_newest_of_several_tokens_counts() {
        let headers = headers(&[("consistency-token", "v1-a, v1-1"), ("consistency-token", "v1-9")]);
        assert_eq!(newest_token(&headers).unwrap(), Some(Position::new(10)));
    }

    #[test]
    fn names_the_header_of_a_malformed_token() {
        let problem = newest_token(&headers(&[("consistency-token", "yesterday")])).unwrap_err();
        assert_eq!(problem.code(), ErrorCode::MalformedQuery);
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
