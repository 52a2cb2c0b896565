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

use super::connections::ConnectionId;
use super::faults::Fault;
use super::log::{AppendOutcome, ExpectedRevision, ProposedEvent};
use super::node::{Node, lock};
use super::protocol::event_store::client::gossip::gossip_server::Gossip;
use super::protocol::event_store::client::gossip::member_info::VNodeState;
use super::protocol::event_store::client::gossip::{ClusterInfo, EndPoint, MemberInfo};
use super::protocol::event_store::client::server_features::server_features_server::ServerFeatures;
use super::protocol::event_store::client::server_features::{SupportedMethod, SupportedMethods};
use super::protocol::event_store::client::streams::append_req::options::ExpectedStreamRevision;
use super::protocol::event_store::client::streams::append_req::{self, ProposedMessage};
use super::protocol::event_store::client::streams::append_resp::success::{
    CurrentRevisionOption as Revision, PositionOption,
};
use super::protocol::event_store::client::streams::append_resp::wrong_expected_version::{
    CurrentRevisionOption, ExpectedRevisionOption,
};
use super::protocol::event_store::client::streams::append_resp::{
    Result as AppendResult, Success, WrongExpectedVersion,
};
use super::protocol::event_store::client::streams::read_req::options::all_options::AllOption;
use super::protocol::event_store::client::streams::read_req::options::stream_options::RevisionOption;
use super::protocol::event_store::client::streams::read_req::options::{
    AllOptions, CountOption, FilterOption, StreamOption, StreamOptions,
};
use super::protocol::event_store::client::streams::read_resp::{Content, StreamNotFound};
use super::protocol::event_store::client::streams::streams_server::Streams;
use super::protocol::event_store::client::streams::{AppendReq, AppendResp, ReadReq, ReadResp};
use super::protocol::event_store::client::{Empty, StreamIdentifier, uuid};
use super::responses::{
    all_stream_position, event_response, read_response, set_metadata, stream_deleted_status, wire_uuid,
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

    /// Refuses requests without the required authorization, and requests for the leader on a follower.
    fn check_request(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let header = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        if let Some(wanted) = &*lock(&self.node.authorization)
            && header("authorization") != Some(wanted)
        {
            let mut refused = Status::permission_denied("Access Denied");
            set_metadata(&mut refused, "exception", "access-denied");
            return Err(refused);
        }
        if header("requires-leader") == Some("true") && !self.node.is_leader() {
            return Err(self.not_leader());
        }
        Ok(())
    }

    fn not_leader(&self) -> Status {
        let mut status = Status::not_found("Leader info available");
        set_metadata(&mut status, "exception", "not-leader");
        set_metadata(&mut status, "leader-endpoint-host", "127.0.0.1");
        let leader = self.node.cluster.leader.load(Ordering::SeqCst);
        set_metadata(&mut status, "leader-endpoint-port", &leader.to_string());
        status
    }

    fn store(&self, append: AppendRequest, deduplication: Deduplication) -> Result<AppendResp, Status> {
        let AppendRequest { stream, expected, events } = append;
        let success = |revision, position: Option<u64>| {
            AppendResult::Success(Success {
                current_revision_option: Some(Revision::CurrentRevision(revision)),
                position_option: Some(match position {
                    Some(at) => PositionOption::Position(all_stream_position(at)),
                    None => PositionOption::NoPosition(Empty {}),
                }),
            })
        };
        let outcome = match (self.node.cluster.log.append(&stream, expected, events), deduplication) {
            (AppendOutcome::AlreadyStored { revision, .. }, Deduplication::Disabled) => {
                AppendOutcome::WrongExpectedRevision { current: Some(revision) }
            }
            (outcome, _) => outcome,
        };
        let result = match outcome {
            AppendOutcome::Stored { revision, position } => success(revision, Some(position)),
            // Real servers leave out the position if they can't find the event. The fake does it for every other revision.
            AppendOutcome::AlreadyStored { revision, position } => {
                success(revision, (revision % 2 == 0).then_some(position))
            }
            AppendOutcome::WrongExpectedRevision { current } => {
                AppendResult::WrongExpectedVersion(WrongExpectedVersion {
                    current_revision_option: Some(match current {
                        Some(last) => CurrentRevisionOption::CurrentRevision(last),
                        None => CurrentRevisionOption::CurrentNoStream(Empty {}),
                    }),
                    expected_revision_option: Some(match expected {
                        ExpectedRevision::Any => ExpectedRevisionOption::ExpectedAny(Empty {}),
                        ExpectedRevision::StreamExists => {
                            ExpectedRevisionOption::ExpectedStreamExists(Empty {})
                        }
                        ExpectedRevision::NoStream => ExpectedRevisionOption::ExpectedNoStream(Empty {}),
                        ExpectedRevision::Revision(last) => ExpectedRevisionOption::ExpectedRevision(last),
                    }),
                })
            }
            AppendOutcome::Deleted => return Err(stream_deleted_status()),
        };
        Ok(AppendResp { result: Some(result) })
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
                    (count, Box::pin(iter(self.read_all(all, &filter, backwards))))
                }
                (StreamOption::Stream(stream), Some(CountOption::Count(count))) => {
                    (count, Box::pin(iter(self.read_stream(stream, backwards)?)))
                }
                _ => return Err(Status::unimplemented("subscriptions to streams")),
            };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Response::new(Box::pin(responses.take(count))))
    }

    async fn append(&self, request: Request<Streaming<AppendReq>>) -> Result<Response<AppendResp>, Status> {
        self.node.append_count.fetch_add(1, Ordering::SeqCst);
        self.check_request(request.metadata())?;
        let connection = request.extensions().get::<ConnectionId>().copied();
        let append = receive_append(request.into_inner()).await?;
        let faults = self.node.faults().next_faults();
        if faults.ends_subscriptions {
            self.node.end_subscriptions();
        }
        let cut = || {
            if let Some(connection) = connection {
                self.node.connections.cut(connection);
            }
            Status::unavailable("cut off")
        };
        let timed_out = |code| Status::new(code, "Operation timed out: Commit phase timeout.");
        match faults.fault {
            None => {}
            Some(Fault::CutBefore) => return Err(cut()),
            Some(Fault::SilentBefore) => std::future::pending::<()>().await,
            Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
            Some(Fault::NotLeader) => return Err(self.not_leader()),
            Some(Fault::NotReady) => return Err(Status::unavailable("Server Is Not Ready")),
            Some(Fault::NoDeduplication) => {
                return self.store(append, Deduplication::Disabled).map(Response::new);
            }
            Some(
                after @ (Fault::CutAfter
                | Fault::SilentAfter
                | Fault::DeadlineAfter
                | Fault::TimeoutAfter
                | Fault::NoPosition),
            ) => {
                let mut response = self.store(append, Deduplication::Enabled)?;
                return match after {
                    Fault::SilentAfter => std::future::pending().await,
                    Fault::DeadlineAfter => Err(timed_out(Code::DeadlineExceeded)),
                    Fault::TimeoutAfter => Err(timed_out(Code::Aborted)),
                    Fault::NoPosition => {
                        if let Some(AppendResult::Success(success)) = &mut response.result {
                            success.position_option = Some(PositionOption::NoPosition(Empty {}));
                        }
                        Ok(Response::new(response))
                    }
                    _ => Err(cut()),
                };
            }
        }
        self.store(append, Deduplication::Enabled).map(Response::new)
    }
}

