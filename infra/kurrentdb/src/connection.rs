//! The connection to KurrentDB: chooses a node, and adds deadlines, retries and failover to calls.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chat_kurrentdb_protocol::gossip::gossip_client::GossipClient;
use chat_kurrentdb_protocol::gossip::member_info::VNodeState;
use chat_kurrentdb_protocol::gossip::{ClusterInfo, MemberInfo};
use chat_kurrentdb_protocol::streams::ReadReq;
use chat_kurrentdb_protocol::streams::read_req::Options as ReadOptions;
use chat_kurrentdb_protocol::streams::streams_client::StreamsClient;
use chat_kurrentdb_protocol::{Empty, streams::ReadResp};
use futures::future::select_ok;
use http::Uri;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status, Streaming};

use super::batch_append::{BatchAppendCall, StoredAppend};
use super::call_error::CallError;
use super::transport::{self, Transport};
use super::truncated_streams::TruncatedStreams;
use super::url::{Host, KurrentDbUrl, NodePreference};
use chat_ports::backoff::Backoff;
use chat_ports::event_store::StreamAppend;

/// The largest message that is sent or received. An event of KurrentDB has up to 16 MiB.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// The time limits of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTimeouts {
    /// The limit of a single attempt: an append, or the next event of a read.
    pub attempt: Duration,
    /// The limit of all attempts together: no attempt begins after it.
    pub total: Duration,
}

impl Default for CallTimeouts {
    /// The limit of an attempt is longer than the server's own timeout of an append, 2 s (`PrepareTimeoutMs`,
    /// `CommitTimeoutMs`), so that the server's error arrives.
    fn default() -> Self {
        Self { attempt: Duration::from_millis(2_500), total: Duration::from_secs(4) }
    }
}

impl CallTimeouts {
    /// Limits a request to [`Self::attempt`].
    pub(super) async fn within<T>(
        self,
        request: impl Future<Output = Result<T, Status>> + Send,
    ) -> Result<T, CallError> {
        match timeout(self.attempt, request).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(CallError::Timeout(self.attempt)),
        }
    }
}

const INITIAL_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// The pauses between the attempts of one call, up to its total time limit.
pub(super) struct RetryTimer {
    deadline: Instant,
    backoff: Backoff,
}

impl RetryTimer {
    pub(super) fn new(timeouts: CallTimeouts) -> Self {
        Self {
            deadline: Instant::now() + timeouts.total,
            backoff: Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF),
        }
    }

    /// Waits before the next attempt. Returns `false` without waiting if the time limit leaves no further attempt.
    pub(super) async fn wait_for_retry(&mut self) -> bool {
        let pause = self.backoff.next_pause();
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }
}

/// A connection to the server or cluster: calls go to one node, over one HTTP/2 connection that is opened on first use.
pub(super) struct Connection {
    pub(super) url: KurrentDbUrl,
    pub(super) timeouts: CallTimeouts,
    /// The streams that were found to be deleted or truncated.
    pub(super) truncated: TruncatedStreams,
    node_preference: NodePreference,
    choice: Mutex<NodeChoice>,
}

/// The node that calls go to.
#[derive(Default)]
struct NodeChoice {
    current: Option<Arc<Node>>,
    /// The leader that another node has named: the next node to connect to.
    leader: Option<Host>,
}

/// A node and the connection to it. The connection closes when the last handle on the node is dropped.
pub(super) struct Node {
    client: StreamsClient<Transport>,
    authorization: Option<MetadataValue<Ascii>>,
    /// The call that carries all appends, opened with the first one.
    appends: OnceLock<BatchAppendCall>,
}

/// The node that executes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executor {
    /// The leader. Other nodes refuse the call.
    Leader,
    AnyNode,
}

impl Connection {
    /// Creates a connection to the leader.
    pub(super) fn to_leader(url: KurrentDbUrl, timeouts: CallTimeouts) -> Self {
        let (truncated, choice) = (TruncatedStreams::default(), Mutex::default());
        Self { url, timeouts, truncated, node_preference: NodePreference::Leader, choice }
    }

    /// Creates a connection to the node that the URL prefers.
    pub(super) fn to_preferred_node(url: KurrentDbUrl, timeouts: CallTimeouts) -> Self {
        Self { node_preference: url.node_preference, ..Self::to_leader(url, timeouts) }
    }

