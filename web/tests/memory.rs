//! Memory and slots of requests whose clients stop reading or sending.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::routing::{get, post};
use chat_web::extract::JsonBody;
use chat_web::http_limits::{HttpLimits, HttpUsage};
use chat_web::metrics::Metrics;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions, build_router};
use chat_web::server::{ServerOptions, serve};
use chat_web::system_routes::{Part, Readiness, SystemServices};
use futures::future::join_all;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use utoipa_axum::router::OpenApiRouter;

const DEADLINE: Duration = Duration::from_secs(30);
const MIB: usize = 1024 * 1024;
/// The size of the responses of `/large`.
const LARGE: usize = 256 * 1024;
/// The size of the responses of `/huge`: more than the buffers of a connection take.
const HUGE: usize = 12 * MIB;

struct AlwaysReady;

#[async_trait]
impl Readiness for AlwaysReady {
    async fn parts(&self) -> Vec<Part> {
        Vec::new()
    }
}

#[derive(Deserialize)]
struct Anything {
    #[expect(dead_code, reason = "only received")]
    text: String,
}

struct TestServer {
    address: SocketAddr,
    limits: Arc<HttpLimits>,
    /// Lets the handler of `/slow` return.
    release_slow: Arc<Notify>,
    /// The number of requests that reached the handler of `/small`.
    small_requests: Arc<AtomicUsize>,
}