impl Service {
    fn read_all(
        &self,
        all: AllOptions,
        filter: &StreamFilter,
        backwards: bool,
    ) -> Vec<Result<ReadResp, Status>> {
        let log = &self.node.cluster.log;
        let index = match all.all_option {
            Some(AllOption::Position(at)) => log.index_of(at.commit_position),
            Some(AllOption::End(_)) => log.len(),
            Some(AllOption::Start(_)) | None => 0,
        };
        let records = if backwards { log.slice_backwards(index) } else { log.slice(index, usize::MAX) };
        let passing = records.iter().filter(|record| filter.matches(record));
        passing.map(|record| Ok(event_response(record))).collect()
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
impl ServerFeatures for Service {
    async fn get_supported_methods(&self, _: Request<Empty>) -> Result<Response<SupportedMethods>, Status> {
        let method = |name: &str| SupportedMethod {
            method_name: name.to_owned(),
            service_name: "event_store.client.streams.streams".to_owned(),
            features: Vec::new(),
        };
        let methods = ["read", "append"].map(method).to_vec();
        Ok(Response::new(SupportedMethods { methods, event_store_server_version: "25.0.0".to_owned() }))
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

/// Receives all messages of an append.
async fn receive_append(mut requests: Streaming<AppendReq>) -> Result<AppendRequest, Status> {
    let Some(AppendReq { content: Some(append_req::Content::Options(options)) }) = requests.message().await?
    else {
        return Err(Status::invalid_argument("options come first"));
    };
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(request) = requests.message().await? {
        let Some(append_req::Content::ProposedMessage(message)) = request.content else {
            return Err(Status::invalid_argument("options come once"));
        };
        bytes += message.data.len() + message.custom_metadata.len();
        events.push(proposed_event(message)?);
    }
    if bytes > MAX_APPEND_BYTES {
        let mut refused =
            Status::invalid_argument(format!("Maximum Append Size of {MAX_APPEND_BYTES} Exceeded."));
        set_metadata(&mut refused, "exception", "maximum-append-size-exceeded");
        return Err(refused);
    }
    let expected = match options.expected_stream_revision {
        Some(ExpectedStreamRevision::Revision(last)) => ExpectedRevision::Revision(last),
        Some(ExpectedStreamRevision::NoStream(_)) => ExpectedRevision::NoStream,
        Some(ExpectedStreamRevision::StreamExists(_)) => ExpectedRevision::StreamExists,
        Some(ExpectedStreamRevision::Any(_)) | None => ExpectedRevision::Any,
    };
    let stream = options.stream_identifier.unwrap_or_default().stream_name;
    Ok(AppendRequest { stream, expected, events })
}

fn proposed_event(message: ProposedMessage) -> Result<ProposedEvent, Status> {
    let unreadable = || Status::invalid_argument("id");
    let id = match message.id.and_then(|id| id.value).ok_or_else(unreadable)? {
        uuid::Value::Structured(id) => Uuid::from_u64_pair(
            id.most_significant_bits.cast_unsigned(),
            id.least_significant_bits.cast_unsigned(),
        ),
        uuid::Value::String(id) => id.parse().map_err(|_| unreadable())?,
    };
    let ProposedMessage { metadata, custom_metadata, data, .. } = message;
    Ok(ProposedEvent { id, metadata, custom_metadata, data })
}
