//! Request bodies as they arrive: their size, memory and content coding, and clients that stop sending.

use std::error::Error as StdError;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, SizeHint};
use metrics::counter;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::client_waits::{WaitId, WaitsForClient};
use crate::error_code::ErrorCode;
use crate::http_limits::HttpLimits;
use crate::memory_budget::Reservation;
use crate::problem::Problem;

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The number of bytes at the start of a body that don't count against the budget, so that small requests run even
/// while large ones fill the budget. The limit of requests in flight bounds the sum of these bytes.
const FREE_BYTES: usize = 8 * 1024;

/// The number of bytes that are decompressed at a time.
const CHUNK_BYTES: usize = 8 * 1024;

/// The memory of a request's body, until the handler has returned. The request middleware adds it to the request's
/// extensions.
pub(crate) struct RequestMemory {
    limits: Arc<HttpLimits>,
    max_body_bytes: usize,
    /// The bytes that have arrived, and those that were decompressed from them.
    received_bytes: AtomicUsize,
    /// The memory for the received bytes beyond [`FREE_BYTES`].
    reservation: Mutex<Option<Reservation>>,
    exceeded_budget: AtomicBool,
    is_aborted: AtomicBool,
    abort: Notify,
    wait: WaitId,
    this: Weak<Self>,
}

/// The content coding of a body (RFC 9110, 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentCoding {
    Identity,
    Gzip,
}

/// There is no memory left for the body.
#[derive(Debug, Error)]
#[error("the bodies in flight use all memory for request bodies")]
struct MemoryExceeded;

/// Reads the body of a request to its end and decodes its content coding.
pub(crate) async fn read_body(request: Request) -> Result<Bytes, Problem> {
    let Some(memory) = request.extensions().get::<Arc<RequestMemory>>().cloned() else {
        return Err(Problem::internal("the route is not behind the request middleware"));
    };
    let coding = ContentCoding::from_headers(request.headers())?;
    let body = memory.read(request.into_body()).await?;
    match coding {
        ContentCoding::Identity => Ok(body),
        ContentCoding::Gzip => memory.decompress(&body),
    }
}

impl ContentCoding {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut codings = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Ok(Self::Identity),
            (Some(coding), None)
                if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") =>
            {
                Ok(Self::Gzip)
            }
            // RFC 9110, 15.5.16: `Accept-Encoding` in the response names the codings that would have been accepted.
            _ => Err(Problem::new(
                ErrorCode::UnsupportedMediaType,
                "a body is sent as it is or with `Content-Encoding: gzip`, other content codings are not supported",
            )
            .with_header(ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity"))),
        }
    }
}

