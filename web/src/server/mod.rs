//! The HTTP server: accepts connections, closes idle ones when there are too many, and drains all on shutdown.

mod client_stream;
pub(crate) mod connection;
mod connection_table;
mod date;
mod refusal;
mod request_stream;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tower::Service;
use tracing::{debug, info, warn};

pub use self::connection_table::ConnectionLimits;
pub use self::date::prepare_thread;

use self::client_stream::ClientStream;
use self::connection::{ClientConnection, InFlightRequest};
use self::connection_table::{ConnectionEntry, ConnectionTable};
use self::date::with_date;
use self::refusal::Refusals;
use self::request_stream::RequestStream;
use crate::cors::{self, CorsOrigins};
use crate::http_limits::HttpLimits;
use crate::message_framing::MAX_HEAD_BYTES;
use crate::request_context::PeerAddr;
use crate::served_router::ServedRouter;

/// The longest pause between two checks for clients that don't read their response or don't send their body.
const MAX_OVERDUE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long clients may read nothing of a stream of server-sent events while the server stops. They resume it at
/// another process.
const MAX_STALL_AT_STOP: Duration = Duration::from_secs(1);

/// The largest head of an HTTP/2 request that reaches the request middleware. The middleware refuses heads over
/// [`MAX_HEAD_BYTES`].
const MAX_HTTP2_HEAD_BYTES: u32 = 64 * 1024;

/// The most connections that are taken from the listener's queue and served when the listener closes: the length of the
/// queue.
const MAX_QUEUED_CONNECTIONS: usize = 1024;

/// How long a connection that was taken from the queue of a closing listener may be idle, and the time after which it
/// takes no new requests.
const QUEUED_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Limits and timeouts of connections.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The most connections at a time. When a limit is reached, the connections that have been idle for the longest
    /// time are closed.
    pub connections: ConnectionLimits,
    /// How long a connection may be idle: before its first request, between requests, or inside a request's head.
    pub idle_timeout: Duration,
    /// How long a request may make no progress because its client does not read the response or send the body.
    pub write_timeout: Duration,
    /// How long requests in flight may take to finish on shutdown.
    pub drain_timeout: Duration,
    /// Whether the process is about to stop. It still serves then, but asks the clients of HTTP/1 to connect anew for
    /// their next request, so that connections move to other processes.
    pub leaving: watch::Receiver<bool>,
    /// The origins whose pages may use the API, if any: the same as in the router's `HttpOptions`.
    pub cors: Option<CorsOrigins>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::default(),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
            leaving: watch::channel(false).1,
            cors: None,
        }
    }
}

/// The outcome of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every connection ended within the drain timeout.
    Completed,
    /// The drain timeout passed, and this many connections were aborted.
    ConnectionsAborted(usize),
}

/// Serves `app` on `listener`, HTTP/1.1 and HTTP/2 without TLS, until `stop` completes. Then waits for requests in
/// flight, up to the drain timeout. `limits` are those of the router's `HttpOptions`.
pub async fn serve(
    listener: TcpListener,
    app: impl Into<ServedRouter>,
    limits: Arc<HttpLimits>,
    options: ServerOptions,
    stop: impl Future<Output = ()>,
) -> DrainOutcome {
    let app = app.into();
    let table = ConnectionTable::new(options.connections.clone());
    let refusals = Refusals::new(&limits, options.cors.clone());
    let (stopping, stopping_receiver) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    let mut acceptor = Acceptor { listener, is_failing: false };
    let mut overdue_checks = interval((options.write_timeout / 4).min(MAX_OVERDUE_CHECK_INTERVAL));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            _ = overdue_checks.tick() => {
                limits.abort_overdue(options.write_timeout);
                table.log_report();
                continue;
            }
            accepted = acceptor.accept() => accepted,
        };
        let Some((stream, peer)) = accepted else {
            // Most likely, no file descriptors are left.
            table.make_room();
            continue;
        };
        let client = ClientConnection::new(&limits);
        let Some(entry) = table.admit(peer.ip(), &client) else {
            // Aborts a request that waits for its client, so that there may be room for the next connection.
            limits.make_room();
            continue;
        };
        let connection = Connection { stream, peer, client, refusals: Arc::clone(&refusals), _entry: entry };
        let mut stopping = stopping_receiver.clone();
        let stopped = async move {
            let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
        };
        connections.spawn(connection.serve(app.clone(), options.clone(), stopped));
    }
    stopping.send_replace(true);
    let options_of_queued = ServerOptions { idle_timeout: QUEUED_IDLE_TIMEOUT, ..options.clone() };
    for (stream, peer) in acceptor.close() {
        let client = ClientConnection::new(&limits);
        let Some(entry) = table.admit(peer.ip(), &client) else { continue };
        let connection = Connection { stream, peer, client, refusals: Arc::clone(&refusals), _entry: entry };
        // A graceful shutdown at once would close the connection before its first request.
        let stopped = sleep(QUEUED_IDLE_TIMEOUT);
        connections.spawn(connection.serve(app.clone(), options_of_queued.clone(), stopped));
    }
    drain(connections, &limits, options.drain_timeout).await
}