async fn start(limits: Arc<HttpLimits>, write_timeout: Duration) -> TestServer {
    let release_slow = Arc::new(Notify::new());
    let released = Arc::clone(&release_slow);
    let small_requests = Arc::new(AtomicUsize::new(0));
    let small = Arc::clone(&small_requests);
    let routes = OpenApiRouter::new()
        .route(
            "/api/v1/small",
            get(async move || {
                small.fetch_add(1, Ordering::Relaxed);
                "small"
            }),
        )
        .route("/api/v1/large", get(async || vec![b'x'; LARGE]))
        .route("/api/v1/huge", get(async || vec![b'x'; HUGE]))
        .route(
            "/api/v1/slow",
            get(async move || {
                released.notified().await;
                "slow"
            }),
        )
        .route("/api/v1/takes", post(async |_: JsonBody<Anything>| "taken"));
    let system = SystemServices::new(Arc::new(AlwaysReady), Metrics::detached());
    let options = HttpOptions { limits: Arc::clone(&limits), ..HttpOptions::default() };
    let app = build_router(
        ApiSet { served: vec![ApiRoutes::queries(routes)], ..ApiSet::default() },
        system,
        &options,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = ServerOptions { write_timeout, ..ServerOptions::default() };
    tokio::spawn(serve(listener, app, Arc::clone(&limits), options, std::future::pending()));
    TestServer { address, limits, release_slow, small_requests }
}

impl TestServer {
    /// Waits until the usage of the limits fulfils a condition.
    async fn wait_for(&self, condition: impl Fn(HttpUsage) -> bool) {
        let fulfilled = async {
            while !condition(self.limits.usage()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, fulfilled).await.unwrap_or_else(|_| panic!("still {:?}", self.limits.usage()));
    }

    /// Opens an HTTP/2 connection whose streams have a window of this many bytes.
    async fn connect_h2(&self, window: u32) -> SendRequest<bytes::Bytes> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (client, connection) = builder
            .initial_window_size(window)
            .initial_connection_window_size(u32::from(u16::MAX))
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        client.ready().await.unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends an API request on a connection of its own, and returns the status.
    async fn api_status(&self, method: &str, path: &str, body: &str) -> u16 {
        self.status(method, &format!("/api/v1{path}"), body).await
    }

    /// Sends a request for any path on a connection of its own, and returns the status.
    async fn status(&self, method: &str, path: &str, body: &str) -> u16 {
        let mut stream = self.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        read_status(&mut stream).await
    }
}

async fn send_get(client: &mut SendRequest<bytes::Bytes>, path: &str) -> Response<RecvStream> {
    timeout(DEADLINE, begin_get(client, path)).await.unwrap().unwrap()
}

fn begin_get(client: &mut SendRequest<bytes::Bytes>, path: &str) -> ResponseFuture {
    let request = Request::get(format!("http://x/api/v1{path}")).body(()).unwrap();
    client.send_request(request, true).unwrap().0
}

/// Reads the body of a response to its end, and returns its size.
async fn read_all(mut body: RecvStream) -> Result<usize, h2::Error> {
    let mut total = 0;
    while let Some(data) = timeout(DEADLINE, body.data()).await.unwrap() {
        let data = data?;
        total += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(total)
}

async fn read_status(stream: &mut TcpStream) -> u16 {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed without an answer");
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answer)[9..12].parse().unwrap()
}

#[tokio::test]
async fn unread_responses_stay_within_their_memory() {
    // Half of the memory is for unsent responses, and an eighth of that half for each connection.
    let server = start(HttpLimits::new(4_096, 8 * MIB), Duration::from_hours(1)).await;
    let mut connections = Vec::new();
    for _ in 0..32 {
        let mut client = server.connect_h2(0).await;
        let mut held = Vec::new();
        for _ in 0..10 {
            let response = send_get(&mut client, "/large").await;
            if response.status() == 200 {
                held.push(response);
            } else {
                assert_eq!(
                    (response.status().as_u16(), &response.headers()["retry-after"]),
                    (503, &"1".parse().unwrap())
                );
            }
            assert!(server.limits.usage().unsent_response_bytes <= 4 * MIB, "{:?}", server.limits.usage());
        }
        assert!(held.len() <= 2, "one connection holds {} responses of 256 KiB", held.len());
        connections.push((client, held));
    }
    drop(connections);
    server.wait_for(|usage| usage == HttpUsage { free_slots: 4_096, ..HttpUsage::default() }).await;
    assert_eq!(server.api_status("GET", "/large", "").await, 200);
}

#[tokio::test]
async fn a_slot_is_held_until_the_response_is_sent() {
    let server = start(HttpLimits::new(2, 8 * MIB), Duration::from_hours(1)).await;
    let mut client = server.connect_h2(0).await;
    let response = send_get(&mut client, "/small").await;
    assert_eq!(response.status(), 200);
    assert_eq!(server.limits.usage().free_slots, 1);
    // A response that was sent holds no slot.
    assert_eq!(server.api_status("GET", "/small", "").await, 200);
    server.wait_for(|usage| usage.free_slots == 1).await;
    drop(response);
    server.wait_for(|usage| usage.free_slots == 2).await;
}

#[tokio::test]
async fn without_a_free_slot_a_flood_reaches_no_handler_and_health_is_answered() {
    let server = start(HttpLimits::new(1, 256 * MIB), Duration::from_hours(1)).await;
    let mut busy = server.connect_h2(65_535).await;
    let slow = begin_get(&mut busy, "/slow");
    server.wait_for(|usage| usage.free_slots == 0).await;
    let mut flood = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = server.connect_h2(65_535).await;
        flood.extend((0..100).map(|_| begin_get(&mut client, "/small")));
        clients.push(client);
    }
    let (responses, health) =
        tokio::join!(timeout(DEADLINE, join_all(flood)), server.status("GET", "/livez", ""));
    assert_eq!(health, 200);
    for response in responses.unwrap() {
        let (head, body) = response.unwrap().into_parts();
        assert_eq!((head.status.as_u16(), &head.headers["retry-after"]), (503, &"1".parse().unwrap()));
        assert!(head.headers.contains_key("x-request-id"));
        assert!(read_all(body).await.unwrap() > 0, "the refusal has no body");
    }
    assert_eq!(server.small_requests.load(Ordering::Relaxed), 0);
    server.release_slow.notify_one();
    assert_eq!(timeout(DEADLINE, slow).await.unwrap().unwrap().status(), 200);
    assert_eq!(server.api_status("GET", "/small", "").await, 200);
}

#[tokio::test]
async fn a_response_that_is_not_read_gives_its_slot_to_the_next_request() {
    let server = start(HttpLimits::new(1, 8 * MIB), Duration::from_hours(1)).await;
    let mut client = server.connect_h2(0).await;
    let unread = send_get(&mut client, "/large").await;
    while server.api_status("GET", "/small", "").await != 200 {}
    assert!(read_all(unread.into_body()).await.is_err(), "the response was cut off without an error");
}

#[tokio::test]
async fn a_response_that_is_not_read_is_aborted_after_the_write_timeout_and_others_go_on() {
    let server = start(HttpLimits::new(10, 8 * MIB), Duration::from_millis(200)).await;
    let mut client = server.connect_h2(0).await;
    let slow = begin_get(&mut client, "/slow");
    server.wait_for(|usage| usage.free_slots == 9).await;
    let unread = send_get(&mut client, "/large").await;
    assert_eq!(unread.status(), 200);
    // The abort can't release the chunk that the connection has taken already.
    server.wait_for(|usage| usage.free_slots == 9 && usage.unsent_response_bytes <= 20 * 1024).await;
    server.release_slow.notify_one();
    assert_eq!(timeout(DEADLINE, slow).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_connection_whose_client_reads_nothing_is_closed_after_the_write_timeout() {
    let server = start(HttpLimits::new(10, 256 * MIB), Duration::from_millis(200)).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /api/v1/huge HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.wait_for(|usage| usage.unsent_response_bytes > 0).await;
    server.wait_for(|usage| usage == HttpUsage { free_slots: 10, ..HttpUsage::default() }).await;
    let mut received = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut received)).await.unwrap();
    assert!(received.len() < HUGE, "the response was sent although it was not read");
}

#[tokio::test]
async fn a_client_with_a_small_window_receives_the_whole_response() {
    let server = start(HttpLimits::new(10, 256 * MIB), Duration::from_secs(20)).await;
    let mut client = server.connect_h2(10_000).await;
    let response = send_get(&mut client, "/large").await;
    assert_eq!(read_all(response.into_body()).await.unwrap(), LARGE);
    server.wait_for(|usage| usage == HttpUsage { free_slots: 10, ..HttpUsage::default() }).await;
}

#[tokio::test]
async fn unfinished_uploads_stay_within_their_memory_and_small_requests_go_on() {
    // Half of the memory is for request bodies.
    let server = start(HttpLimits::new(4_096, 2 * MIB), Duration::from_hours(1)).await;
    let mut uploads = Vec::new();
    for _ in 0..40 {
        let mut stream = server.connect().await;
        let head = "POST /api/v1/takes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 400000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may refuse the request before it has received the whole body.
        let _ = stream.write_all(&vec![b' '; 100_000]).await;
        uploads.push(stream);
        assert!(server.limits.usage().request_body_bytes <= MIB, "{:?}", server.limits.usage());
    }
    server.wait_for(|usage| usage.request_body_bytes > MIB / 2).await;
    assert_eq!(server.api_status("POST", "/takes", r#"{"text":"small"}"#).await, 200);
    drop(uploads);
    server.wait_for(|usage| usage == HttpUsage { free_slots: 4_096, ..HttpUsage::default() }).await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(400_000));
    assert_eq!(server.api_status("POST", "/takes", &large).await, 200);
}

#[tokio::test]
async fn a_request_over_the_memory_for_bodies_is_refused() {
    let server = start(HttpLimits::new(4_096, MIB / 4), Duration::from_hours(1)).await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(200_000));
    assert_eq!(server.api_status("POST", "/takes", &large).await, 503);
    server.wait_for(|usage| usage == HttpUsage { free_slots: 4_096, ..HttpUsage::default() }).await;
}

#[tokio::test]
async fn an_unfinished_upload_gives_its_slot_to_the_next_request() {
    let server = start(HttpLimits::new(1, 8 * MIB), Duration::from_hours(1)).await;
    let mut upload = server.connect().await;
    upload.write_all(b"POST /api/v1/takes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    server.wait_for(|usage| usage.free_slots == 0).await;
    while server.api_status("GET", "/small", "").await != 200 {}
    assert_eq!(read_status(&mut upload).await, 408);
}
