//! Replaying to an HTTP endpoint.
//!
//! Each batch is sent with `POST`; any 2xx response confirms it. The request has an `Idempotency-Key` made of the log's
//! id and the batch's first and last position, so that a receiver can drop a batch it already has. Transient failures
//! (no connection, no response, 408, 425, 429, 5xx) are retried, after `Retry-After` if the response has one. Every
//! other response ends the replay.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use chat_domain::Position;
use chat_ports::backoff::Backoff;
use chat_ports::error_chain;
use chat_ports::event_store::LogId;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use thiserror::Error;

use super::batch::{BatchLimits, ReplayBatch};
use super::error::ReplayError;
use super::stop_signal::{StatusCallback, StopSignal};
use super::target::{DeliveryProgress, ReplayTarget};
use crate::http_client::{HttpClient, http_client};

/// The time limit of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before the first retry.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause before a retry, unless the response sets one with `Retry-After`.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);

/// The number of bytes of a response body after which no more of it is read.
const MAX_RESPONSE_BYTES: usize = 16 << 10;

/// The maximal number of characters of a response body that an error quotes.
const MAX_QUOTED_CHARS: usize = 200;

/// The format of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// One event per line, `application/x-ndjson`.
    NdJson,
    /// An array of events, `application/json`.
    JsonArray,
}

/// The URL of an endpoint, and how batches are sent to it.
#[derive(Clone)]
pub struct EndpointOptions {
    url: Uri,
    authorization: Option<HeaderValue>,
    body_format: BodyFormat,
    max_batch_events: u64,
    give_up_after: Option<Duration>,
    log: LogId,
}

/// Why the options of an endpoint are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidEndpoint {
    /// The URL is not an absolute `http` or `https` URL.
    #[error("an endpoint is a URL like https://example.com/events")]
    Url,
    /// The URL contains credentials. They are refused because output and logs contain the URL.
    #[error("the URL of an endpoint names no user; use --authorization for credentials")]
    Credentials,
    /// The authorization is not a valid header value.
    #[error("the authorization can't be sent in a header")]
    Authorization,
}

impl EndpointOptions {
    /// Creates the options for sending the events of a log to a URL.
    pub fn new(url: &str, log: LogId) -> Result<Self, InvalidEndpoint> {
        let url: Uri = url.parse().map_err(|_| InvalidEndpoint::Url)?;
        let authority = url.authority().ok_or(InvalidEndpoint::Url)?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(InvalidEndpoint::Url);
        }
        if authority.as_str().contains('@') {
            return Err(InvalidEndpoint::Credentials);
        }
        Ok(Self {
            url,
            authorization: None,
            body_format: BodyFormat::NdJson,
            max_batch_events: 500,
            give_up_after: None,
            log,
        })
    }

    pub(super) fn url(&self) -> &Uri {
        &self.url
    }

    /// Sets the value of the header `Authorization`.
    pub fn authorization(mut self, value: &str) -> Result<Self, InvalidEndpoint> {
        let mut value = HeaderValue::from_str(value).map_err(|_| InvalidEndpoint::Authorization)?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Sets the format of request bodies.
    #[must_use]
    pub fn body_format(self, body_format: BodyFormat) -> Self {
        Self { body_format, ..self }
    }

    /// Sets the maximal number of events of a batch.
    #[must_use]
    pub fn max_batch_events(self, events: u64) -> Self {
        Self { max_batch_events: events, ..self }
    }

    /// Sets how long a batch is retried, counted from its first attempt. The replay fails if the next retry would
    /// begin later. Without this limit, a batch is retried until it is delivered or a stop is requested.
    #[must_use]
    pub fn give_up_after(self, time: Duration) -> Self {
        Self { give_up_after: Some(time), ..self }
    }
}

impl fmt::Debug for EndpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointOptions({})", self.url)
    }
}

/// An endpoint, with a client to send to it.
pub(super) struct Endpoint {
    options: EndpointOptions,
    client: HttpClient,
    delivered: DeliveryProgress,
}

/// Why an attempt failed.
enum AttemptError {
    /// A retry may succeed.
    Retryable {
        reason: String,
        /// The pause that the response's `Retry-After` sets.
        retry_after: Option<Duration>,
    },
    /// A retry would fail, too.
    Refused {
        status: StatusCode,
        /// The beginning of the response body.
        response_body: String,
    },
}

impl Endpoint {
    pub(super) fn open(options: &EndpointOptions, after: Position) -> Result<Self, ReplayError> {
        let no_roots = |source| ReplayError::File { path: "the system's certificates".into(), source };
        let client = http_client(&options.url).map_err(no_roots)?;
        let delivered = DeliveryProgress { position: after, events: 0, bytes: None };
        Ok(Self { options: options.clone(), client, delivered })
    }