async fn drain(mut connections: JoinSet<()>, limits: &HttpLimits, drain_timeout: Duration) -> DrainOutcome {
    while connections.try_join_next().is_some() {}
    if !connections.is_empty() {
        info!(connections = connections.len(), "finishing requests in flight");
    }
    let all_ended = async {
        let mut checks = interval(MAX_STALL_AT_STOP / 4);
        loop {
            tokio::select! {
                ended = connections.join_next() => if ended.is_none() { break },
                _ = checks.tick() => limits.abort_resumable(MAX_STALL_AT_STOP),
            }
        }
    };
    if timeout(drain_timeout, all_ended).await.is_ok() {
        return DrainOutcome::Completed;
    }
    let aborted = connections.len();
    warn!(connections = aborted, "requests in flight did not finish in time; aborting their connections");
    connections.shutdown().await;
    DrainOutcome::ConnectionsAborted(aborted)
}

struct Acceptor {
    listener: TcpListener,
    is_failing: bool,
}

impl Acceptor {
    /// Waits for the next connection. Returns `None` if the listener itself fails, and not only one connection.
    async fn accept(&mut self) -> Option<(TcpStream, SocketAddr)> {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    if std::mem::take(&mut self.is_failing) {
                        info!("accepting connections again");
                    }
                    return Some(accepted);
                }
                Err(error) if is_closed_by_client(&error) => {}
                Err(error) => {
                    self.back_off(&error).await;
                    return None;
                }
            }
        }
    }

    /// Closes the listener. Returns the connections that wait in its queue: closing the listener would reset them,
    /// although their clients may have sent requests.
    fn close(self) -> Vec<(TcpStream, SocketAddr)> {
        let Ok(listener) = self.listener.into_std() else { return Vec::new() };
        let accepted = std::iter::from_fn(|| listener.accept().ok()).take(MAX_QUEUED_CONNECTIONS);
        let to_tokio = |stream: std::net::TcpStream| {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        };
        accepted.filter_map(|(stream, peer)| Some((to_tokio(stream).ok()?, peer))).collect()
    }

    /// Pauses after an error of the listener, which most likely lasts for a while.
    async fn back_off(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(%error, "accepting connections fails");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the client closed the connection before it was accepted.
fn is_closed_by_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// An accepted connection.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    client: Arc<ClientConnection>,
    refusals: Arc<Refusals>,
    _entry: ConnectionEntry,
}

impl Connection {
    /// Serves the connection until it is closed. Takes no new requests once `stopped` completes.
    async fn serve(self, app: ServedRouter, options: ServerOptions, stopped: impl Future<Output = ()>) {
        let Self { stream, peer, client, refusals, _entry } = self;
        // Nagle's algorithm would only delay responses. A failure costs latency and nothing else.
        let _ = stream.set_nodelay(true);
        let service = {
            let client = Arc::clone(&client);
            let leaving = options.leaving.clone();
            service_fn(move |request: Request<Incoming>| {
                let (app, client, refusals) = (app.clone(), Arc::clone(&client), Arc::clone(&refusals));
                let (leaving, version) = (leaving.clone(), request.version());
                async move {
                    let _in_flight = InFlightRequest::begin(&client);
                    let mut response = serve_request(request, peer, app, Arc::clone(&client), refusals).await;
                    let must_end = !client.was_all_read().await || *leaving.borrow();
                    if must_end && version != Version::HTTP_2 {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(with_date(response))
                }
            })
        };
        let builder = connection_builder(&options);
        let (reader, writer) = stream.into_split();
        let reader = Arc::new(reader);
        let refusal_headers = options.cors.as_ref().map_or("", |_| cors::HEADERS_FOR_ANY_PAGE);
        let stream = ClientStream::new(Arc::clone(&reader), writer, Arc::clone(&client), refusal_headers);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut stopped = pin!(stopped);
        let mut closing = false;
        loop {
            tokio::select! {
                // In this order: a request that has arrived is read before its connection counts as idle, also if the
                // process stood still in the meantime.
                biased;
                () = client.must_close() => {
                    debug!(%peer, "closing a connection before its time");
                    return;
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%peer, %error, "a connection failed");
                    }
                    return;
                }
                // With `half_close`, hyper does not read while a request is in flight, so it does not notice a reset.
                Ok(_) = reader.ready(Interest::ERROR) => {
                    debug!(%peer, "the client reset the connection");
                    return;
                }
                () = stopped.as_mut(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                // hyper's own timers don't cover a client that never sends the first byte, or one that reads nothing.
                () = sleep(options.idle_timeout.saturating_sub(client.idle_time())) => {
                    if client.idle_time() < options.idle_timeout {
                        continue;
                    }
                    if std::mem::replace(&mut closing, true) {
                        debug!(%peer, "closing an idle connection");
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    client.touch();
                }
            }
        }
    }
}

fn connection_builder(options: &ServerOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(options.idle_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client may close its side after its request, and still reads the response.
        .half_close(true)
        .keep_alive(true);
    builder
        .http2()
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(MAX_HTTP2_HEAD_BYTES)
        // These limit the buffers of a connection: for bodies that their handlers don't read, and for responses that
        // are not sent yet.
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(512 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn serve_request(
    request: Request<Incoming>,
    peer: SocketAddr,
    app: ServedRouter,
    client: Arc<ClientConnection>,
    refusals: Arc<Refusals>,
) -> Response {
    // With HTTP/1, hyper reads a request only after it has read all of the request before.
    client.set_unread(None);
    let request = RequestStream::wrap(request, &client).map(Body::new);
    let mut request = match refusals.check(request, &client).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    request.extensions_mut().insert(PeerAddr(peer));
    request.extensions_mut().insert(client);
    let Ok(mut response) = app.for_request(request.uri().path()).await.call(request).await;
    // axum sets `Content-Length: 0`. In a 304, that header would mean the length of the content that is not sent; in a
    // 204 it is forbidden (RFC 9110, 8.6).
    if matches!(response.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}
