//! `Idempotency-Key`: the client's name for a command that it may send more than once.

use axum::extract::FromRequestParts;
use http::HeaderName;
use http::request::Parts;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The request header of an [`IdempotencyKey`].
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The response header that marks the replayed response of an earlier command with the same key.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key, in characters.
const MAX_LENGTH: usize = 255;

/// The key, if the client sent one: 1 to 255 visible ASCII characters. Either bare or a structured-field string (RFC
/// 9651, 3.3.3), as in draft-ietf-httpapi-idempotency-key-header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.next().is_some() {
            return Err(Problem::new(
                ErrorCode::IdempotencyKeyInvalid,
                "the header Idempotency-Key was sent more than once",
            ));
        }
        let key = parse_key(value.as_bytes().trim_ascii());
        key.map(|key| Self(Some(key))).ok_or_else(|| ErrorCode::IdempotencyKeyInvalid.into())
    }
}

fn parse_key(value: &[u8]) -> Option<String> {
    let key = match value {
        [b'"', quoted @ ..] => unquote(quoted)?,
        bare => bare.to_vec(),
    };
    let is_valid = (1..=MAX_LENGTH).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    String::from_utf8(key).ok().filter(|_| is_valid)
}

/// Returns the text up to the closing quote, which must be the last byte. A backslash may only escape a quote or a
/// backslash.
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut rest = quoted.iter();
    loop {
        match rest.next()? {
            b'\\' => text.push(*rest.next().filter(|next| matches!(next, b'"' | b'\\'))?),
            b'"' => return rest.as_slice().is_empty().then_some(text),
            byte => text.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    async fn key(lines: &[&[u8]]) -> Result<Option<String>, ErrorCode> {
        let mut request = Request::builder();
        for line in lines {
            request = request.header(IDEMPOTENCY_KEY, *line);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let extracted = IdempotencyKey::from_request_parts(&mut parts, &()).await;
        extracted.map(|key| key.0).map_err(|problem| problem.code())
    }

    #[tokio::test]
    async fn a_key_is_the_same_bare_and_quoted() {
        assert_eq!(key(&[]).await, Ok(None));
        let longest = "k".repeat(255);
        for (line, expected) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (" \"a\"\t", "a"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#"a"b\c"#, r#"a"b\c"#),
            ("a,b;c=1", "a,b;c=1"),
            (longest.as_str(), longest.as_str()),
            (&format!("\"{longest}\""), longest.as_str()),
        ] {
            assert_eq!(key(&[line.as_bytes()]).await, Ok(Some(expected.to_owned())), "{line}");
        }
    }

    #[tokio::test]
    async fn rejects_malformed_keys() {
        let too_long = "k".repeat(256);
        let lines: [&[u8]; 14] = [
            b"",
            b" ",
            b"\"\"",
            b"\"",
            b"\"a",
            b"\"a\"b",
            b"\"a\";b=1",
            b"\"a\", \"b\"",
            br#""a\b""#,
            br#""a\"#,
            b"a b",
            b"\"a b\"",
            "schlüssel".as_bytes(),
            too_long.as_bytes(),
        ];
        for line in lines {
            assert_eq!(key(&[line]).await, Err(ErrorCode::IdempotencyKeyInvalid), "{line:?}");
        }
    }

    #[tokio::test]
    async fn rejects_a_repeated_header() {
        assert_eq!(key(&[b"a", b"b"]).await, Err(ErrorCode::IdempotencyKeyInvalid));
        assert_eq!(key(&[b"a", b"a"]).await, Err(ErrorCode::IdempotencyKeyInvalid));
    }
}
