//! The listener, over real connections.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use chat_web::request_context::PeerAddr;
use chat_web::server::{DrainOutcome, ServerOptions, serve};
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<DrainOutcome>,
    /// Says when a request to `/slow` has reached its handler.
    slow: mpsc::Receiver<()>,
    /// Lets `/slow` answer.
    go: mpsc::Sender<()>,
}

async fn start(options: ServerOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let (arrived, slow) = mpsc::channel(10);
    let (go, going) = mpsc::channel::<()>(1);
    let going = std::sync::Arc::new(tokio::sync::Mutex::new(going));
    let app = Router::new()
        .route("/", get(|Extension(PeerAddr(peer)): Extension<PeerAddr>| async move { peer.to_string() }))
        .route("/stream", get(async || Body::from_stream(stream::unfold(0, tick))))
        .route(
            "/slow",
            get(move || async move {
                arrived.send(()).await.unwrap();
                going.lock().await.recv().await;
                "slow"
            }),
        );
    let ended = tokio::spawn(serve(listener, app, options, async {
        let _ = stopped.await;
    }));
    Running { address, stop, ended, slow, go }
}

/// The next piece of a stream that takes its time, forty in all.
async fn tick(number: u32) -> Option<(Result<String, Infallible>, u32)> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    (number < 40).then(|| (Ok(format!("tick {number}\n")), number + 1))
}

async fn get_on(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads until `what` has come.
async fn read_until(stream: &mut TcpStream, what: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(what) {
        let read = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

/// Whether the other end closes the connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("still open");
}

#[tokio::test]
async fn a_handler_knows_the_clients_address() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    get_on(&mut stream, "/").await;
    assert!(read_until(&mut stream, &own).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn requests_in_flight_finish_after_the_server_is_asked_to_stop() {
    let mut server = start(ServerOptions::default()).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut idle, "/").await;
    read_until(&mut idle, "127.0.0.1").await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut busy, "/slow").await;
    server.slow.recv().await.unwrap();

    server.stop.send(()).unwrap();
    closed(&mut idle).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "new connections are refused");
    server.go.send(()).await.unwrap();
    assert!(read_until(&mut busy, "\r\n\r\nslow").await.starts_with("HTTP/1.1 200"));
    assert_eq!(timeout(DEADLINE, server.ended).await.unwrap().unwrap(), DrainOutcome::Completed);
}

#[tokio::test]
async fn requests_that_do_not_finish_in_time_are_cut() {
    let options = ServerOptions { drain_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let mut server = start(options).await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut busy, "/slow").await;
    server.slow.recv().await.unwrap();
    server.stop.send(()).unwrap();
    assert_eq!(timeout(DEADLINE, server.ended).await.unwrap().unwrap(), DrainOutcome::ConnectionsAborted(1));
    closed(&mut busy).await;
}

#[tokio::test]
async fn silent_connections_are_closed_whatever_they_sent_before() {
    let options = ServerOptions { idle_timeout: Duration::from_millis(100), ..ServerOptions::default() };
    let server = start(options).await;
    // Nothing; what may become HTTP/2; the HTTP/2 preface and no more; half a head.
    for sent in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        closed(&mut stream).await;
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut stream, "/").await;
    read_until(&mut stream, "127.0.0.1").await;
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_request_in_flight_is_not_silence() {
    let options = ServerOptions { idle_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let mut server = start(options).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut stream, "/slow").await;
    server.slow.recv().await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(400), stream.read(&mut byte)).await;
    assert!(early.is_err(), "the connection was closed while its request was in flight");
    server.go.send(()).await.unwrap();
    read_until(&mut stream, "slow").await;
}

#[tokio::test]
async fn a_stream_that_goes_on_is_not_silence() {
    let options = ServerOptions { idle_timeout: Duration::from_millis(400), ..ServerOptions::default() };
    let server = start(options).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut stream, "/stream").await;
    // Longer than a silent connection is left open, twice over.
    read_until(&mut stream, "tick 39").await;
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_another_to_end() {
    let options = ServerOptions { max_connections: 1, ..ServerOptions::default() };
    let server = start(options).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut first, "/").await;
    read_until(&mut first, "127.0.0.1").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    get_on(&mut second, "/").await;
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(200), second.peek(&mut byte)).await.is_err());
    drop(first);
    read_until(&mut second, "127.0.0.1").await;
}
