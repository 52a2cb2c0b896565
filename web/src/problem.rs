//! Errors as clients read them: `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Problem`]. It travels in the response's extensions until the edge (`edge.rs`), which
//! knows the request's id, renders it; so every error has one form, wherever it came from. What the log records
//! ([`Problem::caused_by`]) never reaches the client.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tracing::{debug, error, warn};
use utoipa::ToSchema;

use crate::error_code::ErrorCode;

/// What [`Problem::caused_by`] takes.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// The media type of a problem.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Seconds after which a client may try again, where nothing better is known.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error for the client, and its cause for the log.
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem {
    code: ErrorCode,
    detail: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
    /// Whether the cause is one that someone has to look at.
    needs_attention: bool,
}

impl Problem {
    /// A problem with a sentence for the client, in lower case and without a full stop.
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let needs_attention = code.status() == StatusCode::INTERNAL_SERVER_ERROR;
        Self { code, detail: detail.into(), headers: Vec::new(), cause: None, needs_attention }
    }

    /// A fault of the server. The client learns nothing but that, and the request id to ask about.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::from_code(ErrorCode::Internal).caused_by(cause)
    }

    /// A problem with the code's own sentence.
    pub fn from_code(code: ErrorCode) -> Self {
        Self::new(code, code.default_detail())
    }

    /// Keeps what led here for the log.
    pub fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Marks a cause that does not pass by itself, whatever the client is told.
    pub(crate) fn needs_attention_if(mut self, needs_attention: bool) -> Self {
        self.needs_attention |= needs_attention;
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

    /// Says after how many seconds trying again makes sense, in place of the usual one second of a 503.
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What the client reads.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The problem that stands for a response of this status, made by a library.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => ErrorCode::RouteNotFound,
            StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
            status if status.is_client_error() => ErrorCode::MalformedQuery,
            _ => ErrorCode::Internal,
        };
        Self::from_code(code)
    }

    /// Writes the cause to the log, once, under the request's id.
    pub(crate) fn log(&self, request_id: &str) {
        let Some(cause) = &self.cause else { return };
        let (code, cause) = (self.code.as_str(), format_error_chain(&**cause));
        match self.code.status() {
            _ if self.needs_attention => error!(code, request_id, cause, "a request failed"),
            // While an engine is away every request fails alike: a few lines a second say as much as all of them.
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

    /// Writes the problem into its response.
    pub(crate) fn render(&self, request_id: &str, response: &mut Response) {
        let body = ProblemBody::new(self.code, &self.detail, request_id);
        // Strings and a number always serialize.
        *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
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

/// The body of every error (RFC 9457).
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
    /// What to branch on. More codes may be added.
    #[schema(example = "app_not_found")]
    code: ErrorCode,
    /// What went wrong this time, for people.
    #[schema(example = "no app has this token")]
    detail: String,
    /// The same as `detail`.
    #[schema(example = "no app has this token")]
    message: String,
    /// The request's id, as in `X-Request-Id`: the server's log has it too.
    #[schema(example = "0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70")]
    request_id: String,
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

    /// The body as documentation shows it.
    pub(crate) fn example(code: ErrorCode) -> Self {
        Self::new(code, code.default_detail(), "0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70")
    }
}

/// An error and what caused it, on one line.
fn format_error_chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a String can't fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// Lets a few lines a second through.
struct LogThrottle {
    /// The second since the process started in the upper half, lines in it in the lower.
    window: AtomicU64,
    suppressed: AtomicU64,
}

static OUTAGE_LOG_THROTTLE: LogThrottle =
    LogThrottle { window: AtomicU64::new(0), suppressed: AtomicU64::new(0) };

impl LogThrottle {
    const MAX_LINES_PER_SECOND: u64 = 5;

    /// Whether a line may be written, and how many were not since the last one.
    fn admit(&self) -> Option<u64> {
        static STARTED: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        self.admit_in_second(STARTED.elapsed().as_secs())
    }

    fn admit_in_second(&self, second: u64) -> Option<u64> {
        let first_of_second = second << 32;
        let line = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
                Some(window.max(first_of_second) + 1)
            })
            .unwrap_or_default()
            .max(first_of_second);
        if line & u64::from(u32::MAX) < Self::MAX_LINES_PER_SECOND {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_writes_a_few_lines_a_second_and_counts_the_rest() {
        let throttle = LogThrottle { window: AtomicU64::new(0), suppressed: AtomicU64::new(0) };
        let written = (0..100).filter(|_| throttle.admit_in_second(7).is_some()).count();
        assert_eq!(written, 5);
        assert_eq!(throttle.admit_in_second(8), Some(95));
        assert_eq!(throttle.admit_in_second(8), Some(0));
    }

    #[test]
    fn the_log_reads_the_whole_chain_of_causes() {
        let inner = std::io::Error::other("disk full");
        let outer = chat_ports::counters::CountersError(Box::new(inner));
        assert_eq!(format_error_chain(&outer), "the counters can't be reached now: disk full");
    }

    #[test]
    fn a_503_carries_retry_after() {
        let usual = Problem::from_code(ErrorCode::Overloaded).into_response();
        assert_eq!(usual.headers()[RETRY_AFTER], "1");
        let later = Problem::from_code(ErrorCode::Overloaded).with_retry_after(7).into_response();
        assert_eq!(later.headers()[RETRY_AFTER], "7");
        assert_eq!(later.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
