//! The fake KurrentDB: implements the public gRPC protocol, keeps its events in memory, and fails on demand.
//!
//! It supports appends with an expected revision and KurrentDB's rules for repeated appends, reads of streams and
//! `$all` in both directions, filtered subscriptions with checkpoints, deleted and truncated streams, scavenges, and a
//! leader with followers. As on a real server, positions are like offsets in a file, and some events are the server's
//! own.
//!
//! It runs on threads of its own, so that tests without a runtime and processes that a test starts can use it.

#![expect(clippy::result_large_err, reason = "the services return tonic's `Status`")]

mod connections;
mod faults;
mod log;
mod node;
mod real_server;
mod responses;
mod service;
mod subscription;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chat_kurrentdb_protocol::gossip::gossip_server::GossipServer;
use chat_kurrentdb_protocol::streams::read_resp::Checkpoint;
use chat_kurrentdb_protocol::streams::streams_server::StreamsServer;
use prost::bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use uuid::Uuid;

use crate::certificates::ServerCertificate;
use crate::port;
use connections::{Connections, PipedConnection};
pub use faults::{Fault, FaultPlan};
use log::{ExpectedRevision, Log, ProposedEvent, Record};
use node::{Cluster, Node, lock};
pub use real_server::RealKurrentDb;
use service::Service;

/// A node of a fake cluster, often the only one. Dropping it stops it.
#[derive(Debug)]
pub struct FakeKurrentDb {
    node: Arc<Node>,
    /// Hands accepted connections to the gRPC server.
    accepted: mpsc::Sender<io::Result<PipedConnection>>,
    accept_task: Mutex<Option<AbortHandle>>,
    runtime: Option<Runtime>,
}

impl FakeKurrentDb {
    /// Starts a node with an empty log.
    pub fn start() -> io::Result<Self> {
        Self::start_at(0)
    }

    /// Starts a node with an empty log at a port; 0 stands for a free one.
    pub fn start_at(port: u16) -> io::Result<Self> {
        Self::start_leader(port, None)
    }

    /// Starts a node that is reached over TLS, with an empty log.
    pub fn start_with_tls(certificate: &ServerCertificate) -> io::Result<Self> {
        Self::start_leader(0, Some(certificate))
    }

    fn start_leader(port: u16, tls: Option<&ServerCertificate>) -> io::Result<Self> {
        let cluster = Cluster { log: Log::default(), leader: AtomicU16::new(0), nodes: Mutex::default() };
        let node = Self::start_in(&Arc::new(cluster), port, tls)?;
        node.become_leader();
        Ok(node)
    }

    /// Starts a follower of the same cluster.
    pub fn start_follower(&self) -> io::Result<Self> {
        Self::start_in(&self.node.cluster, 0, None)
    }

    fn start_in(cluster: &Arc<Cluster>, port: u16, tls: Option<&ServerCertificate>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let node = Arc::new(Node {
            port: listener.local_addr()?.port(),
            is_up: AtomicBool::new(true),
            cluster: Arc::clone(cluster),
            connections: Connections::default(),
            faults: Mutex::default(),
            authorization: Mutex::default(),
            end_subscriptions_signal: watch::Sender::new(0),
            wrong_checkpoint: Mutex::default(),
            has_unreadable_streams: AtomicBool::new(false),
            append_count: AtomicU64::new(0),
            delivered_count: AtomicU64::new(0),
        });
        lock(&cluster.nodes).push(Arc::clone(&node));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (pipes, incoming) = mpsc::channel(16);
        let service = Service::new(&node);
        let mut builder = Server::builder();
        if let Some(ServerCertificate { certificate, key }) = tls {
            let config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            builder = builder.tls_config(config).map_err(io::Error::other)?;
        }
        let server = builder
            .add_service(StreamsServer::new(service.clone()).max_decoding_message_size(usize::MAX))
            .add_service(GossipServer::new(service));
        runtime.spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        let fake = Self { node, accepted: pipes, accept_task: Mutex::default(), runtime: Some(runtime) };
        fake.accept(listener)?;
        Ok(fake)
    }

