//! Edge cases of HTTP requests and responses, over real connections: early responses, half-closed connections,
//! malformed heads, transfer and content codings, and CORS.

#![expect(clippy::unwrap_used, reason = "test helpers")]

mod unread_bodies;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::routing::{get, post};
use chat_web::admin_auth::{AdminAccess, AdminToken};
use chat_web::cors::CorsOrigins;
use chat_web::extract::{AppPath, JsonBody, Query};
use chat_web::http_limits::{HttpLimits, HttpUsage};
use chat_web::metrics::Metrics;
use chat_web::problem::Problem;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions, build_router};
use chat_web::server::{ServerOptions, serve};
use chat_web::system_routes::{Part, Readiness, SystemServices};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;

const DEADLINE: Duration = Duration::from_secs(20);
const MAX_BODY_BYTES: usize = 512 * 1024;
const API: &str = "/api/v1";

struct AlwaysReady;

#[async_trait]
impl Readiness for AlwaysReady {
    async fn parts(&self) -> Vec<Part> {
        Vec::new()
    }
}

#[derive(Deserialize)]
struct Message {
    text: String,
}

struct TestServer {
    address: SocketAddr,
    limits: Arc<HttpLimits>,
    /// Makes the server leave: it ends each connection with the next response.
    leave: watch::Sender<bool>,
}

async fn start() -> TestServer {
    start_with(HttpOptions::default()).await
}

async fn start_with(options: HttpOptions) -> TestServer {
    let routes = OpenApiRouter::new()
        .route(
            "/api/v1/length",
            post(async |JsonBody(message): JsonBody<Message>| message.text.len().to_string()),
        )
        .route("/api/v1/large", get(async || ([("content-type", "text/plain")], "text ".repeat(20_000))))
        .route("/api/v1/small", get(async || "small"))
        .route("/api/v1/apps/{app_token}", post(async |_: AppPath| "app"))
        .route("/api/v1/operators", post(authorize))
        .route("/api/v1/query", post(async |_: Query<Message>| "query"))
        .route("/api/v1/unchanged", get(async || StatusCode::NOT_MODIFIED))
        .route("/api/v1/empty", get(async || StatusCode::NO_CONTENT));
    let apis = ApiSet { served: vec![ApiRoutes::queries(routes)], ..ApiSet::default() };
    let app = build_router(apis, SystemServices::new(Arc::new(AlwaysReady), Metrics::detached()), &options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (leave, leaving) = watch::channel(false);
    let limits = Arc::clone(&options.limits);
    let options = ServerOptions { leaving, cors: options.cors.clone(), ..ServerOptions::default() };
    tokio::spawn(serve(listener, app, Arc::clone(&limits), options, std::future::pending()));
    TestServer { address, limits, leave }
}

async fn authorize(headers: HeaderMap) -> Result<&'static str, Problem> {
    let access = AdminAccess::with_token(AdminToken::parse("secret").unwrap());
    access.authenticate_request(&headers).map(|_| "operator")
}

/// A response as it was received.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn parse(received: &[u8]) -> Self {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = received.split_at(end.unwrap_or_else(|| panic!("no response: {received:?}")) + 4);
        let head = String::from_utf8(head.to_vec()).unwrap();
        Self { status: head[9..12].parse().unwrap(), head, body: body.to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    fn assert_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, Some("application/problem+json")),
            "{self:?}"
        );
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()));
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        problem
    }
}

impl TestServer {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends all of a request and then reads the response until the server closes the connection.
    async fn send(&self, request: &[u8]) -> Response {
        let mut stream = self.connect().await;
        timeout(DEADLINE, stream.write_all(request)).await.unwrap().unwrap();
        read_to_end(&mut stream).await
    }

    async fn send_text(&self, request: &str) -> Response {
        self.send(request.as_bytes()).await
    }

    /// Sends a body in JSON to `/length`, with further headers.
    async fn post(&self, headers: &str, body: &[u8]) -> Response {
        let head = format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat()).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> Response {
    let mut received = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut received)).await.unwrap().unwrap();
    Response::parse(&received)
}

fn chunked(body: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A JSON body whose text has this many bytes.
fn message(bytes: usize) -> Vec<u8> {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes)).into_bytes()
}

