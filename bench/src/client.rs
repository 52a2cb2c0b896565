//! An HTTP/1.1 client with one keep-alive connection and one request at a time. Its errors say whether a failed request
//! may have been executed.

use std::error::Error as StdError;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// `Consistency-Token`: a query sends the token of a command's response to see the command's effect.
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
/// `Prefer`: the time that a query may wait for the projections.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The longest wait for a response. It exceeds the time for which the server lets a query wait for the projections.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn StdError + Send + Sync>;

/// A server that can't be used.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The URL is not of the form `http://host:port`.
    #[error("{url} is not a server's address: give one such as http://127.0.0.1:8000")]
    InvalidUrl {
        /// The URL as it was given.
        url: String,
    },
    /// No server answers at the URL.
    #[error("no server answers at {url} ({source}); is it running? `chat-api serve` starts one")]
    Unreachable {
        /// The server's URL.
        url: String,
        /// The cause.
        source: BoxError,
    },
    /// A request failed, or its response is not that of a chat API.
    #[error("{url} answered {response} to {request}")]
    Unexpected {
        /// The server's URL.
        url: String,
        /// The request's method and path.
        request: &'static str,
        /// The status and the problem's code, or a description of the failure.
        response: String,
    },
}

/// The address of a server.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
    /// `host:port`, with the default port if the URL has none.
    address: String,
    /// The value of the `Host` header.
    host: HeaderValue,
}

impl Server {
    /// Parses `http://host:port`.
    pub fn parse(url: &str) -> Result<Self, ServerError> {
        let invalid = || ServerError::InvalidUrl { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        if uri.scheme_str() != Some("http") || !uri.path().trim_matches('/').is_empty() {
            return Err(invalid());
        }
        let authority = uri.authority().ok_or_else(invalid)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| invalid())?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok(Self { url: url.to_owned(), address, host })
    }

