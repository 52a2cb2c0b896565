//! The client of a server's admin API: acts through a running system instead of on its storage.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use chat_ports::clock;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use crate::envelope::Diagnostic;
use crate::http_client::{HttpClient, http_client};

/// The time limit of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(35);

/// The time for which a request is sent again to a server that can't be reached or is overloaded. A job outlasts a
/// restart of its server, so a client that follows the job must outlast the restart, too.
const GIVE_UP_AFTER: Duration = Duration::from_mins(1);

/// The pause before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The interval at which the state of a running job is read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The largest response that is read, in bytes.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// The URL of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(Uri);

/// The error for text that is not the URL of a server.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a server is a URL like http://127.0.0.1:8000, without a user and without a path")]
pub struct InvalidServerUrl;

impl ServerUrl {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<Self, InvalidServerUrl> {
        let url: Uri = text.parse().map_err(|_| InvalidServerUrl)?;
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let has_no_user = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let is_root = matches!(url.path(), "" | "/") && url.query().is_none();
        if is_http && has_no_user && is_root { Ok(Self(url)) } else { Err(InvalidServerUrl) }
    }
}

/// A client of one server.
pub struct ServerClient {
    url: Uri,
    authorization: Option<HeaderValue>,
    client: HttpClient,
    on_retry: fn(&ServerError),
}

/// The answer of a server to an action.
#[derive(Debug)]
pub enum ServerAnswer {
    /// The report of a dry run.
    DryRun(ServerReport),
    /// The id of the job that was requested.
    Requested(String),
}

/// A report, with the envelope's status and remarks.
#[derive(Debug, Deserialize)]
pub struct ServerReport {
    /// `ok` or `finding`.
    pub status: String,
    /// The data.
    pub data: Value,
    /// Remarks on the data.
    pub diagnostics: Vec<Diagnostic>,
}

/// Why a request to a server failed.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The token can't be sent in a header.
    #[error("the token can't be sent in a header")]
    Token,
    /// The system's certificates can't be read.
    #[error("the system's certificates can't be read")]
    Certificates(#[source] io::Error),
    /// The server could not be reached, or sent no complete response.
    #[error("{server} can't be reached")]
    Unreachable {
        /// The server.
        server: String,
        /// The error of the last attempt.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Nothing listens at the server's address.
    #[error(
        "nothing listens at {server}: is the server running, and is this its --listen-addr or --admin-listen-addr?"
    )]
    NotListening {
        /// The server.
        server: String,
        /// The error of the attempt.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The server refused the request.
    #[error("the server refused the request: {detail} ({code})")]
    Refused {
        /// The error code.
        code: String,
        /// The reason.
        detail: String,
    },
    /// The response is not one of the admin API.
    #[error("{0} is not the admin API of a chat-api server")]
    NotAdminApi(String),
}

impl ServerError {
    /// Whether the server is at a limit, which passes by itself.
    fn is_overload(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if matches!(code.as_str(), "overloaded" | "rate_limited"))
    }

    /// Returns [`Self::NotListening`] if the connection was refused, else the error itself.
    fn or_not_listening(self) -> Self {
        match self {
            Self::Unreachable { server, source } if is_connection_refused(&*source) => {
                Self::NotListening { server, source }
            }
            other => other,
        }
    }
}

/// The parts of a problem that are shown.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

/// Which failed attempts are repeated, for up to a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryPolicy {
    /// All that may succeed later.
    Patient,
    /// Only those that failed because of the server's load or its gateway. A person waits for the answer, and has to act
    /// if nothing listens at the address, or if the server says that its storage is unavailable.
    Interactive,
}

impl RetryPolicy {
    /// Whether an attempt that failed with this retryable error is repeated.
    fn repeats(self, error: &ServerError) -> bool {
        match (self, error) {
            (Self::Interactive, ServerError::Unreachable { source, .. }) => !is_connection_refused(&**source),
            (Self::Interactive, ServerError::Refused { .. }) => error.is_overload(),
            _ => true,
        }
    }
}

