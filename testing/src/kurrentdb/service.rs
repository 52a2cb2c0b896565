//! The gRPC services of the fake KurrentDB.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::uuid::Uuid;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt, iter};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use chat_kurrentdb_protocol::gossip::gossip_server::Gossip;
use chat_kurrentdb_protocol::gossip::member_info::VNodeState;
use chat_kurrentdb_protocol::gossip::{ClusterInfo, EndPoint, MemberInfo};
use chat_kurrentdb_protocol::streams::batch_append_req::options::ExpectedStreamPosition;
use chat_kurrentdb_protocol::streams::batch_append_req::{Options as AppendOptions, ProposedMessage};
use chat_kurrentdb_protocol::streams::batch_append_resp::Result as AppendResult;
use chat_kurrentdb_protocol::streams::batch_append_resp::success::PositionOption;
use chat_kurrentdb_protocol::streams::read_req::options::all_options::AllOption;
use chat_kurrentdb_protocol::streams::read_req::options::stream_options::RevisionOption;
use chat_kurrentdb_protocol::streams::read_req::options::{
    AllOptions, CountOption, FilterOption, StreamOption, StreamOptions,
};
use chat_kurrentdb_protocol::streams::read_resp::{Content, StreamNotFound};
use chat_kurrentdb_protocol::streams::streams_server::Streams;
use chat_kurrentdb_protocol::streams::{BatchAppendReq, BatchAppendResp, ReadReq, ReadResp};
use chat_kurrentdb_protocol::{AllStreamPosition, Duration as WireDuration, Empty, StreamIdentifier, uuid};

use super::connections::ConnectionId;
use super::faults::{AppendFaults, Fault};
use super::log::{AppendOutcome, ExpectedRevision, ProposedEvent};
use super::node::{Node, lock};
use super::responses::{
    append_error, append_success, event_response, read_response, set_metadata, stream_deleted_status,
    wire_uuid,
};
use super::subscription::{self, StreamFilter};

/// The largest append that real servers accept by default (`MaxAppendSize`).
const MAX_APPEND_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(super) struct Service {
    node: Arc<Node>,
}

impl Service {
    pub(super) fn new(node: &Arc<Node>) -> Self {
        Self { node: Arc::clone(node) }
    }

    /// Refuses requests without the required authorization, and, on a follower, requests that require the leader.
    fn check_request(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.check_user(metadata)?;
        if requires_leader(metadata) && !self.node.is_leader() {
            return Err(self.not_leader_status());
        }
        Ok(())
    }

    fn check_user(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if let Some(wanted) = &*lock(&self.node.authorization)
            && metadata.get("authorization").is_none_or(|value| value != wanted.as_str())
        {
            let mut refused = Status::permission_denied("Access Denied");
            set_metadata(&mut refused, "exception", "access-denied");
            return Err(refused);
        }
        Ok(())
    }

    fn not_leader_status(&self) -> Status {
        let mut status = Status::not_found("Leader info available");
        set_metadata(&mut status, "exception", "not-leader");
        set_metadata(&mut status, "leader-endpoint-host", "127.0.0.1");
        let leader = self.node.cluster.leader.load(Ordering::SeqCst);
        set_metadata(&mut status, "leader-endpoint-port", &leader.to_string());
        status
    }

    fn store(&self, append: AppendRequest, deduplication: Deduplication) -> AppendResult {
        let AppendRequest { stream, expected, events } = append;
        let outcome = match (self.node.cluster.log.append(&stream, expected, events), deduplication) {
            (AppendOutcome::AlreadyStored { .. }, Deduplication::Disabled) => {
                AppendOutcome::WrongExpectedRevision
            }
            (outcome, _) => outcome,
        };
        match outcome {
            AppendOutcome::Stored { revision, position } => append_success(revision, Some(position)),
            // Real servers leave out the position if they can't find the event. The fake does it for every other
            // revision.
            AppendOutcome::AlreadyStored { revision, position } => {
                append_success(revision, (revision % 2 == 0).then_some(position))
            }
            AppendOutcome::WrongExpectedRevision => append_error(Code::AlreadyExists, "WrongExpectedVersion"),
            AppendOutcome::Deleted => append_error(Code::NotFound, "StreamDeleted"),
        }
    }

