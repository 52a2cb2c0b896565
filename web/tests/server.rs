//! The HTTP server over real connections.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test helpers")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use chat_web::http_limits::HttpLimits;
use chat_web::metrics::Metrics;
use chat_web::request_context::PeerAddr;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions, build_router};
use chat_web::server::{ConnectionLimits, DrainOutcome, ServerOptions, serve};
use chat_web::system_routes::{Part, Readiness, SystemServices};
use futures::stream;
use http::header::CONTENT_TYPE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;

const DEADLINE: Duration = Duration::from_secs(20);

struct AlwaysReady;

#[async_trait]
impl Readiness for AlwaysReady {
    async fn parts(&self) -> Vec<Part> {
        Vec::new()
    }
}

struct TestServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    outcome: JoinHandle<DrainOutcome>,
    /// Receives a message when a request to `/slow` has reached its handler.
    slow_arrived: mpsc::Receiver<()>,
    /// Receives a message when the handler of `/slow` has returned or was cancelled.
    slow_ended: mpsc::Receiver<()>,
    /// Lets the handler of `/slow` return.
    release_slow: mpsc::Sender<()>,
}

/// Sends a message when it is dropped.
struct SendOnDrop(mpsc::Sender<()>);

impl Drop for SendOnDrop {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

async fn start(options: ServerOptions) -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        let _ = stopped.await;
    };
    TestServer { stop: Some(stop), ..serve_on(listener, options, stopped) }
}

/// Starts a server that runs until `stopped` completes.
fn serve_on(
    listener: TcpListener,
    options: ServerOptions,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> TestServer {
    let address = listener.local_addr().unwrap();
    let (arrived, slow_arrived) = mpsc::channel(10);
    let (ended, slow_ended) = mpsc::channel(10);
    let (release_slow, released) = mpsc::channel::<()>(1);
    let released = Arc::new(tokio::sync::Mutex::new(released));
    let routes = OpenApiRouter::new()
        .route(
            "/api/v1/peer",
            get(|Extension(PeerAddr(peer)): Extension<PeerAddr>| async move { peer.to_string() }),
        )
        .route("/api/v1/stream", get(async || Body::from_stream(stream::unfold(0, tick))))
        .route(
            "/api/v1/events",
            get(async || {
                let events =
                    stream::repeat_with(|| Ok::<_, Infallible>(format!("data: {}\n\n", "x".repeat(8_000))));
                ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events))
            }),
        )
        .route(
            "/api/v1/slow",
            get(move || async move {
                let _ended = SendOnDrop(ended);
                arrived.send(()).await.unwrap();
                released.lock().await.recv().await;
                "slow"
            }),
        );
    let limits = HttpLimits::new(1_000, HttpLimits::DEFAULT_MEMORY_BYTES);
    let http = HttpOptions { limits: Arc::clone(&limits), ..HttpOptions::default() };
    let apis = ApiSet { served: vec![ApiRoutes::queries(routes)], ..ApiSet::default() };
    let app = build_router(apis, SystemServices::new(Arc::new(AlwaysReady), Metrics::detached()), &http);
    let outcome = tokio::spawn(serve(listener, app, limits, options, stopped));
    TestServer { address, stop: None, outcome, slow_arrived, slow_ended, release_slow }
}

/// Yields one of forty ticks, after a pause.
async fn tick(number: u32) -> Option<(Result<String, Infallible>, u32)> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    (number < 40).then(|| (Ok(format!("tick {number}\n")), number + 1))
}

async fn send_get(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET /api/v1{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads until the text received contains `expected`.
async fn read_until(stream: &mut TcpStream, expected: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(expected) {
        let read = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

/// Reads until the server closes the connection.
async fn wait_until_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("still open");
}

#[tokio::test]
async fn a_handler_receives_the_peer_address() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    send_get(&mut stream, "/peer").await;
    assert!(read_until(&mut stream, &own).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn shutdown_waits_for_requests_in_flight() {
    let mut server = start(ServerOptions::default()).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut idle, "/peer").await;
    read_until(&mut idle, "127.0.0.1").await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut busy, "/slow").await;
    server.slow_arrived.recv().await.unwrap();

    server.stop.take().unwrap().send(()).unwrap();
    wait_until_closed(&mut idle).await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "a new connection was accepted during the shutdown"
    );
    server.release_slow.send(()).await.unwrap();
    assert!(read_until(&mut busy, "\r\n\r\nslow").await.starts_with("HTTP/1.1 200"));
    assert_eq!(timeout(DEADLINE, server.outcome).await.unwrap().unwrap(), DrainOutcome::Completed);
}

#[tokio::test]
async fn shutdown_aborts_requests_after_the_drain_timeout() {
    let options = ServerOptions { drain_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let mut server = start(options).await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut busy, "/slow").await;
    server.slow_arrived.recv().await.unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    assert_eq!(
        timeout(DEADLINE, server.outcome).await.unwrap().unwrap(),
        DrainOutcome::ConnectionsAborted(1)
    );
    wait_until_closed(&mut busy).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_clients_that_stopped_reading_server_sent_events() {
    let mut server = start(ServerOptions { drain_timeout: DEADLINE, ..ServerOptions::default() }).await;
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut stalled, "/events").await;
    read_until(&mut stalled, "data:").await;
    // Nothing more is read, so that the buffers of the connection fill.
    server.stop.take().unwrap().send(()).unwrap();
    assert_eq!(timeout(DEADLINE, server.outcome).await.unwrap().unwrap(), DrainOutcome::Completed);
}

#[tokio::test]
async fn closes_idle_connections_whatever_they_sent_before() {
    let options = ServerOptions { idle_timeout: Duration::from_millis(100), ..ServerOptions::default() };
    let server = start(options).await;
    // Nothing, the first byte of an HTTP/2 preface, the whole preface, half of a request's head.
    for sent in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        wait_until_closed(&mut stream).await;
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut stream, "/peer").await;
    read_until(&mut stream, "127.0.0.1").await;
    wait_until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_connection_with_a_request_in_flight_is_not_idle() {
    let options = ServerOptions { idle_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let mut server = start(options).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut stream, "/slow").await;
    server.slow_arrived.recv().await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(400), stream.read(&mut byte)).await;
    assert!(early.is_err(), "the connection was closed while its request was in flight");
    server.release_slow.send(()).await.unwrap();
    read_until(&mut stream, "slow").await;
}