impl RequestMemory {
    /// Creates the memory of a request whose body may have this many bytes.
    pub(crate) fn new(limits: &Arc<HttpLimits>, max_body_bytes: usize) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            limits: Arc::clone(limits),
            max_body_bytes,
            received_bytes: AtomicUsize::new(0),
            reservation: Mutex::default(),
            exceeded_budget: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            abort: Notify::new(),
            wait: WaitId::default(),
            this: this.clone(),
        })
    }

    /// Reads a body to its end.
    async fn read(self: &Arc<Self>, body: Body) -> Result<Bytes, Problem> {
        // A declared length over the limit is refused before any byte is read, so that a client that expects
        // `100 Continue` does not send the body.
        if body.size_hint().lower() > self.max_body_bytes as u64 {
            return Err(self.too_large("body"));
        }
        let metered = MeteredBody { body, memory: Arc::clone(self), waits: false };
        let arrived = tokio::select! {
            arrived = timeout(BODY_DEADLINE, Limited::new(metered, self.max_body_bytes).collect()) => arrived,
            () = self.abort.notified() => return Err(ErrorCode::RequestTimeout.into()),
        };
        match arrived {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(_)) if self.exceeded_budget.load(Ordering::Relaxed) => Err(ErrorCode::Overloaded.into()),
            Ok(Err(error)) => Err(self.problem_of_failed_read(error)),
            Err(_) => Err(ErrorCode::RequestTimeout.into()),
        }
    }

    fn problem_of_failed_read(&self, error: Box<dyn StdError + Send + Sync>) -> Problem {
        if error.is::<LengthLimitError>() {
            return self.too_large("body");
        }
        let detail = match io_error_kind(&*error) {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                "the chunks of the body can't be parsed"
            }
            _ => "the body broke off",
        };
        Problem::new(ErrorCode::MalformedRequest, detail).caused_by(error)
    }

    fn too_large(&self, subject: &str) -> Problem {
        let detail = format!("the {subject} has over {} bytes", self.max_body_bytes);
        Problem::new(ErrorCode::PayloadTooLarge, detail)
    }

    /// Decompresses a body. Refuses one that becomes larger than a body may be.
    fn decompress(&self, compressed: &[u8]) -> Result<Bytes, Problem> {
        let mut decoder = MultiGzDecoder::new(compressed);
        let mut body = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let read = decoder.read(&mut chunk).map_err(|error| {
                Problem::new(ErrorCode::MalformedJson, "the body is not in the gzip format").caused_by(error)
            })?;
            if read == 0 {
                return Ok(Bytes::from(body));
            }
            if body.len() + read > self.max_body_bytes {
                return Err(self.too_large("decompressed body"));
            }
            self.reserve(read).map_err(|_| ErrorCode::Overloaded)?;
            body.extend_from_slice(&chunk[..read]);
        }
    }

    /// Reserves memory for bytes that arrived or were decompressed.
    fn reserve(&self, bytes: usize) -> Result<(), MemoryExceeded> {
        let before = self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        // The new bytes, without those that are among the first `FREE_BYTES`.
        let counted = (before + bytes).max(FREE_BYTES) - before.max(FREE_BYTES);
        if counted == 0 {
            return Ok(());
        }
        let reserved = loop {
            if let Some(reserved) = self.limits.request_bodies.try_reserve(counted) {
                break reserved;
            }
            if !self.limits.make_room() {
                self.exceeded_budget.store(true, Ordering::Relaxed);
                counter!("chat_http_overloaded_total", "reason" => "request_memory").increment(1);
                return Err(MemoryExceeded);
            }
        };
        match &mut *self.reservation.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reservation) => reservation.merge(reserved),
            none => *none = Some(reserved),
        }
        Ok(())
    }
}

/// Returns the kind of the first I/O error among an error and its sources.
fn io_error_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => Some(error.kind()),
        None => io_error_kind(error.source()?),
    }
}

impl WaitsForClient for RequestMemory {
    fn abort(&self) {
        counter!("chat_http_aborted_total", "waited_for" => "request_body").increment(1);
        self.is_aborted.store(true, Ordering::Relaxed);
        drop(self.reservation.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.abort.notify_one();
    }
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        self.limits.client_waits.end(&self.wait);
    }
}

/// A request body that counts its bytes against the budget.
struct MeteredBody {
    body: Body,
    memory: Arc<RequestMemory>,
    /// Whether the body waits for its next frame. Further polls without a frame do not restart the client's time.
    waits: bool,
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let waited_before = std::mem::replace(&mut self.waits, polled.is_pending());
        let memory = &self.memory;
        let waits = &memory.limits.client_waits;
        if polled.is_pending() {
            if !waited_before && !memory.is_aborted.load(Ordering::Relaxed) {
                waits.restart(&memory.wait, memory.this.clone());
            }
            return Poll::Pending;
        }
        waits.end(&memory.wait);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Err(error) = memory.reserve(frame.data_ref().map_or(0, Bytes::len))
        {
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn polls_of_a_stalled_body_do_not_restart_the_clients_time() {
        let limits = HttpLimits::new(1, HttpLimits::DEFAULT_MEMORY_BYTES);
        let memory = RequestMemory::new(&limits, 1_000);
        let stalled = Body::from_stream(futures::stream::pending::<io::Result<Bytes>>());
        let mut body = MeteredBody { body: stalled, memory: Arc::clone(&memory), waits: false };
        for _ in 0..3 {
            assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(limits.client_waits.abort_longest(Duration::from_secs(3)));
        assert!(memory.is_aborted.load(Ordering::Relaxed));
    }
}