    /// Returns the current node, or chooses one.
    pub(super) async fn node(&self) -> Result<Arc<Node>, CallError> {
        let leader = {
            let mut choice = self.choice();
            if let Some(node) = &choice.current {
                return Ok(Arc::clone(node));
            }
            choice.leader.take()
        };
        let (url, connect_timeout) = (self.url.clone(), self.timeouts.attempt);
        let created = tokio::task::spawn_blocking(move || transport::transport(&url, connect_timeout)).await;
        let transport = created.map_err(|ended| CallError::from(Status::from_error(ended.into())))??;
        let host = match leader {
            Some(leader) => leader,
            None if self.url.is_cluster() => self.discover_node(&transport).await?,
            None => self.url.hosts[0].clone(),
        };
        let client = StreamsClient::with_origin(transport, self.uri(&host)?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let authorization = self.url.authorization.clone();
        let node = Arc::new(Node { client, authorization, appends: OnceLock::new() });
        // If another call was faster, its node is used.
        Ok(Arc::clone(self.choice().current.get_or_insert(node)))
    }

    /// Drops the current node if the failure is retryable, so that later calls choose one and connect again.
    pub(super) fn report_failure(&self, node: &Arc<Node>, failure: &CallError) {
        if !failure.is_retryable() {
            return;
        }
        let mut choice = self.choice();
        if choice.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, node)) {
            choice.current = None;
            if let CallError::NotLeader(Some(leader)) = failure {
                choice.leader = Some(leader.clone());
            }
        }
    }

    /// Retries a call while its errors are retryable and time is left.
    pub(super) async fn with_retries<T, Fut>(
        &self,
        call: impl Fn(Arc<Node>) -> Fut + Send,
    ) -> Result<T, CallError>
    where
        T: Send,
        Fut: Future<Output = Result<T, CallError>> + Send,
    {
        let mut retry_timer = RetryTimer::new(self.timeouts);
        loop {
            let failure = match self.node().await {
                Ok(node) => match call(Arc::clone(&node)).await {
                    Ok(value) => return Ok(value),
                    Err(failure) => {
                        self.report_failure(&node, &failure);
                        failure
                    }
                },
                Err(failure) => failure,
            };
            if !failure.is_retryable() || !retry_timer.wait_for_retry().await {
                return Err(failure);
            }
        }
    }

    /// Asks all hosts of the URL for the members of the cluster, and returns the best node that the first useful answer
    /// names.
    async fn discover_node(&self, transport: &Transport) -> Result<Host, CallError> {
        let answers = self.url.hosts.iter().map(|host| {
            Box::pin(async move {
                let mut client = GossipClient::with_origin(transport.clone(), self.uri(host)?);
                let read = self.timeouts.within(client.read(Request::new(Empty {}))).await?;
                best_node(read.into_inner(), self.node_preference)
                    .ok_or_else(|| CallError::NoUsableNode(host.to_string()))
            })
        });
        // If all fail, the error is that of the last one to fail.
        select_ok(answers).await.map(|(host, _)| host)
    }

    fn uri(&self, host: &Host) -> Result<Uri, CallError> {
        let scheme = if self.url.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host.to_string()).path_and_query("/").build();
        uri.map_err(|error| CallError::Refused(Box::new(Status::from_error(error.into()))))
    }

    fn choice(&self) -> MutexGuard<'_, NodeChoice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Sends a read or a subscription.
    pub(super) async fn read(
        &self,
        options: ReadOptions,
        executor: Executor,
    ) -> Result<Streaming<ReadResp>, Status> {
        let request = self.request(ReadReq { options: Some(options) }, executor);
        Ok(self.client.clone().read(request).await?.into_inner())
    }

    /// Appends, and waits for the answer at most for the time limit.
    pub(super) async fn append(
        &self,
        append: &StreamAppend,
        limit: Duration,
    ) -> Result<StoredAppend, CallError> {
        let start = || {
            BatchAppendCall::start(self.client.clone(), |requests| self.request(requests, Executor::Leader))
        };
        self.appends.get_or_init(start).append(append, limit).await
    }

    /// Adds the user and the wanted executor to a message.
    pub(super) fn request<T>(&self, message: T, executor: Executor) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        if executor == Executor::Leader {
            request.metadata_mut().insert("requires-leader", MetadataValue::from_static("true"));
        }
        request
    }
}

/// The live member that fits best: the preferred kind of node, or else any that can answer.
fn best_node(cluster: ClusterInfo, preference: NodePreference) -> Option<Host> {
    let rank = |member: &MemberInfo| {
        use VNodeState::{
            CatchingUp, Clone, Follower, Leader, PreReadOnlyReplica, ReadOnlyLeaderless, ReadOnlyReplica,
        };
        match (preference, member.state()) {
            (NodePreference::Leader, Leader)
            | (NodePreference::Follower, Follower)
            | (NodePreference::Random, Leader | Follower | ReadOnlyReplica)
            | (NodePreference::ReadOnlyReplica, ReadOnlyReplica | ReadOnlyLeaderless | PreReadOnlyReplica) => {
                Some(0)
            }
            (_, Leader) => Some(1),
            (_, Follower) => Some(2),
            (_, CatchingUp | Clone | ReadOnlyReplica) => Some(3),
            _ => None,
        }
    };
    let ranked = cluster.members.into_iter().filter(|member| member.is_alive);
    let ranked = ranked.filter_map(|member| Some((rank(&member)?, member.http_end_point?)));
    // The random number spreads processes over the nodes of the same rank.
    let (_, end_point) = ranked.min_by_key(|(rank, _)| (*rank, rand::random::<u32>()))?;
    let name = end_point.address;
    let name = if name.contains(':') { format!("[{name}]") } else { name };
    Some(Host { name, port: end_point.port.try_into().ok()? })
}