#[tokio::test]
async fn a_request_is_cancelled_when_its_client_resets_the_connection() {
    let mut server = start(ServerOptions::default()).await;
    // The second client closes its side before it resets the connection.
    for closes_its_side in [false, true] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        send_get(&mut stream, "/slow").await;
        server.slow_arrived.recv().await.unwrap();
        if closes_its_side {
            stream.shutdown().await.unwrap();
        }
        stream.set_zero_linger().unwrap();
        drop(stream);
        timeout(DEADLINE, server.slow_ended.recv()).await.expect("the request still runs").unwrap();
    }
}

#[tokio::test]
async fn a_connection_with_an_active_stream_is_not_idle() {
    let options = ServerOptions { idle_timeout: Duration::from_millis(400), ..ServerOptions::default() };
    let server = start(options).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut stream, "/stream").await;
    // Forty ticks take several times the idle timeout.
    read_until(&mut stream, "tick 39").await;
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_an_idle_one() {
    let options = ServerOptions {
        connections: ConnectionLimits { max_per_address: 2, ..ConnectionLimits::new(2) },
        ..ServerOptions::default()
    };
    let mut server = start(options).await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut busy, "/slow").await;
    server.slow_arrived.recv().await.unwrap();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut idle, "/peer").await;
    read_until(&mut idle, "127.0.0.1").await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    send_get(&mut third, "/peer").await;
    read_until(&mut third, "127.0.0.1").await;
    wait_until_closed(&mut idle).await;
    server.release_slow.send(()).await.unwrap();
    read_until(&mut busy, "slow").await;
}

#[tokio::test]
async fn requests_are_answered_while_idle_clients_hold_all_connections() {
    let connections = ConnectionLimits { max_per_address: 100, ..ConnectionLimits::new(100) };
    let server = start(ServerOptions { connections, ..ServerOptions::default() }).await;
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // Nothing, or half of a request's head.
        let sent = if number % 2 == 0 { "" } else { "GET / HTTP/1.1\r\nhost:" };
        let _ = stream.write_all(sent.as_bytes()).await;
        idle.push(stream);
        if number % 50 == 49 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            send_get(&mut stream, "/peer").await;
            read_until(&mut stream, "127.0.0.1").await;
        }
    }
}

#[tokio::test]
async fn shutdown_serves_connections_that_were_not_accepted_yet() {
    // The server starts only once the connections wait in the listener's queue, and is stopped from the beginning.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send_get(&mut stream, "/peer").await;
        clients.push(stream);
    }
    let served = serve_on(listener, ServerOptions::default(), async {});
    for stream in &mut clients {
        read_until(stream, "127.0.0.1").await;
    }
    assert!(TcpStream::connect(address).await.is_err(), "the listener is still open");
    drop(clients);
    assert_eq!(timeout(DEADLINE, served.outcome).await.unwrap().unwrap(), DrainOutcome::Completed);
}

#[tokio::test]
async fn shutdown_ends_busy_http2_connections_that_were_not_accepted_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let options = ServerOptions { drain_timeout: Duration::from_secs(10), ..ServerOptions::default() };
    let served = serve_on(listener, options, async {});
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // The connection is never idle: each response takes two seconds, and a request is sent every 300 ms.
    let mut responses = JoinSet::new();
    let requests = async {
        while let Ok(mut ready) = sender.clone().ready().await {
            let request = http::Request::get("http://x/api/v1/stream").body(()).unwrap();
            let Ok((response, _)) = ready.send_request(request, true) else { break };
            responses.spawn(async {
                let mut body = response.await?.into_body();
                while let Some(data) = body.data().await {
                    body.flow_control().release_capacity(data?.len())?;
                }
                Ok::<_, h2::Error>(())
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    timeout(DEADLINE, requests).await.unwrap();
    drop(sender);
    assert!(responses.len() > 1);
    assert!(responses.join_all().await.iter().all(Result::is_ok));
    assert_eq!(timeout(DEADLINE, served.outcome).await.unwrap().unwrap(), DrainOutcome::Completed);
}
