//! Query strings and their parameters.

use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The query string, deserialized as a `T`. Parameters that `T` does not have are ignored: the request middleware refuses
/// those that the route does not take.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(malformed_query(&rejection)),
        }
    }
}

/// Creates the problem for a malformed parameter: "`limit` must be a number from 1 to 100".
pub fn malformed_parameter(parameter: &str, must_be: &str) -> Problem {
    Problem::new(ErrorCode::MalformedQuery, format!("`{parameter}` must be {must_be}"))
}

/// Refuses a time whose `+` was not written as `%2B`. In a query string `+` means a space, so no parser of times would
/// understand it.
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
    fn a_time_that_lost_its_plus_is_refused_with_advice() {
        let problem = refuse_unescaped_plus("from", Some("2026-09-21T14:13:20 02:00")).unwrap_err();
        assert_eq!(problem.detail(), "`from` has a space instead of `+`: write `%2B` for `+` in a URL");
        for other in ["2026-09-21T14:13:20+02:00", "2026-09-21 14:13", "2026-09-21 14:13:20Z", "", " "] {
            assert!(refuse_unescaped_plus("from", Some(other)).is_ok(), "{other}");
        }
    }
}
