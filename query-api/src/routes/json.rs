//! The JSON of responses: versioned resources, times, and large lists.

use axum::Json;
use axum::response::{IntoResponse, Response};
use chat_domain::{Timestamp, Version};
use chat_web::Problem;
use chat_web::extract::{IfNoneMatch, etag};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, StatusCode};
use serde::{Serialize, Serializer};

use crate::response_position::ResponsePosition;

/// Creates the response for a versioned resource: 304 if the client already has this version.
pub(super) fn versioned_response<T: Serialize>(
    position: ResponsePosition,
    if_none_match: &IfNoneMatch,
    version: Version,
    body: T,
) -> Response {
    let tag = [(ETAG, etag(version))];
    if if_none_match.matches(version) {
        return (StatusCode::NOT_MODIFIED, position, tag).into_response();
    }
    (position, tag, Json(body)).into_response()
}

/// Serializes a time in the format of RFC 3339.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
pub(super) fn serialize_rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(time.to_rfc3339().as_str())
}

/// Creates a JSON response. `capacity` is the approximate size of the JSON in bytes, so that the buffer is allocated
/// once.
pub(super) fn json_response<T: Serialize>(capacity: usize, body: &T) -> Result<Response, Problem> {
    let mut json = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut json, body).map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response())
}