    /// Executes one append of a call. `None` if it gets no answer.
    async fn execute(
        &self,
        append: AppendRequest,
        faults: AppendFaults,
        connection: Option<ConnectionId>,
    ) -> Result<Option<AppendResult>, Status> {
        if faults.ends_subscriptions {
            self.node.end_subscriptions();
        }
        let cut = || {
            if let Some(connection) = connection {
                self.node.connections.cut(connection);
            }
        };
        let stream = append.stream.clone();
        let store = |deduplication| Ok(Some(self.store(append, deduplication)));
        match faults.fault {
            None => store(Deduplication::Enabled),
            Some(Fault::CutBefore) => {
                cut();
                Ok(None)
            }
            Some(Fault::CutAfter) => {
                store(Deduplication::Enabled)?;
                cut();
                Ok(None)
            }
            Some(Fault::Overtaken) => {
                let other = ProposedEvent::of_type("Foreign", Bytes::from_static(b"{}"));
                self.node.cluster.log.append(&stream, ExpectedRevision::Any, vec![other]);
                cut();
                Ok(None)
            }
            Some(Fault::SilentBefore) => Ok(None),
            Some(Fault::SilentAfter) => store(Deduplication::Enabled).map(|_| None),
            Some(Fault::Slow(pause)) => {
                tokio::time::sleep(pause).await;
                store(Deduplication::Enabled)
            }
            // Real servers end the whole call.
            Some(Fault::NotLeader) => Err(self.not_leader_status()),
            Some(Fault::NotReady) => Ok(Some(append_error(Code::Ok, "Server Is Not Ready"))),
            Some(Fault::NoDeduplication) => store(Deduplication::Disabled),
            Some(Fault::DeadlineAfter) => {
                store(Deduplication::Enabled)?;
                Ok(Some(append_error(Code::DeadlineExceeded, "Timeout")))
            }
            Some(Fault::TimeoutAfter) => {
                store(Deduplication::Enabled)?;
                Ok(Some(append_error(Code::Aborted, "Operation timed out: Commit phase timeout.")))
            }
            Some(Fault::NoPosition) => {
                let mut result = store(Deduplication::Enabled)?;
                if let Some(AppendResult::Success(success)) = &mut result {
                    success.position_option = Some(PositionOption::NoPosition(Empty {}));
                }
                Ok(result)
            }
        }
    }
}

/// Whether a node recognizes repeated events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deduplication {
    Enabled,
    Disabled,
}

struct AppendRequest {
    stream: Bytes,
    expected: ExpectedRevision,
    events: Vec<ProposedEvent>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

#[tonic::async_trait]
impl Streams for Service {
    type ReadStream = Responses;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Responses>, Status> {
        self.check_request(request.metadata())?;
        let options = request.into_inner().options.ok_or_else(|| Status::invalid_argument("options"))?;
        let filter = match options.filter_option {
            Some(FilterOption::Filter(filter)) => StreamFilter::from_options(&filter)?,
            _ => StreamFilter::default(),
        };
        let backwards = options.read_direction == 1;
        let missing = || Status::invalid_argument("stream_option");
        let (count, responses): (u64, Responses) =
            match (options.stream_option.ok_or_else(missing)?, options.count_option) {
                (StreamOption::All(all), Some(CountOption::Subscription(_))) => {
                    let (sender, receiver) = mpsc::channel(1);
                    tokio::spawn(subscription::run(Arc::clone(&self.node), all.all_option, filter, sender));
                    return Ok(Response::new(Box::pin(ReceiverStream::new(receiver))));
                }
                (StreamOption::All(all), Some(CountOption::Count(count))) => {
                    (count, Box::pin(iter(self.read_all(all, &filter, backwards)?)))
                }
                (StreamOption::Stream(_), _) if self.node.has_unreadable_streams.load(Ordering::SeqCst) => {
                    return Err(Status::unavailable("Server Is Not Ready"));
                }
                (StreamOption::Stream(stream), Some(CountOption::Count(count))) => {
                    (count, Box::pin(iter(self.read_stream(stream, backwards)?)))
                }
                _ => return Err(Status::unimplemented("subscriptions to streams")),
            };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Response::new(Box::pin(responses.take(count))))
    }

