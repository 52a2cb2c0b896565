//! Query strings and their parameters.

use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The query string, deserialized as a `T`. Ignores parameters that `T` does not have. The request middleware has
/// already refused those that the route does not take.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        require_utf8(parts.uri.query().unwrap_or_default())?;
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(malformed_query(&rejection)),
        }
    }
}

/// Refuses a parameter that is not UTF-8. axum's parser would replace its invalid bytes silently.
fn require_utf8(query: &str) -> Result<(), Problem> {
    let is_utf8 = |text: &str| percent_decode_str(text).decode_utf8().is_ok();
    let Some(invalid) = query.split('&').find(|parameter| !is_utf8(parameter)) else { return Ok(()) };
    let name = form_urlencoded::parse(invalid.as_bytes()).next().map(|(name, _)| name);
    Err(malformed_parameter(&name.unwrap_or_default(), "UTF-8"))
}

/// Creates the problem for a malformed parameter: "`limit` must be a number from 1 to 100".
pub fn malformed_parameter(parameter: &str, must_be: &str) -> Problem {
    Problem::new(ErrorCode::MalformedQuery, format!("`{parameter}` must be {must_be}"))
}

/// Refuses a time whose `+` was not written as `%2B`. In a query string `+` means a space, so the time has a space
/// before its offset. The parser of times would only find it malformed.
pub fn refuse_unescaped_plus(parameter: &str, time: Option<&str>) -> Result<(), Problem> {
    let Some((before, offset)) = time.and_then(|time| time.rsplit_once(' ')) else { return Ok(()) };
    let is_offset = matches!(offset.as_bytes(), [_, _, b':', _, _]);
    if before.contains(':') && is_offset {
        let detail = format!("`{parameter}` has a space instead of `+`: write `%2B` for `+` in a URL");
        return Err(Problem::new(ErrorCode::MalformedQuery, detail));
    }
    Ok(())
}

fn malformed_query(rejection: &QueryRejection) -> Problem {
    let text = rejection.body_text();
    let duplicate = text.split_once("duplicate field `").and_then(|(_, rest)| rest.split_once('`'));
    match duplicate {
        Some((name, _)) => {
            Problem::new(ErrorCode::MalformedQuery, format!("`{name}` is given more than once"))
        }
        None => ErrorCode::MalformedQuery.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_is_not_utf8_is_refused_by_name() {
        let problem = require_utf8("limit=1&sender=u%ff+x").unwrap_err();
        assert_eq!(problem.detail(), "`sender` must be UTF-8");
        for valid in ["", "sender", "sender=%EF%BF%BD&a=%", "a=%C3%A9&b=1%2B1"] {
            assert!(require_utf8(valid).is_ok(), "{valid}");
        }
    }

    #[test]
    fn a_time_that_lost_its_plus_is_refused_with_advice() {
        let problem = refuse_unescaped_plus("from", Some("2026-09-21T14:13:20 02:00")).unwrap_err();
        assert_eq!(problem.detail(), "`from` has a space instead of `+`: write `%2B` for `+` in a URL");
        for other in ["2026-09-21T14:13:20+02:00", "2026-09-21 14:13", "2026-09-21 14:13:20Z", "", " "] {
            assert!(refuse_unescaped_plus("from", Some(other)).is_ok(), "{other}");
        }
    }
}
