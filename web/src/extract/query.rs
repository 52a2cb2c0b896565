//! Query strings and their parameters.

use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The query string, deserialized as a `T`. Parameters that `T` does not have are ignored.
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

fn malformed_query(rejection: &QueryRejection) -> Problem {
    let text = rejection.body_text();
    // axum's text starts with a general sentence. The part after it names the parameter.
    let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
    Problem::new(ErrorCode::MalformedQuery, format!("the query string can't be understood: {reason}"))
}
