//! Error responses: `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Problem`], which is stored in the response's extensions. The request middleware
//! (`request_middleware.rs`) renders it with the request id, so that errors of all layers have the same form.
//! The cause ([`Problem::caused_by`]) is logged and never sent to the client.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use chat_ports::error_chain;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tracing::{debug, error, warn};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, SchemaType};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema, Type};

use crate::error_code::ErrorCode;
use crate::log_throttle::LogThrottle;

/// The error behind a [`Problem`].
pub type Cause = Box<dyn StdError + Send + Sync>;

/// The media type of a problem.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// `Retry-After` of a 503 that does not set its own.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The log throttle of all requests: while an engine is down, every request fails with the same error.
static OUTAGE_LOG_THROTTLE: LogThrottle = LogThrottle::new(5);

/// An error response for the client, and its cause for the log.
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem {
    code: ErrorCode,
    detail: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
    /// Whether an operator must look at the cause.
    needs_attention: bool,
}

impl Problem {
    /// Creates a problem with a detail sentence for the client, in lower case and without a full stop.
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let needs_attention = code.status() == StatusCode::INTERNAL_SERVER_ERROR;
        Self { code, detail: detail.into(), headers: Vec::new(), cause: None, needs_attention }
    }

    /// Creates an internal server error. The client receives the request id and nothing about the cause.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::from_code(ErrorCode::Internal).caused_by(cause)
    }

    /// Creates a problem with the code's default detail.
    pub fn from_code(code: ErrorCode) -> Self {
        Self::new(code, code.default_detail())
    }

    /// Sets the cause, for the log.
    pub fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Marks the cause as one that an operator must resolve, so that it is logged as an error.
    pub(crate) fn needing_attention(mut self) -> Self {
        self.needs_attention = true;
        self
    }

    #[cfg(test)]
    pub(crate) fn needs_attention(&self) -> bool {
        self.needs_attention
    }

    /// Adds a header to the response.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets `Retry-After`, in seconds. The default of a 503 is one second.
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Returns the error code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the detail sentence that the client reads.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Creates the problem for an error response that a library produced with this status.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => ErrorCode::RouteNotFound,
            StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ErrorCode::HeadTooLarge,
            status if status.is_client_error() => ErrorCode::MalformedQuery,
            _ => ErrorCode::Internal,
        };
        Self::from_code(code)
    }

    /// Logs the cause under the request id. Called once per response.
    pub(crate) fn log(&self, request_id: &str) {
        let Some(cause) = &self.cause else { return };
        let (code, cause) = (self.code.as_str(), error_chain(&**cause));
        match self.code.status() {
            _ if self.needs_attention => error!(code, request_id, cause, "a request failed"),
            status if status.is_server_error() => {
                if let Some(suppressed) = OUTAGE_LOG_THROTTLE.admit() {
                    warn!(code, request_id, cause, suppressed, "a request failed");
                } else {
                    debug!(code, request_id, cause, "a request failed");
                }
            }
            _ => debug!(code, request_id, cause, "a request was refused"),
        }
    }

    /// Returns the body of the response.
    pub(crate) fn to_json(&self, request_id: &str) -> Vec<u8> {
        let body = ProblemBody::new(self.code, &self.detail, request_id);
        // Strings and a number always serialize, so the default is never used.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// Writes the problem into the response's status, `Content-Type` and body. The problem's own headers are in the
    /// response already, from [`IntoResponse`].
    pub(crate) fn render(&self, request_id: &str, response: &mut Response) {
        *response.body_mut() = Body::from(self.to_json(request_id));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    }
}

impl From<ErrorCode> for Problem {
    fn from(code: ErrorCode) -> Self {
        Self::from_code(code)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        if self.code.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The body of an error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// The page that explains the code.
    #[serde(rename = "type")]
    #[schema(example = "/docs/errors/app_not_found")]
    type_uri: String,
    /// The code in words.
    #[schema(example = "App not found")]
    title: String,
    /// The HTTP status.
    #[schema(example = 404, minimum = 400, maximum = 599)]
    status: u16,
    #[schema(schema_with = open_error_code)]
    code: ErrorCode,
    /// A sentence about this error, for people.
    #[schema(example = "no app has this token")]
    detail: String,
    /// The same as `detail`.
    #[schema(example = "no app has this token")]
    message: String,
    /// The request's id, as in `X-Request-Id` and in the server's log.
    #[schema(example = "0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70")]
    request_id: String,
}

/// The schema of a code: one of the known codes or any other text, so that clients generated from this version accept
/// codes that later versions add.
fn open_error_code() -> RefOr<Schema> {
    AnyOfBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .item(Ref::from_schema_name("ErrorCode"))
        .item(ObjectBuilder::new().schema_type(Type::String))
        .description(Some("The stable code to branch on. More codes may be added."))
        .into()
}

impl ProblemBody {
    fn new(code: ErrorCode, detail: &str, request_id: &str) -> Self {
        Self {
            type_uri: format!("/docs/errors/{code}"),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            code,
            detail: detail.to_owned(),
            message: detail.to_owned(),
            request_id: request_id.to_owned(),
        }
    }

    /// Creates the example body that the documentation shows.
    pub(crate) fn example(code: ErrorCode) -> Self {
        Self::new(code, code.default_detail(), "0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_503_carries_retry_after() {
        let usual = Problem::from_code(ErrorCode::Overloaded).into_response();
        assert_eq!(usual.headers()[RETRY_AFTER], "1");
        let later = Problem::from_code(ErrorCode::Overloaded).with_retry_after(7).into_response();
        assert_eq!(later.headers()[RETRY_AFTER], "7");
        assert_eq!(later.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
