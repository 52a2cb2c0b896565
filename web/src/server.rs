//! The listener: connections in, a bounded number of them, and an orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::Service;
use tracing::{debug, info, warn};

use crate::request_context::PeerAddr;

/// How the listener treats connections.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Connections served at a time; more wait in the listener's backlog.
    pub max_connections: usize,
    /// How long a connection may be silent between requests, before its first one, or inside a request's head.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to finish after the server was asked to stop.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every request in flight was answered.
    Completed,
    /// Time ran out; this many connections were cut.
    ConnectionsAborted(usize),
}

/// Serves `app` on `listener`, HTTP/1.1 and HTTP/2 without TLS, until `stop` completes; then lets requests in flight
/// finish and returns.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    options: ServerOptions,
    stop: impl Future<Output = ()>,
) -> DrainOutcome {
    let connection_permits = Arc::new(Semaphore::new(options.max_connections));
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    let mut acceptor = Acceptor { listener, is_failing: false };
    loop {
        let (stream, peer, permit) = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = acceptor.accept(&connection_permits) => accepted,
        };
        connections.spawn(serve_connection(stream, peer, app.clone(), options, stopped.clone(), permit));
    }
    drop(acceptor);
    stopping.send_replace(true);
    drain(connections, options.drain_timeout).await
}

async fn drain(mut connections: JoinSet<()>, limit: Duration) -> DrainOutcome {
    while connections.try_join_next().is_some() {}
    if !connections.is_empty() {
        info!(connections = connections.len(), "finishing requests in flight");
    }
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limit, all).await.is_ok() {
        return DrainOutcome::Completed;
    }
    let aborted = connections.len();
    warn!(connections = aborted, "requests in flight did not finish in time and are cut off");
    connections.shutdown().await;
    DrainOutcome::ConnectionsAborted(aborted)
}

struct Acceptor {
    listener: TcpListener,
    is_failing: bool,
}

impl Acceptor {
    /// The next connection, once there is a slot for it.
    async fn accept(&mut self, permits: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
                // The semaphore is never closed.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if std::mem::take(&mut self.is_failing) {
                        info!("connections are accepted again");
                    }
                    return (stream, peer, permit);
                }
                Err(error) => self.back_off(&error).await,
            }
        }
    }

    /// A connection that broke before it was accepted is nothing; anything else (no file descriptors left, most
    /// likely) lasts for a while.
    async fn back_off(&mut self, error: &io::Error) {
        let broken = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
        );
        if broken {
            return;
        }
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(%error, "connections can't be accepted now");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Serves one connection to its end.
async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    options: ServerOptions,
    mut stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let _open_connection = OpenConnection::count();
    // An answer is one write; waiting for more to send would only delay it. Failing costs latency and nothing else.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(ConnectionActivity::new());
    let service = {
        let activity = Arc::clone(&activity);
        service_fn(move |request: Request<Incoming>| {
            serve_request(request, peer, app.clone(), Arc::clone(&activity))
        })
    };
    let builder = connection_builder(options);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut closing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, %error, "a connection broke off");
                }
                return;
            }
            _ = stopped.wait_for(|stopped| *stopped), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            // hyper's own timers leave gaps (a client that never sends the first byte, one that reads nothing): this
            // one has none.
            () = sleep(options.idle_timeout.saturating_sub(activity.idle_time())) => {
                if activity.idle_time() < options.idle_timeout {
                    continue;
                }
                if std::mem::replace(&mut closing, true) {
                    debug!(%peer, "a silent connection is closed");
                    return;
                }
                connection.as_mut().graceful_shutdown();
                activity.touch();
            }
        }
    }
}

fn connection_builder(options: ServerOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.idle_timeout)
        .max_buf_size(64 * 1024)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(32 * 1024)
        .max_send_buf_size(256 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn serve_request(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    mut app: Router,
    activity: Arc<ConnectionActivity>,
) -> Result<Response, Infallible> {
    let _in_flight = InFlightRequest::begin(&activity);
    request.extensions_mut().insert(PeerAddr(peer));
    let response = app.call(request).await?;
    // What is there as a whole goes out at once. A stream is not silence for as long as the client takes what it brings.
    if response.body().size_hint().exact().is_some() {
        return Ok(response);
    }
    Ok(response.map(|body| Body::new(ActivityTrackingBody { body, activity: Arc::clone(&activity) })))
}

/// A body that comes bit by bit, and shows that its connection is of use.
struct ActivityTrackingBody {
    body: Body,
    activity: Arc<ConnectionActivity>,
}

impl HttpBody for ActivityTrackingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.activity.touch();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// When a connection was last of use.
struct ConnectionActivity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds after `opened`.
    last_active_millis: AtomicU64,
}

impl ConnectionActivity {
    fn new() -> Self {
        Self { opened: Instant::now(), in_flight: AtomicUsize::new(0), last_active_millis: AtomicU64::new(0) }
    }

    fn touch(&self) {
        self.last_active_millis.store(self.age_millis(), Ordering::Relaxed);
    }

    fn age_millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long nothing has been asked.
    fn idle_time(&self) -> Duration {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(
            self.age_millis().saturating_sub(self.last_active_millis.load(Ordering::Relaxed)),
        )
    }
}

/// A request in flight.
struct InFlightRequest<'a>(&'a ConnectionActivity);

impl<'a> InFlightRequest<'a> {
    fn begin(activity: &'a ConnectionActivity) -> Self {
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for InFlightRequest<'_> {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection for as long as it is open.
struct OpenConnection;

impl OpenConnection {
    fn count() -> Self {
        gauge!("http_connections").increment(1.0);
        Self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!("http_connections").decrement(1.0);
    }
}
