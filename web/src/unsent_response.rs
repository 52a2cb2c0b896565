//! Responses until their last byte is sent: memory, slot, and clients that stop reading.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Version};
use hyper::body::{Frame, SizeHint};
use metrics::counter;
use thiserror::Error;

use crate::client_waits::{WaitId, WaitsForClient};
use crate::error_code::ErrorCode;
use crate::http_limits::{HttpLimits, Slot};
use crate::memory_budget::{MemoryBudget, Reservation};
use crate::problem::Problem;
use crate::server::connection::{ClientConnection, InFlightRequest};

/// The most bytes that a connection takes at a time. An abort can't release what the connection has taken already: with
/// HTTP/2 one chunk of each stream, even while the client's window is closed.
const CHUNK_BYTES: usize = 16 * 1024;

/// Responses up to this size are sent even if the memory is used up: the outcome of a command, errors, health. The
/// number of requests bounds their memory.
const SMALL_RESPONSE_BYTES: usize = OVERHEAD_BYTES + 16 * 1024;

/// The memory that a response needs besides its body: its task, its stream and its head.
const OVERHEAD_BYTES: usize = 4 * 1024;

/// A response whose client has not read all of it.
struct UnsentResponse {
    limits: Arc<HttpLimits>,
    connection: Option<Arc<ClientConnection>>,
    version: Version,
    is_resumable: bool,
    state: Mutex<State>,
    wait: WaitId,
    this: Weak<Self>,
}

struct State {
    /// The data that the connection has not taken yet.
    rest: Bytes,
    /// Whether chunks of `rest` are copied, because a slice of it would keep all of it in memory.
    copies_chunks: bool,
    memory: Reservation,
    /// The body that more frames come from, if any.
    source: Option<Body>,
    /// Chunks that the connection has taken and not sent yet.
    chunks_in_connection: usize,
    /// One of the slots that limit the requests that run at a time.
    slot: Option<Arc<Slot>>,
    /// Counts the request as one in flight on its connection.
    in_flight: Option<InFlightRequest>,
    is_aborted: bool,
}

/// The client did not read the response.
#[derive(Debug, Error)]
#[error("the response was aborted: its client stopped reading it")]
struct Aborted;

/// Counts a response's memory against the budgets of its connection and of the process until its last byte is sent.
/// Until then the response also keeps its slot, unless it is streamed.
///
/// # Errors
/// A problem with `overloaded` if the response is too large for the memory that is left.
pub(crate) fn track(
    mut response: Response,
    limits: &Arc<HttpLimits>,
    connection: Option<Arc<ClientConnection>>,
    version: Version,
) -> Result<Response, Problem> {
    let slot = response.extensions_mut().remove::<Arc<Slot>>();
    if response.body().is_end_stream() {
        return Ok(response);
    }
    let budget = connection.as_ref().map_or(&limits.unsent_responses, |connection| &connection.unsent);
    let is_complete = response.body().size_hint().exact().is_some();
    let mut rest = Bytes::new();
    if is_complete {
        // A complete body is ready at once.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(Ok(frame))) = Pin::new(response.body_mut()).poll_frame(&mut context) {
            rest = frame.into_data().unwrap_or_default();
        }
    }
    // Constants, and bytes that other responses share, occupy no memory of their own.
    let bytes = if rest.is_unique() { rest.len() } else { 0 };
    let Some(memory) = reserve(limits, budget, bytes + OVERHEAD_BYTES) else {
        counter!("chat_http_overloaded_total", "reason" => "response_memory").increment(1);
        return Err(ErrorCode::Overloaded.into());
    };
    let (head, body) = response.into_parts();
    let state = State {
        rest,
        copies_chunks: bytes > CHUNK_BYTES,
        memory,
        source: (!body.is_end_stream()).then_some(body),
        chunks_in_connection: 0,
        // A stream without an end would hold its slot forever. The routes bound the number of streams.
        slot: slot.filter(|_| is_complete),
        in_flight: connection.as_ref().map(InFlightRequest::begin),
        is_aborted: false,
    };
    let unsent = Arc::new_cyclic(|this| UnsentResponse {
        limits: Arc::clone(limits),
        connection,
        version,
        is_resumable: is_event_stream(&head.headers),
        state: Mutex::new(state),
        wait: WaitId::default(),
        this: this.clone(),
    });
    Ok(Response::from_parts(head, Body::new(TrackedBody(unsent))))
}

