//! A small HTTP client that sends each request to a process with the right role, like a gateway.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::deadline::eventually;

/// The time limit of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one process, or of several processes, like a gateway.
#[derive(Clone, Debug)]
pub struct Client {
    command_urls: Arc<[String]>,
    query_urls: Arc<[String]>,
    http: Http<HttpConnector, Full<Bytes>>,
}

/// The reason why a request got no response.
#[derive(Debug)]
pub enum RequestError {
    /// No connection could be made, so the request was not received.
    NotSent(String),
    /// The connection failed later, or no response came in time, so the request may have been received.
    Lost(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotSent(reason) | Self::Lost(reason)) = self;
        f.write_str(reason)
    }
}

impl Client {
    /// Creates a client of one process that serves everything, at `http://host:port`.
    pub fn new(url: &str) -> Self {
        Self::routed([url], [url])
    }

    /// Creates a client that sends each request to one of the processes with the right role. If a role has several
    /// processes, all requests to paths of one app go to the same process of the role.
    pub fn routed<'a>(
        command_urls: impl IntoIterator<Item = &'a str>,
        query_urls: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        let command_urls = command_urls.into_iter().map(ToOwned::to_owned).collect();
        let query_urls = query_urls.into_iter().map(ToOwned::to_owned).collect();
        Self { command_urls, query_urls, http }
    }

    /// Returns a copy of the client that opens a new connection for each request.
    #[must_use]
    pub fn without_keep_alive(&self) -> Self {
        let http = Http::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { http, ..self.clone() }
    }

    /// Creates a `GET` request.
    pub fn get(&self, path: impl Into<String>) -> Call<'_> {
        self.request(Method::GET, path)
    }

    /// Creates a `POST` request with a JSON body.
    pub fn post(&self, path: impl Into<String>, body: &Value) -> Call<'_> {
        self.request(Method::POST, path).json(body)
    }

    /// Creates a `PUT` request with a JSON body.
    pub fn put(&self, path: impl Into<String>, body: &Value) -> Call<'_> {
        self.request(Method::PUT, path).json(body)
    }

    /// Creates a `DELETE` request.
    pub fn delete(&self, path: impl Into<String>) -> Call<'_> {
        self.request(Method::DELETE, path)
    }

    /// Creates a request with any method.
    pub fn request(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        let path = path.into();
        Call { client: self, method, path, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Returns the URLs of the processes that answer queries.
    pub fn query_urls(&self) -> &[String] {
        &self.query_urls
    }

    /// Returns the URL for a `GET` of a path, for tests that read the response as a stream.
    pub fn url_of(&self, path: &str) -> String {
        self.url(&Method::GET, path)
    }

    fn url(&self, method: &Method, path: &str) -> String {
        // Searches and operator actions that are sent by `POST` go to the processes that answer queries, too.
        let is_search = path.split('?').next().is_some_and(|path| path.ends_with("/search"));
        let is_admin = path.starts_with("/admin/");
        let is_for_queries = matches!(*method, Method::GET | Method::HEAD)
            || (*method == Method::POST && (is_search || is_admin));
        let urls = if is_for_queries { &self.query_urls } else { &self.command_urls };
        format!("{}{path}", urls[process_index(path, urls.len())])
    }
}

/// Returns the index of the process for a path, chosen by its fourth segment: in paths of an app, the token.
fn process_index(path: &str, process_count: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    path.split(['/', '?']).nth(4).hash(&mut hasher);
    usize::try_from(hasher.finish() % process_count as u64).expect("an index")
}

/// A request to send.
#[derive(Clone, Debug)]
#[must_use]
pub struct Call<'a> {
    client: &'a Client,
    /// The method.
    pub method: Method,
    /// The path and query.
    pub path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a header's value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// Sets a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sets any body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds the consistency token of a command's reply, so that the query sees the effect of the command. The query may
    /// wait up to 10 s, the maximum: on a busy machine, a projector may need longer than the default wait.
    pub fn after(self, reply: &Reply) -> Self {
        self.header("consistency-token", reply.header("consistency-token")).header("prefer", "wait=10")
    }

    /// Sends the request. Panics if there is no response.
    pub async fn send(self) -> Reply {
        let request_line = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{request_line}: {error}"))
    }

    /// Sends the request until the response has this status. On a busy machine, a process may not be ready for a
    /// moment: an engine that does not answer within half a second counts as down.
    pub async fn send_until(self, status: u16) -> Reply {
        eventually(&format!("{} {} is answered with {status}", self.method, self.path), async || {
            let reply = self.clone().try_send().await.ok()?;
            (reply.status == status).then_some(reply)
        })
        .await
    }

    /// Sends the request. Fails if there is no response.
    pub async fn try_send(self) -> Result<Reply, RequestError> {
        let url = self.client.url(&self.method, &self.path);
        let mut request =
            Request::builder().method(&self.method).uri(url).body(Full::new(self.body)).expect("a request");
        *request.headers_mut() = self.headers;
        let exchange = async {
            let answer = self.client.http.request(request).await.map_err(|error| {
                let reason = format!("{error:?}");
                if error.is_connect() { RequestError::NotSent(reason) } else { RequestError::Lost(reason) }
            })?;
            let (head, body) = answer.into_parts();
            let body =
                body.collect().await.map_err(|error| RequestError::Lost(format!("{error:?}")))?.to_bytes();
            Ok(Reply {
                method: self.method,
                path: self.path,
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        let timed_out = Err(RequestError::Lost(format!("no answer within {RESPONSE_TIMEOUT:?}")));
        tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.unwrap_or(timed_out)
    }
}

/// A response with its request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The request's method.
    pub method: Method,
    /// The request's path and query.
    pub path: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// Asserts the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body);
        let shown: String = body.chars().take(400).collect();
        assert_eq!(self.status.as_u16(), status, "{} {} answered {shown}", self.method, self.path);
        self
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} {}: {error}: {:?}", self.method, self.path, self.body))
    }

    /// Returns the value of a header, which must occur exactly once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{} {}: {name} in {:?}", self.method, self.path, self.headers);
        values[0].to_str().expect("a header of ASCII")
    }

    /// Whether the response has a header.
    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    /// Returns the error code of a problem.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_else(|| panic!("no problem: {:?}", self.body)).to_owned()
    }

    /// Returns the targets of the `Link` headers by relation, each as path and query.
    pub fn links(&self) -> HashMap<String, String> {
        let values =
            self.headers.get_all("link").iter().map(|value| value.to_str().expect("a header of ASCII"));
        let mut links = HashMap::new();
        for link in values.flat_map(|value| value.split(", <")) {
            let (target, parameters) = link.trim_start_matches('<').split_once('>').expect("a link's target");
            let relation = parameters.split('"').nth(1).expect("a relation in quotes");
            let uri: http::Uri = target.parse().expect("a link's target");
            let target = uri.path_and_query().expect("a path").to_string();
            assert_eq!(links.insert(relation.to_owned(), target), None, "two links of one relation");
        }
        links
    }
}