    fn accept(&self, listener: TcpListener) -> io::Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        listener.set_nonblocking(true)?;
        let _runtime = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (node, pipes) = (Arc::clone(&self.node), self.accepted.clone());
        let accepting = runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // The client may have disconnected already.
                let Ok(pipe) = node.connections.connect(socket) else { continue };
                if pipes.send(Ok(pipe)).await.is_err() {
                    break;
                }
            }
        });
        *lock(&self.accept_task) = Some(accepting.abort_handle());
        Ok(())
    }

    /// The connection string of this node, for a node without TLS.
    pub fn url(&self) -> String {
        format!("kurrentdb://127.0.0.1:{}?tls=false", self.node.port)
    }

    /// The connection string of the cluster with all nodes started so far.
    pub fn cluster_url(&self) -> String {
        let nodes = lock(&self.node.cluster.nodes);
        let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("kurrentdb://{}?tls=false", hosts.join(","))
    }

    /// The port of this node.
    pub fn port(&self) -> u16 {
        self.node.port
    }

    /// Makes this node the leader.
    pub fn become_leader(&self) {
        self.node.cluster.leader.store(self.node.port, Ordering::SeqCst);
    }

    /// Queues a fault. Each append takes the oldest queued fault.
    pub fn fail_next(&self, fault: Fault) {
        self.node.faults().queued.push_back(fault);
    }

    /// Injects random faults from now on.
    pub fn set_fault_plan(&self, plan: FaultPlan) {
        self.node.faults().set_plan(plan);
    }

    /// Refuses reads and appends without this `authorization` header from now on.
    pub fn require_authorization(&self, authorization: &str) {
        *lock(&self.node.authorization) = Some(authorization.to_owned());
    }

    /// Stops listening and cuts all connections. The events stay.
    pub fn go_down(&self) {
        self.node.is_up.store(false, Ordering::SeqCst);
        if let Some(accepting) = lock(&self.accept_task).take() {
            accepting.abort();
            // The port is free only when the task has ended. `abort` does not wait for that.
            while !accepting.is_finished() {
                std::thread::yield_now();
            }
        }
        self.node.connections.cut_all();
    }

    /// Listens on the same port again.
    pub fn come_up(&self) -> io::Result<()> {
        self.accept(port::listen_again(self.node.port)?)?;
        self.node.is_up.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Cuts all connections. New ones are accepted.
    pub fn cut_connections(&self) {
        self.node.connections.cut_all();
    }

    /// Ends all subscriptions with an error.
    pub fn end_subscriptions(&self) {
        self.node.end_subscriptions();
    }

    /// Gives all checkpoints of subscriptions this position from now on, instead of the one that the subscription has
    /// reached. A subscription gets one more such checkpoint when it has caught up: real servers that sent wrong
    /// checkpoints did that too.
    pub fn send_wrong_checkpoints(&self, commit_position: u64, prepare_position: u64) {
        *lock(&self.node.wrong_checkpoint) = Some(Checkpoint { commit_position, prepare_position });
    }

    /// Lets reads of single streams fail from now on, or succeed again.
    pub fn set_streams_unreadable(&self, unreadable: bool) {
        self.node.has_unreadable_streams.store(unreadable, Ordering::SeqCst);
    }

    /// Appends events of another program, one after another.
    pub fn append_foreign_events(&self, stream: &str, events: usize) {
        for _ in 0..events {
            let event = ProposedEvent::of_type("Foreign", Bytes::from_static(b"{}"));
            self.node.cluster.log.append(&stream.to_owned().into(), ExpectedRevision::Any, vec![event]);
        }
    }

    /// Tampers with the payload of the event at a position.
    pub fn alter_payload(&self, position: u64, change: impl FnOnce(&mut Vec<u8>)) {
        self.node.cluster.log.alter(|records| {
            let Some(record) = records.iter_mut().find(|record| record.position == position) else { return };
            let mut data = record.proposed.data.to_vec();
            change(&mut data);
            let proposed = ProposedEvent { data: data.into(), ..record.proposed.clone() };
            *record = Arc::new(Record { proposed, ..Record::clone(record) });
        });
    }

    /// Removes the event at a position without a trace.
    pub fn remove_event(&self, position: u64) {
        self.node.cluster.log.alter(|records| records.retain(|record| record.position != position));
    }

    /// Swaps the events at two positions.
    pub fn swap_events(&self, one: u64, other: u64) {
        self.node.cluster.log.alter(|records| {
            for record in records.iter_mut() {
                let position = match record.position {
                    position if position == one => other,
                    position if position == other => one,
                    _ => continue,
                };
                *record = Arc::new(Record { position, ..Record::clone(record) });
            }
            records.sort_by_key(|record| record.position);
        });
    }

    /// Copies the event at `position`, gives the copy another id, and inserts it at the position before.
    pub fn insert_copy_before(&self, position: u64) {
        self.node.cluster.log.alter(|records| {
            let Some(index) = records.iter().position(|record| record.position == position) else { return };
            let proposed = ProposedEvent { id: Uuid::new_v4(), ..records[index].proposed.clone() };
            let inserted = Record { position: position - 1, proposed, ..Record::clone(&records[index]) };
            records.insert(index, Arc::new(inserted));
        });
    }

    /// Deletes a stream permanently ("hard delete").
    pub fn tombstone_stream(&self, stream: &str) {
        self.node.cluster.log.tombstone(stream);
    }

    /// Deletes a stream in the way that can be undone until a scavenge: its metadata truncates all its events. An
    /// append makes the stream exist again, with the next revision.
    pub fn soft_delete_stream(&self, stream: &str) {
        self.set_stream_metadata(stream, &format!(r#"{{"$tb":{}}}"#, i64::MAX));
    }

    /// Sets the metadata of a stream: JSON that may limit its events with `$maxCount`, `$maxAge` (in seconds) and `$tb`
    /// (the first revision that remains).
    pub fn set_stream_metadata(&self, stream: &str, metadata: &str) {
        self.node.cluster.log.set_metadata(stream, metadata);
    }

    /// Removes deleted and truncated events for good.
    pub fn scavenge(&self) {
        self.node.cluster.log.scavenge();
    }

    /// The number of received appends, successful or not.
    pub fn append_count(&self) -> u64 {
        self.node.append_count.load(Ordering::SeqCst)
    }

    /// The number of events that subscriptions have handed to their connections.
    pub fn delivered_count(&self) -> u64 {
        self.node.delivered_count.load(Ordering::SeqCst)
    }
}

impl Drop for FakeKurrentDb {
    fn drop(&mut self) {
        self.go_down();
        if let Some(runtime) = self.runtime.take() {
            // Dropping the runtime would block, which is not allowed in the runtime of a test. No task has to finish.
            runtime.shutdown_background();
        }
    }
}