#[tokio::test]
async fn a_client_that_sends_a_refused_body_to_its_end_receives_the_response() {
    let server = start().await;
    let body = message(6 * 1024 * 1024);
    for headers in ["content-type: application/json", "content-type: text/plain"] {
        let declared = format!("content-length: {}", body.len());
        for (framing, body) in [(&*declared, body.clone()), ("transfer-encoding: chunked", chunked(&body))] {
            let head = format!("POST {API}/length HTTP/1.1\r\nhost: x\r\n{headers}\r\n{framing}\r\n\r\n");
            let response = server.send(&[head.as_bytes(), &body].concat()).await;
            assert_eq!(response.header("connection"), Some("close"));
            if headers.contains("json") {
                let problem = response.assert_problem(413, "payload_too_large");
                assert_eq!(problem["detail"], "the body has over 524288 bytes");
            } else {
                response.assert_problem(415, "unsupported_media_type");
            }
        }
    }
}

#[tokio::test]
async fn the_stream_of_an_early_response_is_not_reset_while_its_client_sends() {
    let server = start().await;
    let (client, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    for (method, path, status) in
        [("POST", "/length", 413), ("POST", "/nowhere", 404), ("GET", "/small", 200)]
    {
        let mut rest = bytes::Bytes::from(message(2 * 1024 * 1024));
        let request = http::Request::builder().method(method).uri(format!("http://x{API}{path}"));
        let request = request.header("content-type", "application/json").header("content-length", rest.len());
        let (response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let capacity = timeout(DEADLINE, std::future::poll_fn(|context| stream.poll_capacity(context)));
            let capacity = capacity.await.unwrap().unwrap().unwrap();
            let chunk = rest.split_to(capacity.min(rest.len()));
            stream.send_data(chunk, rest.is_empty()).unwrap();
        }
        let mut response = timeout(DEADLINE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        while let Some(data) = timeout(DEADLINE, response.body_mut().data()).await.unwrap() {
            data.unwrap();
        }
    }
}

#[tokio::test]
async fn early_responses_other_than_413_and_415_reach_clients_that_send_the_whole_body() {
    let server = start().await;
    let body = message(400_000);
    for (method, path, status) in [
        ("POST", "/nowhere", 404),
        ("POST", "/small", 405),
        ("GET", "/small", 200),
        ("DELETE", "/length", 405),
    ] {
        let length = body.len();
        let head = format!("{method} {API}{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        let response = server.send(&[head.as_bytes(), &body].concat()).await;
        assert_eq!(
            (response.status, response.header("connection")),
            (status, Some("close")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_at_once_without_100_continue() {
    let server = start().await;
    let head = |length: usize| {
        format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    let mut stream = server.connect().await;
    stream.write_all(head(MAX_BODY_BYTES + 1).as_bytes()).await.unwrap();
    let mut received = vec![0; 4096];
    let read = timeout(DEADLINE, stream.read(&mut received)).await.unwrap().unwrap();
    let response = Response::parse(&received[..read]);
    response.assert_problem(413, "payload_too_large");
    assert_eq!(response.header("connection"), Some("close"));
    // For a body within the limit, the server sends `100 Continue`.
    let mut stream = server.connect().await;
    stream.write_all(head(14).as_bytes()).await.unwrap();
    let mut received = [0; 25];
    timeout(DEADLINE, stream.read_exact(&mut received)).await.unwrap().unwrap();
    assert_eq!(&received, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[tokio::test]
async fn an_enormous_declared_length_is_answered_as_a_large_body_and_not_as_a_large_head() {
    let server = start().await;
    for length in ["18446744073709551613", "18446744073709551614", "18446744073709551615", &"9".repeat(40)] {
        let head = format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        let response = server.send_text(&head).await;
        response.assert_problem(413, "payload_too_large");
        assert_eq!(response.header("connection"), Some("close"), "{length}");
    }
}

#[tokio::test]
async fn headers_that_may_occur_only_once_are_refused_if_they_are_repeated() {
    let server = start().await;
    let body = message(3);
    for (name, first, second) in [
        ("Content-Type", "application/json", "text/plain"),
        ("Content-Type", "application/json", "application/json"),
        ("Authorization", "Bearer a", "Bearer b"),
        ("Last-Event-ID", "1", "2"),
    ] {
        let content_type = if name == "Content-Type" { "" } else { "content-type: application/json\r\n" };
        let head = format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{content_type}\
             {name}: {first}\r\n{name}: {second}\r\n\r\n",
            body.len()
        );
        let response = server.send(&[head.as_bytes(), &body].concat()).await;
        let problem = response.assert_problem(400, "malformed_header");
        assert_eq!(problem["detail"], format!("the header `{name}` is given more than once"));
    }
}

#[tokio::test]
async fn responses_that_never_have_a_body_declare_no_length() {
    let server = start().await;
    for (path, status) in [("/unchanged", 304), ("/empty", 204)] {
        for method in ["GET", "HEAD"] {
            let request = format!("{method} {API}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let response = server.send_text(&request).await;
            assert_eq!(
                (response.status, response.header("content-length")),
                (status, None),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_is_answered_if_it_closes_its_side_after_its_request() {
    let server = start().await;
    for request in [
        format!("GET {API}/small HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET {API}/large HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{{\"text\":\"a\"}}"
        ),
    ] {
        for _ in 0..10 {
            let mut stream = server.connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(read_to_end(&mut stream).await.status, 200, "{request}");
        }
    }
    // A request whose body ends too early is answered too.
    let mut stream = server.connect().await;
    let head = format!(
        "POST {API}/length HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await.assert_problem(400, "malformed_request");
}

#[tokio::test]
async fn a_body_with_broken_framing_is_a_malformed_request_and_ends_the_connection() {
    let server = start().await;
    let start_of_body = "5\r\n{\"tex\r\n";
    for rest in ["zz\r\n", "3\r\nabcX", "fffffffffffffffff\r\n", "\n", "0\r\nno trailer\r\n\r\n"] {
        let head = format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        let response = server.send_text(&format!("{head}{start_of_body}{rest}")).await;
        let problem = response.assert_problem(400, "malformed_request");
        assert_eq!(problem["detail"], "the chunks of the body can't be parsed", "{rest:?}");
        assert_eq!(response.header("connection"), Some("close"), "{rest:?}");
    }
}

#[tokio::test]
async fn malformed_and_too_large_heads_are_answered_with_a_problem() {
    let server = start().await;
    for request in [
        "GET / HTTP/1.1\r\nhost x\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        "G\u{e9}T / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\na",
        "nonsense\r\n\r\n",
    ] {
        let response = server.send_text(request).await;
        response.assert_problem(400, "malformed_request");
        assert_eq!(response.header("connection"), Some("close"), "{request}");
        let length: usize = response.header("content-length").unwrap().parse().unwrap();
        assert_eq!(length, response.body.len());
    }
    let headers = |count: usize, bytes: usize| {
        let header = format!("x-filler: {}\r\n", "x".repeat(bytes));
        format!("GET {API}/small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n", header.repeat(count))
    };
    for (request, is_accepted) in [
        (headers(1, 20_000), true),
        (headers(1, 60_000), false),
        (headers(1, 3_000_000), false),
        (headers(90, 10), true),
        (headers(200, 10), false),
    ] {
        let response = server.send_text(&request).await;
        if is_accepted {
            assert_eq!(response.status, 200);
        } else {
            response.assert_problem(431, "head_too_large");
        }
    }
}

#[tokio::test]
async fn a_too_large_head_of_http_2_is_answered_with_a_problem() {
    let server = start().await;
    let (client, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    for (bytes, status) in [(20_000, 200), (40_000, 431)] {
        let request =
            http::Request::get(format!("http://x{API}/small")).header("x-filler", "x".repeat(bytes));
        let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        let response = timeout(DEADLINE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), status, "{bytes}");
        if status == 431 {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
}

#[tokio::test]
async fn a_malformed_head_does_not_replace_the_responses_before_it() {
    let server = start().await;
    let mut stream = server.connect().await;
    let request = format!("GET {API}/small HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut received)).await.unwrap().unwrap();
    let text = String::from_utf8(received).unwrap();
    let (first, second) = text.split_once("small").unwrap();
    assert!(first.starts_with("HTTP/1.1 200"), "{text}");
    Response::parse(second.as_bytes()).assert_problem(400, "malformed_request");
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_refused() {
    let server = start().await;
    let body = message(3);
    let request = |coding: &str| {
        let head = format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             transfer-encoding: {coding}\r\n\r\n"
        );
        [head.into_bytes(), chunked(&body)].concat()
    };
    let accepted = server.send(&request("chunked")).await;
    assert_eq!((accepted.status, &*accepted.body), (200, b"3".as_slice()));
    for coding in ["gzip, chunked", "identity, chunked", "chunked, chunked"] {
        server.send(&request(coding)).await.assert_problem(400, "malformed_request");
    }
}

#[tokio::test]
async fn content_codings_other_than_gzip_and_identity_are_refused() {
    let server = start().await;
    let body = message(5_000);
    for coding in ["gzip", "GZIP", "x-gzip", "identity, gzip"] {
        let response = server.post(&format!("content-encoding: {coding}\r\n"), &gzip(&body)).await;
        assert_eq!((response.status, &*response.body), (200, b"5000".as_slice()), "{coding}");
    }
    for coding in ["identity", ""] {
        let response = server.post(&format!("content-encoding: {coding}\r\n"), &body).await;
        assert_eq!((response.status, &*response.body), (200, b"5000".as_slice()), "{coding}");
    }
    for coding in ["br", "zstd", "deflate", "gzip, gzip", "unknown"] {
        let response = server.post(&format!("content-encoding: {coding}\r\n"), &body).await;
        response.assert_problem(415, "unsupported_media_type");
        assert_eq!(response.header("accept-encoding"), Some("gzip, identity"));
    }
    let broken = server.post("content-encoding: gzip\r\n", &body).await;
    assert_eq!(broken.assert_problem(400, "malformed_json")["detail"], "the body is not in the gzip format");
    let compressed = gzip(&body);
    let cut = server.post("content-encoding: gzip\r\n", &compressed[..compressed.len() / 2]).await;
    cut.assert_problem(400, "malformed_json");
}

#[tokio::test]
async fn a_body_is_decompressed_to_the_limit_at_most() {
    let server = start().await;
    let largest = gzip(&message(MAX_BODY_BYTES - r#"{"text":""}"#.len()));
    assert_eq!(server.post("content-encoding: gzip\r\n", &largest).await.status, 200);
    // 300 MiB in 300 KiB, which is within the limit before it is decompressed.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..300 {
        bomb.write_all(&vec![b' '; 1024 * 1024]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < MAX_BODY_BYTES, "{}", bomb.len());
    let response = server.post("content-encoding: gzip\r\n", &bomb).await;
    let problem = response.assert_problem(413, "payload_too_large");
    assert_eq!(problem["detail"], "the decompressed body has over 524288 bytes");
    let usage = HttpUsage { free_slots: HttpLimits::DEFAULT_IN_FLIGHT, ..HttpUsage::default() };
    assert_eq!(server.limits.usage(), usage);
}

#[tokio::test]
async fn decompressed_bytes_count_against_the_memory_for_bodies() {
    let limits = HttpLimits::new(10, 256 * 1024);
    let server = start_with(HttpOptions { limits, ..HttpOptions::default() }).await;
    let compressed = gzip(&message(200_000));
    assert!(compressed.len() < 8 * 1024);
    server.post("content-encoding: gzip\r\n", &compressed).await.assert_problem(503, "overloaded");
    assert_eq!(server.limits.usage(), HttpUsage { free_slots: 10, ..HttpUsage::default() });
}

#[tokio::test]
async fn a_large_text_is_compressed_in_a_coding_that_the_client_accepts() {
    let server = start().await;
    let get = async |path: &str, encodings: &str| {
        server
            .send_text(&format!(
                "GET {API}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept-encoding: {encodings}\r\n\r\n"
            ))
            .await
    };
    for (encodings, expected) in [
        ("gzip", Some("gzip")),
        ("gzip, deflate, br", Some("br")),
        ("zstd", Some("zstd")),
        ("identity", None),
    ] {
        let response = get("/large", encodings).await;
        assert_eq!((response.status, response.header("content-encoding")), (200, expected));
        assert_eq!(response.header("vary"), Some("accept-encoding"));
        let length: usize = response.header("content-length").unwrap().parse().unwrap();
        assert_eq!((length, length < 100_000), (response.body.len(), expected.is_some()), "{encodings}");
    }
    let small = get("/small", "gzip").await;
    assert_eq!((small.header("content-encoding"), small.header("vary")), (None, None));
    // The response to `HEAD` declares the length of the response to `GET`.
    let request =
        format!("HEAD {API}/large HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept-encoding: gzip\r\n\r\n");
    let head = server.send_text(&request).await;
    let compressed = get("/large", "gzip").await;
    assert_eq!(head.header("content-length"), compressed.header("content-length"));
    assert_eq!(server.limits.usage().unsent_response_bytes, 0);
}

#[tokio::test]
async fn a_leaving_process_ends_connections_with_their_next_response() {
    let server = start().await;
    let mut stream = server.connect().await;
    let request = format!("GET {API}/small HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = vec![0; 4096];
    let read = timeout(DEADLINE, stream.read(&mut received)).await.unwrap().unwrap();
    assert_eq!(Response::parse(&received[..read]).header("connection"), None);
    server.leave.send_replace(true);
    stream.write_all(request.as_bytes()).await.unwrap();
    let last = read_to_end(&mut stream).await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
}

#[tokio::test]
async fn pages_of_listed_origins_may_use_the_api_and_others_may_not() {
    let cors: CorsOrigins = "https://chat.example".parse().unwrap();
    let host_policy =
        chat_web::host_policy::HostPolicy::LoopbackAnd(chat_web::host_policy::AllowedHosts::default());
    let server = start_with(HttpOptions { cors: Some(cors), host_policy, ..HttpOptions::default() }).await;
    let send = async |method: &str, path: &str, origin: &str, headers: &str| {
        server
            .send_text(&format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\norigin: {origin}\r\n\
                 sec-fetch-site: cross-site\r\n{headers}\r\n"
            ))
            .await
    };
    let preflight =
        "access-control-request-method: PUT\r\naccess-control-request-headers: idempotency-key\r\n";
    let (listed, unlisted) = ("https://chat.example", "https://evil.example");
    let path = format!("{API}/small");
    let answer = send("OPTIONS", &path, listed, preflight).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(listed)));
    assert_eq!(answer.header("access-control-allow-headers"), Some("idempotency-key"));
    assert!(answer.header("access-control-allow-methods").unwrap().contains("PUT"));
    let answer = send("OPTIONS", &path, unlisted, preflight).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);

    let answer = send("GET", &path, listed, "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(listed)));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("consistency-token"));
    let missing = send("GET", &format!("{API}/nowhere"), listed, "").await;
    missing.assert_problem(404, "route_not_found");
    assert_eq!(missing.header("access-control-allow-origin"), Some(listed));
    send("GET", &path, unlisted, "").await.assert_problem(403, "origin_refused");
    // The routes of operators refuse the pages of listed origins too.
    let admin = send("GET", "/admin/v1/log", listed, "").await;
    assert_eq!(admin.header("access-control-allow-origin"), None);
    admin.assert_problem(403, "origin_refused");
}

#[tokio::test]
async fn pages_can_read_why_a_request_did_not_reach_a_route() {
    let cors: CorsOrigins = "https://chat.example".parse().unwrap();
    let server = start_with(HttpOptions { cors: Some(cors.clone()), ..HttpOptions::default() }).await;
    let filler = "x".repeat(60_000);
    for (request, status, code) in [
        (
            format!(
                "GET {API}/small HTTP/1.1\r\nhost: x\r\norigin: https://chat.example\r\nx: {filler}\r\n\r\n"
            ),
            431,
            "head_too_large",
        ),
        (
            format!("GET {API}/sm all HTTP/1.1\r\nhost: x\r\norigin: https://chat.example\r\n\r\n"),
            400,
            "malformed_request",
        ),
    ] {
        let response = server.send_text(&request).await;
        response.assert_problem(status, code);
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        assert_eq!(response.header("access-control-expose-headers"), Some("x-request-id"));
    }

    // No slot is free for any request.
    let limits = HttpLimits::new(0, HttpLimits::DEFAULT_MEMORY_BYTES);
    let server = start_with(HttpOptions { cors: Some(cors), limits, ..HttpOptions::default() }).await;
    let send = async |method: &str, origin: &str, headers: &str| {
        let head = format!(
            "{method} {API}/small HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n{headers}\r\n"
        );
        server.send_text(&head).await
    };
    let listed = "https://chat.example";
    let overloaded = send("GET", listed, "").await;
    overloaded.assert_problem(503, "overloaded");
    assert_eq!(overloaded.header("access-control-allow-origin"), Some(listed));
    assert!(overloaded.header("access-control-expose-headers").unwrap().contains("retry-after"));
    assert!(overloaded.header("vary").unwrap().contains("origin"));
    let unlisted = send("GET", "https://evil.example", "").await;
    assert_eq!((unlisted.status, unlisted.header("access-control-allow-origin")), (503, None));
    // A preflight request needs no slot, so that the page sends the request and reads its problem.
    let preflight = send("OPTIONS", listed, "access-control-request-method: GET\r\n").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, Some(listed)));
}

#[tokio::test]
async fn without_cors_no_response_has_headers_of_cors() {
    let server = start().await;
    let malformed = server.send_text("nonsense\r\n\r\n").await;
    assert!(!malformed.head.contains("access-control"), "{}", malformed.head);
    let request = format!(
        "GET {API}/small HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: https://chat.example\r\n\r\n"
    );
    let response = server.send_text(&request).await;
    assert!(!response.head.contains("access-control"), "{}", response.head);
}
