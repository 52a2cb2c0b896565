//! A small HTTP/1.1 client: one keep-alive connection, one request at a time, and no doubt about whether a failed
//! request may have been carried out.

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

/// `Consistency-Token`: what a command's answer carries and a query sends back to see the command's effect.
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
/// `Prefer`: how long a query may wait.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long an answer may take: longer than any wait the server grants.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why there is no server to talk to.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The URL is not one.
    #[error("{url} is not a server's address: give one such as http://127.0.0.1:8000")]
    InvalidUrl {
        /// What was given.
        url: String,
    },
    /// Nothing answers there.
    #[error("no server answers at {url} ({source}); is it running? `chat-api serve` starts one")]
    Unreachable {
        /// Where.
        url: String,
        /// What went wrong.
        source: BoxError,
    },
    /// Something answers, but not what was asked for.
    #[error("{url} answered {answer} to {request}")]
    Unexpected {
        /// Where.
        url: String,
        /// The request's method and path.
        request: &'static str,
        /// The status and code.
        answer: String,
    },
}

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
    address: String,
    host: HeaderValue,
}

impl Server {
    /// Reads `http://host:port`.
    pub fn parse(url: &str) -> Result<Self, ServerError> {
        let wrong = || ServerError::InvalidUrl { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || !uri.path().trim_matches('/').is_empty() {
            return Err(wrong());
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok(Self { url: url.to_owned(), address, host })
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes sure that something answers.
    pub async fn probe(self: &Arc<Self>) -> Result<(), ServerError> {
        let request = Call::get("/livez".to_owned());
        match Connection::new(Arc::clone(self)).send(&request).await {
            Ok(reply) if reply.status == StatusCode::OK => Ok(()),
            Ok(reply) => Err(ServerError::Unexpected {
                url: self.url.clone(),
                request: "GET /livez",
                answer: reply.outcome(),
            }),
            Err(SendError::Unsent(source) | SendError::Lost(source)) => {
                Err(ServerError::Unreachable { url: self.url.clone(), source })
            }
        }
    }
}

/// A request, kept so that it can be sent again.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub path: String,
    /// Headers beside `Host`.
    pub headers: HeaderMap,
    /// The body, empty for none.
    pub body: Bytes,
    /// Whether it changes nothing, so that sending it twice is the same as once.
    pub is_idempotent: bool,
}

impl Call {
    /// A `GET`.
    pub fn get(path: String) -> Self {
        Self { method: Method::GET, path, headers: HeaderMap::new(), body: Bytes::new(), is_idempotent: true }
    }

    /// A `POST` of this as JSON, which creates something.
    pub fn post(path: String, body: &serde_json::Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { method: Method::POST, path, headers, body: body.to_string().into(), is_idempotent: false }
    }

    /// A `POST` of this as JSON, which only asks.
    pub fn post_query(path: String, body: &serde_json::Value) -> Self {
        Self { is_idempotent: true, ..Self::post(path, body) }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

impl Reply {
    /// The body read as JSON.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The problem's code, where the body is a problem.
    pub fn code(&self) -> Option<String> {
        self.json::<Problem>().ok().map(|problem| problem.code)
    }

    /// The status and the problem's code, such as `503 overloaded`.
    pub fn outcome(&self) -> String {
        match self.code() {
            Some(code) => format!("{} {code}", self.status.as_u16()),
            None => self.status.as_u16().to_string(),
        }
    }

    /// The seconds of `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The target of the link with this relation (RFC 8288), as path and query.
    pub fn link(&self, relation: &str) -> Option<String> {
        let wanted = format!("rel=\"{relation}\"");
        let links = self.headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
        links.flat_map(|value| value.split(", <")).find_map(|link| {
            let (target, parameters) = link.trim_start_matches('<').split_once('>')?;
            if !parameters.split(';').any(|parameter| parameter.trim() == wanted) {
                return None;
            }
            let uri: Uri = target.parse().ok()?;
            uri.path_and_query().map(ToString::to_string)
        })
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum SendError {
    /// The request never left: sending it again is safe.
    #[error("the request could not be sent")]
    Unsent(#[source] BoxError),
    /// The request left and no answer came: it may have been carried out.
    #[error("the answer was lost")]
    Lost(#[source] BoxError),
}

/// A connection that is opened when needed and opened again when it was lost.
#[derive(Debug)]
pub struct Connection {
    server: Arc<Server>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection to be opened by the first request.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, sender: None }
    }

    /// Sends a request and waits for its answer.
    pub async fn send(&mut self, call: &Call) -> Result<Reply, SendError> {
        let mut sender = match self.take_idle().await {
            Some(sender) => sender,
            None => self.connect().await.map_err(SendError::Unsent)?,
        };
        let request = self.request(call).map_err(|error| SendError::Unsent(error.into()))?;
        let reply = timeout(RESPONSE_TIMEOUT, exchange(&mut sender, request))
            .await
            .unwrap_or_else(|elapsed| Err(SendError::Lost(elapsed.into())))?;
        self.sender = Some(sender);
        Ok(reply)
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request =
            Request::builder().method(&call.method).uri(&call.path).body(Full::new(call.body.clone()))?;
        *request.headers_mut() = call.headers.clone();
        request.headers_mut().insert(header::HOST, self.server.host.clone());
        Ok(request)
    }

    /// The connection of the request before, unless the server has closed it.
    async fn take_idle(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut sender = self.sender.take()?;
        sender.ready().await.ok()?;
        Some(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, BoxError> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.server.address)).await??;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends the connection is seen by the request that was under way.
        tokio::spawn(connection);
        sender.ready().await?;
        Ok(sender)
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Reply, SendError> {
    let answer = sender.try_send_request(request).await.map_err(|mut refused| {
        if refused.take_message().is_some() {
            SendError::Unsent(refused.into_error().into())
        } else {
            SendError::Lost(refused.into_error().into())
        }
    })?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| SendError::Lost(error.into()))?.to_bytes();
    Ok(Reply { status: head.status, headers: head.headers, body })
}

/// Percent-encodes a query parameter's value.
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
    fn only_a_plain_http_address_is_a_server() {
        assert_eq!(Server::parse("http://127.0.0.1:8000").unwrap().address, "127.0.0.1:8000");
        assert_eq!(Server::parse("http://chat.example/").unwrap().address, "chat.example:80");
        for wrong in ["", "localhost", "127.0.0.1:8000", "https://chat.example", "http://chat.example/api"] {
            assert!(matches!(Server::parse(wrong), Err(ServerError::InvalidUrl { .. })), "{wrong}");
        }
    }

    #[test]
    fn links_are_found_by_relation() {
        let mut headers = HeaderMap::new();
        let value = r#"<http://h:1/a?x=1&y=2>; rel="next", </b>; title="t"; rel="prev""#;
        headers.insert(header::LINK, HeaderValue::from_static(value));
        let reply = Reply { status: StatusCode::OK, headers, body: Bytes::new() };
        assert_eq!(reply.link("next").as_deref(), Some("/a?x=1&y=2"));
        assert_eq!(reply.link("prev").as_deref(), Some("/b"));
        assert_eq!(reply.link("first"), None);
    }

    #[test]
    fn query_values_are_encoded_byte_by_byte() {
        assert_eq!(encode_query("a b&ß"), "a%20b%26%C3%9F");
    }
}
