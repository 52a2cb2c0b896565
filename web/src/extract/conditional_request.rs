//! Conditional requests (RFC 9110, 13): `ETag`, `If-Match`, `If-None-Match`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use chat_domain::{Precondition, Version};
use http::HeaderValue;
use http::header::{GetAll, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;

/// Returns the `ETag` of a resource at this version: `"<version>"`, strong.
pub fn etag(version: Version) -> HeaderValue {
    // A number between quotes is always a header value.
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// `If-Match` and `If-None-Match`: the client's precondition for changing a resource. A tag that this server
/// never issued matches no version. A weak tag matches a version in `If-None-Match` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePrecondition(pub Precondition);

/// `If-None-Match`: the versions that the client has cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfNoneMatch(Option<EntityTags>);

impl IfNoneMatch {
    /// Whether the client has this version, so that the response is a 304.
    pub fn matches(&self, version: Version) -> bool {
        match &self.0 {
            None => false,
            Some(EntityTags::Any) => true,
            Some(EntityTags::List(tags)) => tags.iter().any(|tag| tag.version == Some(version)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for ChangePrecondition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let if_match = match EntityTags::parse(&parts.headers.get_all(IF_MATCH)) {
            None => Precondition::Unconditional,
            Some(EntityTags::Any) => Precondition::Exists,
            Some(EntityTags::List(tags)) => {
                let strong = tags.into_iter().filter(|tag| !tag.is_weak);
                Precondition::AnyOf(strong.filter_map(|tag| tag.version).collect())
            }
        };
        let excluded: Vec<Version> = match EntityTags::parse(&parts.headers.get_all(IF_NONE_MATCH)) {
            None => return Ok(Self(if_match)),
            // The resource must not exist, so no version of it may be changed.
            Some(EntityTags::Any) => return Ok(Self(Precondition::AnyOf(Vec::new()))),
            Some(EntityTags::List(tags)) => tags.into_iter().filter_map(|tag| tag.version).collect(),
        };
        Ok(Self(match if_match {
            Precondition::AnyOf(mut versions) => {
                versions.retain(|version| !excluded.contains(version));
                Precondition::AnyOf(versions)
            }
            // `Exists` needs no check: deciders reject changes of missing resources in any case.
            _ => Precondition::NoneOf(excluded),
        }))
    }
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(EntityTags::parse(&parts.headers.get_all(IF_NONE_MATCH))))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EntityTags {
    Any,
    List(Vec<EntityTag>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntityTag {
    is_weak: bool,
    /// `None` for a foreign tag, which this server never issued.
    version: Option<Version>,
}

impl EntityTags {
    /// Parses the tags of all header lines. Returns `None` without a line.
    fn parse(values: &GetAll<'_, HeaderValue>) -> Option<Self> {
        let mut tags = Vec::new();
        let mut lines = 0;
        for value in values {
            lines += 1;
            if value.as_bytes().trim_ascii() == b"*" {
                return Some(Self::Any);
            }
            parse_entity_tags(value.as_bytes(), &mut tags);
        }
        (lines > 0).then_some(Self::List(tags))
    }
}

/// Parses a list such as `"1", W/"2"`. Stops at a malformed tag, since the next one can't be found after it.
fn parse_entity_tags(mut rest: &[u8], tags: &mut Vec<EntityTag>) {
    loop {
        while let [b' ' | b'\t' | b',', tail @ ..] = rest {
            rest = tail;
        }
        let (is_weak, quoted) = match rest {
            [b'W', b'/', b'"', tail @ ..] => (true, tail),
            [b'"', tail @ ..] => (false, tail),
            _ => return,
        };
        let Some(end) = quoted.iter().position(|byte| *byte == b'"') else { return };
        tags.push(EntityTag { is_weak, version: parse_version(&quoted[..end]) });
        rest = &quoted[end + 1..];
    }
}

/// Parses a version in its canonical form: no sign, no leading zeros.
fn parse_version(text: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(text).ok()?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(Version::new(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    async fn if_match(lines: &[&str]) -> Precondition {
        precondition(lines, &[]).await
    }

    async fn precondition(if_match: &[&str], if_none_match: &[&str]) -> Precondition {
        let mut parts = request_parts(IF_MATCH.as_str(), if_match);
        parts.headers.extend(request_parts(IF_NONE_MATCH.as_str(), if_none_match).headers);
        let Ok(ChangePrecondition(precondition)) =
            ChangePrecondition::from_request_parts(&mut parts, &()).await;
        precondition
    }

    async fn if_none_match(lines: &[&str], version: u64) -> bool {
        let mut parts = request_parts(IF_NONE_MATCH.as_str(), lines);
        let Ok(tags) = IfNoneMatch::from_request_parts(&mut parts, &()).await;
        tags.matches(Version::new(version))
    }

    fn request_parts(name: &str, lines: &[&str]) -> Parts {
        let mut request = Request::builder();
        for line in lines {
            request = request.header(name, *line);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn any_of(versions: &[u64]) -> Precondition {
        Precondition::AnyOf(versions.iter().copied().map(Version::new).collect())
    }

    #[tokio::test]
    async fn if_match_takes_lists_on_one_line_or_several() {
        assert_eq!(if_match(&[]).await, Precondition::Unconditional);
        assert_eq!(if_match(&["*"]).await, Precondition::Exists);
        assert_eq!(if_match(&["\"1\",\"2\" , \"30\"", "\"4\""]).await, any_of(&[1, 2, 30, 4]));
    }

    #[tokio::test]
    async fn a_change_must_meet_both_conditions() {
        let none_of =
            |versions: &[u64]| Precondition::NoneOf(versions.iter().copied().map(Version::new).collect());
        for (if_match, if_none_match, expected) in [
            (&[][..], &["*"][..], any_of(&[])),
            (&["\"1\""], &["*"], any_of(&[])),
            (&[], &["\"1\", W/\"2\", \"foreign\""], none_of(&[1, 2])),
            (&["*"], &["\"1\""], none_of(&[1])),
            (&["\"1\", \"2\""], &["\"1\""], any_of(&[2])),
            (&[], &["malformed"], none_of(&[])),
        ] {
            assert_eq!(
                precondition(if_match, if_none_match).await,
                expected,
                "{if_match:?} {if_none_match:?}"
            );
        }
        assert!(none_of(&[1]).holds(Version::new(2)) && !none_of(&[1]).holds(Version::new(1)));
    }

    #[tokio::test]
    async fn if_match_compares_strongly() {
        assert_eq!(if_match(&["W/\"1\", \"2\""]).await, any_of(&[2]));
    }

    #[tokio::test]
    async fn foreign_and_malformed_tags_match_nothing() {
        for line in ["", "1", "\"01\"", "\"+1\"", "\"abc\"", "\"1", "w/\"1\"", "\"1,2\"", "\"\""] {
            assert_eq!(if_match(&[line]).await, any_of(&[]), "{line:?}");
        }
        assert_eq!(if_match(&["\"a,\\\", \"7\""]).await, any_of(&[7]), "a comma or a backslash inside a tag");
    }

    #[tokio::test]
    async fn if_none_match_compares_weakly() {
        assert!(if_none_match(&["W/\"3\""], 3).await);
        assert!(if_none_match(&["\"1\"", "\"3\""], 3).await);
        assert!(if_none_match(&["*"], 3).await);
        assert!(!if_none_match(&["\"4\""], 3).await);
        assert!(!if_none_match(&[], 3).await);
    }
}
