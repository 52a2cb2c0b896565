//! Replaying to an HTTP endpoint.
//!
//! Each batch is a `POST`, answered by any 2xx when the receiver has it. It carries an `Idempotency-Key` that names the
//! log and the batch's first and last position, so that a receiver can drop what comes again. What may work later is
//! tried again (no connection, no answer, 408, 425, 429, 5xx), after `Retry-After` where the answer has one; everything
//! else ends the replay.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use chat_domain::Position;
use chat_ports::event_store::LogId;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use thiserror::Error;

use super::batch::{BatchLimits, ReplayBatch};
use super::target::{DeliveryProgress, ReplayTarget};
use super::{ReplayError, StatusCallback, StopSignal};

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The first pause before another attempt, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The longest `Retry-After` that is kept to.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);

/// What is read of an answer, in bytes.
const MAX_RESPONSE_BYTES: usize = 16 << 10;

/// What is shown of it, in characters.
const MAX_QUOTED_CHARS: usize = 200;

/// How a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// One event a line, `application/x-ndjson`.
    NdJson,
    /// An array of events, `application/json`.
    JsonArray,
}

/// Where batches go, and how.
#[derive(Clone)]
pub struct EndpointOptions {
    url: Uri,
    authorization: Option<HeaderValue>,
    body_format: BodyFormat,
    max_batch_events: u64,
    give_up_after: Option<Duration>,
    log: LogId,
}

/// Why an endpoint can't be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidEndpoint {
    /// Not such a URL.
    #[error("an endpoint is as https://example.com/events")]
    Url,
    /// A secret in the URL would be shown where the URL is.
    #[error("an endpoint's URL names no user; --authorization says who you are")]
    Credentials,
    /// Not the value of a header.
    #[error("the authorization can't be sent in a header")]
    Authorization,
}

impl EndpointOptions {
    /// An endpoint at a URL, for the events of a log.
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

    /// Where batches go.
    pub(super) fn url(&self) -> &Uri {
        &self.url
    }

    /// With the value of the header `Authorization`.
    pub fn authorization(mut self, value: &str) -> Result<Self, InvalidEndpoint> {
        let mut value = HeaderValue::from_str(value).map_err(|_| InvalidEndpoint::Authorization)?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// With batches of this shape.
    #[must_use]
    pub fn body_format(self, shape: BodyFormat) -> Self {
        Self { body_format: shape, ..self }
    }

    /// With so many events in a batch, at most.
    #[must_use]
    pub fn max_batch_events(self, events: u64) -> Self {
        Self { max_batch_events: events, ..self }
    }

    /// Giving up when a batch has not been taken for so long; never, without it.
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

/// An endpoint under way.
pub(super) struct Endpoint {
    options: EndpointOptions,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    delivered: DeliveryProgress,
}

/// Why an attempt failed.
enum AttemptError {
    /// Another one may work, after so long.
    Retryable(String, Option<Duration>),
    Refused(StatusCode, String),
}

impl Endpoint {
    pub(super) fn open(options: &EndpointOptions, after: Position) -> Result<Self, ReplayError> {
        let no_roots = |source| ReplayError::File { path: "the system's certificates".into(), source };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let provider = rustls::crypto::ring::default_provider();
        let https = if options.url.scheme_str() == Some("https") {
            HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(no_roots)?
        } else {
            // No certificates are needed, and a machine may have none.
            HttpsConnectorBuilder::new().with_tls_config(tls_config_without_roots(provider)?)
        };
        let connector = https.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let settled = DeliveryProgress { position: after, events: 0, bytes: None };
        Ok(Self { options: options.clone(), client, delivered: settled })
    }

    async fn send(&self, batch: &ReplayBatch, body: &Bytes) -> Result<(), AttemptError> {
        let EndpointOptions { url, authorization, body_format: shape, log, .. } = &self.options;
        let content_type = match shape {
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
        let later = |why: String| AttemptError::Retryable(why, None);
        let request = request.body(Full::new(body.clone())).map_err(|error| later(error.to_string()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| later(error_chain(&error)))?;
            let (head, body) = answer.into_parts();
            // What it says is for people, and the connection can be used again.
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
            let said = body.map(Collected::to_bytes).unwrap_or_default();
            Ok((
                head.status,
                head.headers,
                String::from_utf8_lossy(&said).chars().take(MAX_QUOTED_CHARS).collect::<String>(),
            ))
        };
        let elapsed = |_| later(format!("no answer within {} seconds", ATTEMPT_TIMEOUT.as_secs()));
        let (status, headers, said) =
            tokio::time::timeout(ATTEMPT_TIMEOUT, exchange).await.map_err(elapsed)??;
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(AttemptError::Retryable(
                format!("it answered {status}"),
                retry_after(&headers, SystemTime::now()),
            )),
            _ => Err(AttemptError::Refused(status, said)),
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
        tell: StatusCallback<'_>,
    ) -> Result<bool, ReplayError> {
        if batch.events == 0 {
            self.delivered.position = batch.up_to;
            return Ok(true);
        }
        let body = Bytes::from(match self.options.body_format {
            BodyFormat::NdJson => batch.lines.clone(),
            BodyFormat::JsonArray => to_json_array(&batch.lines),
        });
        let (started, mut pause) = (Instant::now(), RETRY_PAUSES.0);
        loop {
            let (last, asked_for) = match self.send(batch, &body).await {
                Ok(()) => break,
                Err(AttemptError::Refused(status, response_body)) => {
                    return Err(ReplayError::Refused { status, response_body });
                }
                Err(AttemptError::Retryable(last, asked_for)) => (last, asked_for),
            };
            let wait = asked_for.unwrap_or(pause);
            if let Some(patience) = self.options.give_up_after
                && started.elapsed() + wait > patience
            {
                return Err(ReplayError::GaveUp { after: started.elapsed(), last });
            }
            tell(&format!(
                "the endpoint does not take events: {last}; trying again in {} ms",
                wait.as_millis()
            ));
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(false),
                () = tokio::time::sleep(wait) => {}
            }
            pause = (pause * 2).min(RETRY_PAUSES.1);
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

fn tls_config_without_roots(
    provider: rustls::crypto::CryptoProvider,
) -> Result<rustls::ClientConfig, ReplayError> {
    let builder =
        rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| ReplayError::File {
        path: "the system's certificates".into(),
        source: std::io::Error::other(error),
    })?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// How long an answer asks to wait.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Lines as an array.
fn to_json_array(lines: &[u8]) -> Vec<u8> {
    let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
    let mut array = Vec::with_capacity(lines.len() + 2);
    array.push(b'[');
    // A line break in a text is written as two other characters.
    array.extend(lines.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
    array.push(b']');
    array
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_endpoint_is_an_http_url_without_secrets() {
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
    fn lines_become_an_array() {
        assert_eq!(to_json_array(b"{\"a\":\"x\\ny\"}\n{}\n"), b"[{\"a\":\"x\\ny\"},{}]");
    }
}