    /// Returns the URL that was parsed.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Checks that the server answers.
    pub async fn probe(self: &Arc<Self>) -> Result<(), ServerError> {
        let request = ApiRequest::get("/livez".to_owned());
        match Connection::new(Arc::clone(self)).send(&request).await {
            Ok(response) if response.status == StatusCode::OK => Ok(()),
            Ok(response) => Err(ServerError::Unexpected {
                url: self.url.clone(),
                request: "GET /livez",
                response: response.status_and_code(),
            }),
            Err(SendError::Unsent(source) | SendError::Lost(source)) => {
                Err(ServerError::Unreachable { url: self.url.clone(), source })
            }
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub path: String,
    /// The headers other than `Host`.
    pub headers: HeaderMap,
    /// The body, which may be empty.
    pub body: Bytes,
    /// Whether sending the request twice has the same effect as sending it once.
    pub is_idempotent: bool,
}

impl ApiRequest {
    /// Creates a `GET` request.
    pub fn get(path: String) -> Self {
        Self { method: Method::GET, path, headers: HeaderMap::new(), body: Bytes::new(), is_idempotent: true }
    }

    /// Creates a `POST` request that creates a resource, with a JSON body.
    pub fn post(path: String, body: &serde_json::Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { method: Method::POST, path, headers, body: body.to_string().into(), is_idempotent: false }
    }

    /// Creates a `POST` request that only reads, with a JSON body.
    pub fn post_query(path: String, body: &serde_json::Value) -> Self {
        Self { is_idempotent: true, ..Self::post(path, body) }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// A response.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

impl ApiResponse {
    /// Decodes the body as JSON.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// Returns the problem's code, if the body is a problem.
    pub fn code(&self) -> Option<String> {
        self.json::<Problem>().ok().map(|problem| problem.code)
    }

    /// Returns the status and the problem's code, such as `503 overloaded`.
    pub fn status_and_code(&self) -> String {
        match self.code() {
            Some(code) => format!("{} {code}", self.status.as_u16()),
            None => self.status.as_u16().to_string(),
        }
    }

    /// Returns the duration of `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// Returns the path and query of the link with this relation (RFC 8288).
    pub fn link(&self, relation: &str) -> Option<String> {
        let expected = format!("rel=\"{relation}\"");
        let links = self.headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
        links.flat_map(|value| value.split(", <")).find_map(|link| {
            let (target, parameters) = link.trim_start_matches('<').split_once('>')?;
            if !parameters.split(';').any(|parameter| parameter.trim() == expected) {
                return None;
            }
            let uri: Uri = target.parse().ok()?;
            uri.path_and_query().map(ToString::to_string)
        })
    }
}

/// A request without a response.
#[derive(Debug, Error)]
pub enum SendError {
    /// The request was not sent: repeating it is safe.
    #[error("the request could not be sent")]
    Unsent(#[source] BoxError),
    /// The request was sent, and its response was lost: it may have been executed.
    #[error("the response was lost")]
    Lost(#[source] BoxError),
}

/// A connection that opens on demand and reopens after a loss.
#[derive(Debug)]
pub struct Connection {
    server: Arc<Server>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Creates a connection that the first request opens.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, sender: None }
    }

    /// Sends a request and waits for its response.
    pub async fn send(&mut self, request: &ApiRequest) -> Result<ApiResponse, SendError> {
        let mut sender = match self.take_idle().await {
            Some(sender) => sender,
            None => self.connect().await.map_err(SendError::Unsent)?,
        };
        let request = self.http_request(request).map_err(|error| SendError::Unsent(error.into()))?;
        let response = timeout(RESPONSE_TIMEOUT, exchange(&mut sender, request))
            .await
            .unwrap_or_else(|elapsed| Err(SendError::Lost(elapsed.into())))?;
        self.sender = Some(sender);
        Ok(response)
    }

    fn http_request(&self, request: &ApiRequest) -> Result<Request<Full<Bytes>>, http::Error> {
        let ApiRequest { method, path, headers, body, .. } = request;
        let mut request = Request::builder().method(method).uri(path).body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(header::HOST, self.server.host.clone());
        Ok(request)
    }

    /// Returns the connection of the previous request, unless the server has closed it.
    async fn take_idle(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut sender = self.sender.take()?;
        sender.ready().await.ok()?;
        Some(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, BoxError> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.server.address)).await??;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // An error of the connection is also returned by the request that is in flight.
        tokio::spawn(connection);
        sender.ready().await?;
        Ok(sender)
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<ApiResponse, SendError> {
    let response = sender.try_send_request(request).await.map_err(|mut error| {
        // hyper gives the request back only if it has not written it to the connection.
        if error.take_message().is_some() {
            SendError::Unsent(error.into_error().into())
        } else {
            SendError::Lost(error.into_error().into())
        }
    })?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| SendError::Lost(error.into()))?.to_bytes();
    Ok(ApiResponse { status: head.status, headers: head.headers, body })
}

/// Percent-encodes the value of a query parameter.
pub fn encode_query(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_plain_http_addresses() {
        assert_eq!(Server::parse("http://127.0.0.1:8000").unwrap().address, "127.0.0.1:8000");
        assert_eq!(Server::parse("http://chat.example/").unwrap().address, "chat.example:80");
        for invalid in ["", "localhost", "127.0.0.1:8000", "https://chat.example", "http://chat.example/api"]
        {
            assert!(
                matches!(Server::parse(invalid), Err(ServerError::InvalidUrl { .. })),
                "accepts {invalid:?}"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn nagles_algorithm_is_off() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let _connection = Connection::new(Arc::new(server)).connect().await.unwrap();
        chat_testing::sockets::wait_until_nagle_is_off(&[port], 1).await;
    }

    #[test]
    fn finds_a_link_by_its_relation() {
        let mut headers = HeaderMap::new();
        let value = r#"<http://h:1/a?x=1&y=2>; rel="next", </b>; title="t"; rel="prev""#;
        headers.insert(header::LINK, HeaderValue::from_static(value));
        let response = ApiResponse { status: StatusCode::OK, headers, body: Bytes::new() };
        assert_eq!(response.link("next").as_deref(), Some("/a?x=1&y=2"));
        assert_eq!(response.link("prev").as_deref(), Some("/b"));
        assert_eq!(response.link("first"), None);
    }

    #[test]
    fn encodes_query_values_byte_by_byte() {
        assert_eq!(encode_query("a b&ß"), "a%20b%26%C3%9F");
    }
}