/// Whether a response consists of server-sent events, which clients resume after the last one that they received.
fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// Reserves memory for a response. If there is none, aborts requests that have waited for their clients for long.
fn reserve(limits: &HttpLimits, budget: &Arc<MemoryBudget>, bytes: usize) -> Option<Reservation> {
    if bytes <= SMALL_RESPONSE_BYTES {
        if !limits.unsent_responses.has_room(bytes) {
            limits.make_room();
        }
        return Some(budget.reserve(bytes));
    }
    loop {
        if let Some(reservation) = budget.try_reserve(bytes) {
            return Some(reservation);
        }
        // If only the share of this connection is used up, aborting the requests of other connections does not help.
        if limits.unsent_responses.has_room(bytes) || !limits.make_room() {
            return None;
        }
    }
}

impl UnsentResponse {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restarts the wait for the client after progress, and ends it while there is nothing for the client to read.
    fn update_wait(&self, state: &State) {
        let waits = &self.limits.client_waits;
        if state.is_aborted || (state.rest.is_empty() && state.chunks_in_connection == 0) {
            waits.end(&self.wait);
        } else {
            waits.restart(&self.wait, self.this.clone());
        }
    }

    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(connection) = &self.connection {
            connection.touch();
        }
        let mut state = self.state();
        let polled = self.poll_state(&mut state, context);
        self.update_wait(&state);
        polled
    }

    fn poll_state(
        &self,
        state: &mut State,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if state.is_aborted {
            return Poll::Ready(Some(Err(axum::Error::new(Aborted))));
        }
        while state.rest.is_empty() {
            let Some(source) = &mut state.source else { return Poll::Ready(None) };
            match std::task::ready!(Pin::new(source).poll_frame(context)) {
                None => state.source = None,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        state.memory.grow(data.len());
                        state.copies_chunks = data.len() > CHUNK_BYTES;
                        state.rest = data;
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.take_chunk(state)))))
    }

    fn take_chunk(&self, state: &mut State) -> Bytes {
        let mut bytes = state.rest.split_to(state.rest.len().min(CHUNK_BYTES));
        let memory = state.memory.split(bytes.len());
        if state.copies_chunks {
            bytes = Bytes::copy_from_slice(&bytes);
        }
        state.chunks_in_connection += 1;
        let response = self.this.upgrade();
        Bytes::from_owner(Chunk { bytes, _memory: memory, response })
    }

    fn chunk_was_sent(&self) {
        let mut state = self.state();
        state.chunks_in_connection -= 1;
        if state.is_aborted
            && let Some(connection) = &self.connection
        {
            connection.remove_stuck_chunk();
        }
        self.update_wait(&state);
        drop(state);
    }
}

impl WaitsForClient for UnsentResponse {
    fn abort(&self) {
        counter!("chat_http_aborted_total", "waited_for" => "response").increment(1);
        let mut state = self.state();
        if !std::mem::replace(&mut state.is_aborted, true)
            && let Some(connection) = &self.connection
        {
            connection.add_stuck_chunks(state.chunks_in_connection);
        }
        let released = (
            std::mem::take(&mut state.rest),
            state.memory.split(usize::MAX),
            state.source.take(),
            state.slot.take(),
            state.in_flight.take(),
        );
        drop(state);
        drop(released);
        if let Some(connection) = &self.connection {
            connection.close_after_abort(self.version);
        }
    }

    fn is_resumable(&self) -> bool {
        self.is_resumable
    }
}

impl Drop for UnsentResponse {
    fn drop(&mut self) {
        self.limits.client_waits.end(&self.wait);
    }
}

/// Bytes that a connection has taken, until it has sent them.
struct Chunk {
    bytes: Bytes,
    _memory: Reservation,
    response: Option<Arc<UnsentResponse>>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(response) = &self.response {
            response.chunk_was_sent();
        }
    }
}

/// The body of a tracked response.
struct TrackedBody(Arc<UnsentResponse>);

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.0.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state();
        !state.is_aborted && state.rest.is_empty() && state.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.state();
        match &state.source {
            _ if state.is_aborted => SizeHint::default(),
            None => SizeHint::with_exact(u64::try_from(state.rest.len()).unwrap_or(u64::MAX)),
            Some(_) => SizeHint::default(),
        }
    }
}
