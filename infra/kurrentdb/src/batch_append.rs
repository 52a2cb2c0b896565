//! The `BatchAppend` call: one call carries the appends of all streams, and each append has its own answer.
//!
//! The client never ends the requests: KurrentDB answers only one more append after their end.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use chat_domain::{ExpectedRevision, Revision};
use chat_kurrentdb_protocol::streams::batch_append_req::Options;
use chat_kurrentdb_protocol::streams::batch_append_req::options::ExpectedStreamPosition;
use chat_kurrentdb_protocol::streams::batch_append_resp::Result as AppendResult;
use chat_kurrentdb_protocol::streams::batch_append_resp::success::{CurrentRevisionOption, PositionOption};
use chat_kurrentdb_protocol::streams::streams_client::StreamsClient;
use chat_kurrentdb_protocol::streams::{BatchAppendReq, BatchAppendResp};
use chat_kurrentdb_protocol::{AllStreamPosition, Duration as WireDuration, Empty, StreamIdentifier};
use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::call_error::CallError;
use super::event_encoding;
use super::transport::Transport;
use chat_ports::event_store::StreamAppend;

/// The largest number of appends that wait for the connection to take them.
const QUEUED_APPENDS: usize = 16;

/// The server's answer that an append is stored, by this attempt or by an earlier one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StoredAppend {
    /// The revision of the last event.
    pub(super) revision: Option<Revision>,
    /// The position of the last event. The server leaves it out for some repeated appends.
    pub(super) position: Option<AllStreamPosition>,
}

/// The stream of requests of a call: one request for each append.
pub(super) struct AppendRequests(mpsc::Receiver<BatchAppendReq>);

impl Stream for AppendRequests {
    type Item = BatchAppendReq;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// A `BatchAppend` call. It is open until it ends with an error, or until this value is dropped.
pub(super) struct BatchAppendCall {
    requests: mpsc::Sender<BatchAppendReq>,
    state: Arc<Mutex<CallState>>,
    reader: JoinHandle<()>,
}

type Answer = Result<BatchAppendResp, Status>;

enum CallState {
    /// The appends without an answer: the senders of their answers, by correlation id.
    Open(HashMap<Uuid, oneshot::Sender<Answer>>),
    Ended,
}

impl BatchAppendCall {
    /// Opens a call. `to_leader` wraps the stream of appends in a request that only the leader executes.
    pub(super) fn start(
        mut client: StreamsClient<Transport>,
        to_leader: impl FnOnce(AppendRequests) -> Request<AppendRequests>,
    ) -> Self {
        let (requests, queue) = mpsc::channel(QUEUED_APPENDS);
        let state = Arc::new(Mutex::new(CallState::Open(HashMap::new())));
        let request = to_leader(AppendRequests(queue));
        let shared = Arc::clone(&state);
        let reader = tokio::spawn(async move {
            let read_answers = async {
                let mut answers = client.batch_append(request).await?.into_inner();
                while let Some(answer) = answers.message().await? {
                    deliver(&shared, answer);
                }
                Err(Status::unavailable("the server has ended the call that carries all appends"))
            };
            let Err::<(), _>(ended) = read_answers.await else { return };
            if let CallState::Open(pending) = std::mem::replace(&mut *lock(&shared), CallState::Ended) {
                for answer_sender in pending.into_values() {
                    // The append may have been cancelled.
                    let _ = answer_sender.send(Err(ended.clone()));
                }
            }
        });
        Self { requests, state, reader }
    }

    /// Sends an append and waits for its answer, at most for the time limit. The request gives the server the same
    /// limit.
    pub(super) async fn append(
        &self,
        append: &StreamAppend,
        limit: Duration,
    ) -> Result<StoredAppend, CallError> {
        let id = Uuid::new_v4();
        let (answer_sender, answer) = oneshot::channel();
        match &mut *lock(&self.state) {
            CallState::Open(pending) => pending.insert(id, answer_sender),
            CallState::Ended => return Err(CallError::CallEnded),
        };
        let _pending = PendingAppend { call: self, id };
        let request = append_request(id, append, limit);
        let answered = timeout(limit, async {
            // If the call has ended, sending fails, and the reader task sends the reason as the answer.
            let _ = self.requests.send(request).await;
            answer.await
        });
        match answered.await {
            Ok(Ok(answer)) => stored_append(answer?),
            Ok(Err(_)) => Err(Status::cancelled("the call was dropped").into()),
            Err(_) => Err(CallError::Timeout(limit)),
        }
    }
}

impl Drop for BatchAppendCall {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// An append that may be waiting for its answer. Dropping this value removes the append from the call.
struct PendingAppend<'a> {
    call: &'a BatchAppendCall,
    id: Uuid,
}

impl Drop for PendingAppend<'_> {
    fn drop(&mut self) {
        if let CallState::Open(pending) = &mut *lock(&self.call.state) {
            pending.remove(&self.id);
        }
    }
}

fn lock(state: &Mutex<CallState>) -> MutexGuard<'_, CallState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deliver(state: &Mutex<CallState>, answer: BatchAppendResp) {
    let Some(id) = answer.correlation_id.as_ref().and_then(event_encoding::parse_uuid) else { return };
    if let CallState::Open(pending) = &mut *lock(state)
        && let Some(answer_sender) = pending.remove(&id)
    {
        // The append may have been cancelled.
        let _ = answer_sender.send(Ok(answer));
    }
}

fn append_request(id: Uuid, append: &StreamAppend, limit: Duration) -> BatchAppendReq {
    let expected = match append.expected_revision {
        ExpectedRevision::NoStream => ExpectedStreamPosition::NoStream(Empty {}),
        ExpectedRevision::Exact(last) => ExpectedStreamPosition::StreamPosition(last.get()),
    };
    let deadline = WireDuration {
        seconds: limit.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: limit.subsec_nanos().cast_signed(),
    };
    let stream_name = append.stream.as_bytes().to_vec().into();
    BatchAppendReq {
        correlation_id: Some(event_encoding::wire_uuid(id)),
        options: Some(Options {
            stream_identifier: Some(StreamIdentifier { stream_name }),
            expected_stream_position: Some(expected),
            deadline: Some(deadline),
        }),
        proposed_messages: append.events.iter().map(event_encoding::to_wire).collect(),
        is_final: true,
    }
}

fn stored_append(answer: BatchAppendResp) -> Result<StoredAppend, CallError> {
    let error = match answer.result {
        Some(AppendResult::Success(success)) => {
            let revision = match success.current_revision_option {
                Some(CurrentRevisionOption::CurrentRevision(last)) => Some(Revision::new(last)),
                _ => None,
            };
            let position = match success.position_option {
                Some(PositionOption::Position(position)) => Some(position),
                _ => None,
            };
            return Ok(StoredAppend { revision, position });
        }
        Some(AppendResult::Error(error)) => error,
        None => return Err(Status::internal("an answer without a result").into()),
    };
    Err(match Code::from(error.code) {
        // KurrentDB sends this code with an error if it is starting, is busy, or knows no leader.
        Code::Ok => CallError::NotExecuted(error.message),
        Code::AlreadyExists => CallError::WrongExpectedRevision,
        Code::NotFound => CallError::StreamDeleted,
        code => Status::new(code, error.message).into(),
    })
}