/// Whether a connection was refused: the machine is there, and nothing listens at the port.
fn is_connection_refused(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io_error = error.downcast_ref::<io::Error>();
        if io_error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Why an attempt failed.
enum AttemptError {
    /// Another attempt may succeed.
    Retryable(ServerError),
    /// Another attempt would fail, too.
    Final(ServerError),
}

/// A gateway answered instead of the server.
#[derive(Debug, Error)]
#[error("a gateway answered {0}")]
struct GatewayStatus(StatusCode);

impl ServerClient {
    /// Creates a client that presents a token, if one is given. Calls `on_retry` once for each request that is sent
    /// again, with the error of its first attempt.
    pub fn new(
        url: &ServerUrl,
        token: Option<&str>,
        on_retry: fn(&ServerError),
    ) -> Result<Self, ServerError> {
        let bearer = |token: &str| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ServerError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        };
        let client = http_client(&url.0).map_err(ServerError::Certificates)?;
        Ok(Self { url: url.0.clone(), authorization: token.map(bearer).transpose()?, client, on_retry })
    }

    /// Sends an action, to a path below `/admin/v1/`. Sends it again with the same idempotency key while the server
    /// can't be reached or is overloaded, for up to a minute. A dry run fails at once if nothing listens at the
    /// address, or if the server can't read its storage: a person waits for it.
    pub async fn act(&self, path: &str, body: &Value) -> Result<ServerAnswer, ServerError> {
        let key = clock::time_ordered_uuid().to_string();
        let is_dry_run = body["execute"] != true;
        let policy = if is_dry_run { RetryPolicy::Interactive } else { RetryPolicy::Patient };
        let (status, report) = self.request(&Method::POST, path, Some((&key, body)), policy).await?;
        if status != StatusCode::ACCEPTED {
            return Ok(ServerAnswer::DryRun(report));
        }
        let id = report.data["id"].as_str().map(str::to_owned);
        id.map(ServerAnswer::Requested).ok_or_else(|| ServerError::NotAdminApi(self.url.to_string()))
    }

    /// Reads a report, from a path below `/admin/v1/`, with its query. Fails at once if nothing listens at the address,
    /// or if the server can't read its storage.
    pub async fn read(&self, path: &str) -> Result<ServerReport, ServerError> {
        let (_, report) = self.request(&Method::GET, path, None, RetryPolicy::Interactive).await?;
        Ok(report)
    }

    /// Follows a job to its end, and returns it. Calls `on_read` with the job each time that it is read.
    pub async fn follow(&self, id: &str, mut on_read: impl FnMut(&Value)) -> Result<Value, ServerError> {
        let path = format!("jobs/{id}");
        loop {
            let (_, report) = self.request(&Method::GET, &path, None, RetryPolicy::Patient).await?;
            on_read(&report.data);
            if report.data["ended_at"].is_string() {
                return Ok(report.data);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Sends a request, and repeats failed attempts by the policy. `keyed_body` is the idempotency key and the body.
    async fn request(
        &self,
        method: &Method,
        path: &str,
        keyed_body: Option<(&str, &Value)>,
        policy: RetryPolicy,
    ) -> Result<(StatusCode, ServerReport), ServerError> {
        let started = Instant::now();
        let mut has_reported = false;
        loop {
            let attempt = timeout(ATTEMPT_TIMEOUT, self.attempt(method, path, keyed_body)).await;
            let attempt = attempt.unwrap_or_else(|late| Err(AttemptError::Retryable(self.unreachable(late))));
            let error = match attempt {
                Ok(answer) => return Ok(answer),
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Retryable(error)) if policy.repeats(&error) => error,
                Err(AttemptError::Retryable(error)) => return Err(error.or_not_listening()),
            };
            if started.elapsed() > GIVE_UP_AFTER {
                return Err(error);
            }
            if !has_reported {
                (self.on_retry)(&error);
                has_reported = true;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        keyed_body: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, ServerReport), AttemptError> {
        let url = format!("{}/admin/v1/{path}", self.url.to_string().trim_end_matches('/'));
        let mut request = Request::builder().method(method).uri(url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut bytes = Bytes::new();
        if let Some((key, body)) = keyed_body {
            request = request.header("idempotency-key", key).header(CONTENT_TYPE, "application/json");
            bytes = body.to_string().into();
        }
        let not_admin_api = || AttemptError::Final(ServerError::NotAdminApi(self.url.to_string()));
        let request = request.body(Full::new(bytes)).map_err(|_| not_admin_api())?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| AttemptError::Retryable(self.unreachable(error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let body = body.map_err(|error| AttemptError::Retryable(self.unreachable(error)))?.to_bytes();
        if status.is_success() {
            let report = serde_json::from_slice(&body).map_err(|_| not_admin_api())?;
            return Ok((status, report));
        }
        Err(self.refusal(status, &body))
    }

    /// Describes a response that is not a success.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> AttemptError {
        let refused = serde_json::from_slice::<Problem>(body).ok();
        let refused = refused.map(|Problem { code, detail }| ServerError::Refused { code, detail });
        let is_retryable = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if is_retryable {
            return AttemptError::Retryable(
                refused.unwrap_or_else(|| self.unreachable(GatewayStatus(status))),
            );
        }
        AttemptError::Final(refused.unwrap_or_else(|| ServerError::NotAdminApi(self.url.to_string())))
    }

    fn unreachable(&self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> ServerError {
        ServerError::Unreachable { server: self.url.to_string(), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_and_gateway_errors_are_retryable_and_other_refusals_are_final() {
        let url = ServerUrl::parse("http://127.0.0.1:8000").unwrap();
        let client = ServerClient::new(&url, None, |_| ()).unwrap();
        let problem = br#"{"code":"overloaded","detail":"32 jobs have not ended"}"#;
        for status in [429, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap();
            let AttemptError::Retryable(error) = client.refusal(status, problem) else { panic!("{status}") };
            let expected = "the server refused the request: 32 jobs have not ended (overloaded)";
            assert_eq!(error.to_string(), expected);
            let AttemptError::Retryable(error) = client.refusal(status, b"<html>") else {
                panic!("{status}")
            };
            let source = error.source().unwrap().to_string();
            assert!(source.starts_with("a gateway answered"), "{source}");
        }
        for status in [400, 404, 409, 422, 500] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(
                client.refusal(status, problem),
                AttemptError::Final(ServerError::Refused { .. })
            ));
            assert!(matches!(client.refusal(status, b""), AttemptError::Final(ServerError::NotAdminApi(_))));
        }
    }

    #[test]
    fn only_an_execution_is_repeated_while_the_storage_of_the_server_is_unavailable() {
        let refused = |code: &str| ServerError::Refused { code: code.to_owned(), detail: String::new() };
        for (code, is_read_repeated) in
            [("event_store_unavailable", false), ("read_model_unavailable", false), ("overloaded", true)]
        {
            assert_eq!(RetryPolicy::Interactive.repeats(&refused(code)), is_read_repeated, "{code}");
            assert!(RetryPolicy::Patient.repeats(&refused(code)), "{code}");
        }
    }

    #[tokio::test]
    async fn a_dry_run_fails_at_once_where_nothing_listens() {
        // Nothing listens at port 1.
        let url = ServerUrl::parse("http://127.0.0.1:1").unwrap();
        let client = ServerClient::new(&url, None, |_| ()).unwrap();
        let body = serde_json::json!({});
        let attempt = client.act("projections/rebuilds", &body);
        let error = timeout(GIVE_UP_AFTER / 2, attempt).await.expect("no second attempt").unwrap_err();
        let expected = "nothing listens at http://127.0.0.1:1/: is the server running";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(is_connection_refused(error.source().unwrap()));
    }

    #[test]
    fn the_url_of_a_server_has_neither_a_user_nor_a_path() {
        for valid in ["http://127.0.0.1:8000", "https://ops.example/", "http://[::1]:8002"] {
            assert!(ServerUrl::parse(valid).is_ok(), "{valid}");
        }
        for invalid in ["", "127.0.0.1:8000", "ftp://x", "http://u:p@x", "http://x/admin/v1", "http://x/?a=1"]
        {
            assert!(ServerUrl::parse(invalid).is_err(), "{invalid}");
        }
    }
}