    async fn send(&self, batch: &ReplayBatch, body: &Bytes) -> Result<(), AttemptError> {
        let EndpointOptions { url, authorization, body_format, log, .. } = &self.options;
        let content_type = match body_format {
            BodyFormat::NdJson => "application/x-ndjson",
            BodyFormat::JsonArray => "application/json",
        };
        let key = format!("\"{}-{}-{}\"", log.0, batch.first, batch.last);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url.clone())
            .header(CONTENT_TYPE, content_type)
            .header("idempotency-key", key);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let retryable = |reason: String| AttemptError::Retryable { reason, retry_after: None };
        let request = request.body(Full::new(body.clone())).map_err(|error| retryable(error.to_string()))?;
        let exchange = async {
            let response =
                self.client.request(request).await.map_err(|error| retryable(error_chain(&error)))?;
            let (head, body) = response.into_parts();
            // The body is read so that the connection can be reused, and errors quote its beginning.
            let body = read_beginning(body).await;
            let quoted: String = String::from_utf8_lossy(&body).chars().take(MAX_QUOTED_CHARS).collect();
            Ok((head.status, head.headers, quoted))
        };
        let timed_out = |_| retryable(format!("no response within {} seconds", ATTEMPT_TIMEOUT.as_secs()));
        let (status, headers, quoted) =
            tokio::time::timeout(ATTEMPT_TIMEOUT, exchange).await.map_err(timed_out)??;
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(AttemptError::Retryable {
                reason: format!("the response is {status}"),
                retry_after: retry_after(&headers, SystemTime::now()),
            }),
            _ => Err(AttemptError::Refused { status, response_body: quoted }),
        }
    }
}

#[async_trait]
impl ReplayTarget for Endpoint {
    fn batch_limits(&self) -> BatchLimits {
        BatchLimits { max_events: self.options.max_batch_events, max_bytes: 1 << 20 }
    }

    async fn deliver(
        &mut self,
        batch: &ReplayBatch,
        stop: &mut StopSignal,
        on_status: StatusCallback<'_>,
    ) -> Result<bool, ReplayError> {
        if batch.events == 0 {
            self.delivered.position = batch.up_to;
            return Ok(true);
        }
        let body = Bytes::from(match self.options.body_format {
            BodyFormat::NdJson => batch.lines.clone(),
            BodyFormat::JsonArray => to_json_array(&batch.lines),
        });
        let (started, mut backoff) = (Instant::now(), Backoff::new(FIRST_RETRY_PAUSE, MAX_RETRY_PAUSE));
        loop {
            let (last_error, retry_after) = match self.send(batch, &body).await {
                Ok(()) => break,
                Err(AttemptError::Refused { status, response_body }) => {
                    return Err(ReplayError::Refused { status, response_body });
                }
                Err(AttemptError::Retryable { reason, retry_after }) => (reason, retry_after),
            };
            let pause = retry_after.unwrap_or_else(|| backoff.next_pause());
            if let Some(time_limit) = self.options.give_up_after
                && started.elapsed() + pause > time_limit
            {
                return Err(ReplayError::GaveUp { after: started.elapsed(), last_error });
            }
            on_status(&format!(
                "the endpoint does not accept events: {last_error}; retrying in {} ms",
                pause.as_millis()
            ));
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(false),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.delivered.position = batch.up_to;
        self.delivered.events += batch.events;
        Ok(true)
    }

    async fn flush(&mut self) -> Result<DeliveryProgress, ReplayError> {
        Ok(self.delivered)
    }

    async fn finish(&mut self) -> Result<DeliveryProgress, ReplayError> {
        Ok(self.delivered)
    }
}

/// Reads a body up to [`MAX_RESPONSE_BYTES`], or to the first error.
async fn read_beginning(mut body: impl BodyExt<Data = Bytes> + Unpin) -> Vec<u8> {
    let mut beginning = Vec::new();
    while beginning.len() < MAX_RESPONSE_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        beginning.extend(frame.into_data().unwrap_or_default());
    }
    beginning
}

/// Returns the pause that the header `Retry-After` of a response sets, up to [`MAX_RETRY_AFTER`].
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Turns lines of JSON into a JSON array.
fn to_json_array(lines: &[u8]) -> Vec<u8> {
    let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
    let mut array = Vec::with_capacity(lines.len() + 2);
    array.push(b'[');
    // A line break inside a JSON string is escaped, so every `\n` separates two events.
    array.extend(lines.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
    array.push(b']');
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn accepts_only_http_urls_without_credentials() {
        let log = LogId(Uuid::nil());
        assert!(EndpointOptions::new("https://example.com/events?x=1", log).is_ok());
        for (wrong, expected) in [
            ("example.com", InvalidEndpoint::Url),
            ("ftp://example.com", InvalidEndpoint::Url),
            ("/events", InvalidEndpoint::Url),
            ("https://me:secret@example.com", InvalidEndpoint::Credentials),
        ] {
            assert_eq!(EndpointOptions::new(wrong, log).map(|_| ()), Err(expected), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_beginning_of_a_long_body_is_read() {
        let body = Full::new(Bytes::from(format!("no{}", " ".repeat(MAX_RESPONSE_BYTES))));
        assert!(read_beginning(body).await.starts_with(b"no"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expected) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("999999", Some(600)),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            assert_eq!(retry_after(&headers, now).map(|wait| wait.as_secs()), expected, "{value}");
        }
    }

    #[test]
    fn converts_lines_to_a_json_array() {
        assert_eq!(to_json_array(b"{\"a\":\"x\\ny\"}\n{}\n"), b"[{\"a\":\"x\\ny\"},{}]");
    }
}