    type BatchAppendStream = ReceiverStream<Result<BatchAppendResp, Status>>;

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Self::BatchAppendStream>, Status> {
        self.check_user(request.metadata())?;
        let requires_leader = requires_leader(request.metadata());
        let connection = request.extensions().get::<ConnectionId>().copied();
        let mut appends = request.into_inner();
        let (sender, receiver) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(append)) = appends.message().await {
                service.node.append_count.fetch_add(1, Ordering::SeqCst);
                let faults = service.node.faults().next_faults();
                let (service, sender) = (service.clone(), sender.clone());
                // An append does not wait for the one before it.
                tokio::spawn(async move {
                    let answer = if requires_leader && !service.node.is_leader() {
                        Err(service.not_leader_status())
                    } else {
                        service.answer(append, faults, connection).await
                    };
                    let Some(answer) = answer.transpose() else {
                        // The call stays open until the client ends it.
                        return sender.closed().await;
                    };
                    // The client may have disconnected.
                    let _ = sender.send(answer).await;
                });
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Service {
    /// Executes an append and makes its answer.
    async fn answer(
        &self,
        request: BatchAppendReq,
        faults: AppendFaults,
        connection: Option<ConnectionId>,
    ) -> Result<Option<BatchAppendResp>, Status> {
        let BatchAppendReq { correlation_id, options, proposed_messages, is_final } = request;
        let options = options.ok_or_else(|| Status::unimplemented("appends in parts"))?;
        if !is_final {
            return Err(Status::unimplemented("appends in parts"));
        }
        let stream_identifier = options.stream_identifier.clone();
        let result = match append_request(options, proposed_messages) {
            Ok(append) => self.execute(append, faults, connection).await?,
            Err(refused) => Some(refused),
        };
        Ok(result.map(|result| BatchAppendResp { correlation_id, stream_identifier, result: Some(result) }))
    }
}

impl Service {
    /// Fails if the read starts at a position where no record starts and the log does not end.
    fn read_all(
        &self,
        all: AllOptions,
        filter: &StreamFilter,
        backwards: bool,
    ) -> Result<Vec<Result<ReadResp, Status>>, Status> {
        let log = &self.node.cluster.log;
        let index = match all.all_option {
            Some(AllOption::Position(AllStreamPosition { commit_position: position, .. })) => {
                let index = log.index_of(position);
                let start = log.slice(index, 1).first().map_or(log.next_position(), |record| record.position);
                if start != position {
                    return Err(Status::invalid_argument(format!(
                        "no record starts at the position {position}"
                    )));
                }
                index
            }
            Some(AllOption::End(_)) => log.len(),
            Some(AllOption::Start(_)) | None => 0,
        };
        let records = if backwards { log.slice_backwards(index) } else { log.slice(index, usize::MAX) };
        let passing = records.iter().filter(|record| filter.matches(record));
        Ok(passing.map(|record| Ok(event_response(record))).collect())
    }

    fn read_stream(
        &self,
        read: StreamOptions,
        backwards: bool,
    ) -> Result<Vec<Result<ReadResp, Status>>, Status> {
        let name = read.stream_identifier.unwrap_or_default().stream_name;
        let log = &self.node.cluster.log;
        if log.is_deleted(&name) {
            return Err(stream_deleted_status());
        }
        let Some(mut records) = log.stream(&name) else {
            let stream_identifier = Some(StreamIdentifier { stream_name: name });
            return Ok(vec![Ok(read_response(Content::StreamNotFound(StreamNotFound {
                stream_identifier,
            })))]);
        };
        match (read.revision_option, backwards) {
            (Some(RevisionOption::Revision(from)), false) => records.retain(|record| record.revision >= from),
            (Some(RevisionOption::Revision(from)), true) => records.retain(|record| record.revision <= from),
            (Some(RevisionOption::End(_)), false) => records.clear(),
            _ => {}
        }
        if backwards {
            records.reverse();
        }
        Ok(records.iter().map(|record| Ok(event_response(record))).collect())
    }
}

#[tonic::async_trait]
impl Gossip for Service {
    async fn read(&self, _: Request<Empty>) -> Result<Response<ClusterInfo>, Status> {
        let member = |node: &Arc<Node>| MemberInfo {
            instance_id: Some(wire_uuid(Uuid::from_u128(u128::from(node.port)))),
            time_stamp: 0,
            state: if node.is_leader() { VNodeState::Leader.into() } else { VNodeState::Follower.into() },
            is_alive: node.is_up.load(Ordering::SeqCst),
            http_end_point: Some(EndPoint { address: "127.0.0.1".to_owned(), port: node.port.into() }),
        };
        let members = lock(&self.node.cluster.nodes).iter().map(member).collect();
        Ok(Response::new(ClusterInfo { members }))
    }
}

/// Parses an append. The error is the answer to the client.
fn append_request(
    options: AppendOptions,
    messages: Vec<ProposedMessage>,
) -> Result<AppendRequest, AppendResult> {
    let bad_request = || append_error(Code::InvalidArgument, "BadRequest");
    if options.deadline == Some(WireDuration::default()) {
        return Err(append_error(Code::DeadlineExceeded, "Timeout"));
    }
    let bytes: usize =
        messages.iter().map(|message| message.data.len() + message.custom_metadata.len()).sum();
    if bytes > MAX_APPEND_BYTES {
        return Err(append_error(Code::InvalidArgument, "MaximumAppendSizeExceeded"));
    }
    let expected = match options.expected_stream_position.ok_or_else(bad_request)? {
        ExpectedStreamPosition::StreamPosition(last) => ExpectedRevision::Revision(last),
        ExpectedStreamPosition::NoStream(_) => ExpectedRevision::NoStream,
        ExpectedStreamPosition::StreamExists(_) => ExpectedRevision::StreamExists,
        ExpectedStreamPosition::Any(_) => ExpectedRevision::Any,
    };
    let stream = options.stream_identifier.ok_or_else(bad_request)?.stream_name;
    let events = messages.into_iter().map(proposed_event).collect::<Option<_>>().ok_or_else(bad_request)?;
    Ok(AppendRequest { stream, expected, events })
}

/// Whether only the leader may execute a request.
fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get("requires-leader").is_some_and(|value| value == "true")
}

fn proposed_event(message: ProposedMessage) -> Option<ProposedEvent> {
    let id = match message.id?.value? {
        uuid::Value::Structured(id) => Uuid::from_u64_pair(
            id.most_significant_bits.cast_unsigned(),
            id.least_significant_bits.cast_unsigned(),
        ),
        uuid::Value::String(id) => id.parse().ok()?,
    };
    let ProposedMessage { metadata, custom_metadata, data, .. } = message;
    Some(ProposedEvent { id, metadata, custom_metadata, data })
}
