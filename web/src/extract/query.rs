//! Query strings.

use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The query string as a `T`; parameters that `T` does not have are ignored.
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

fn malformed_query(rejection: &QueryRejection) -> Problem {
    let text = rejection.body_text();
    // axum opens with a sentence of its own; what follows names the parameter.
    let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
    Problem::new(ErrorCode::MalformedQuery, format!("the query string can't be understood: {reason}"))
}
