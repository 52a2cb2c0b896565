//! A stand-in for KurrentDB: it speaks the public gRPC protocol, keeps its events in memory, and fails on demand.
//!
//! What it knows: appending with an expected revision and KurrentDB's rules for appends that come again, reading
//! streams and `$all` both ways, filtered subscriptions with checkpoints, a leader and followers. Positions are like
//! offsets in a file, and now and then the server writes an event of its own, as real ones do.
//!
//! It runs on threads of its own, so that tests without a runtime, and processes that a test starts, can use it.

#![expect(clippy::result_large_err, reason = "tonic's `Status` is what the services return")]

mod connections;
mod faults;
mod log;
mod service;
mod subscription;

#[expect(clippy::all, clippy::pedantic, reason = "generated")]
mod protocol {
    include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
}

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use uuid::Uuid;

use connections::{Connections, PipedConnection};
use faults::FaultInjector;
pub use faults::{Fault, FaultPlan};
use log::{ExpectedRevision, Log, ProposedEvent, Record};
use protocol::event_store::client::gossip::gossip_server::GossipServer;
use protocol::event_store::client::server_features::server_features_server::ServerFeaturesServer;
use protocol::event_store::client::streams::streams_server::StreamsServer;
use service::Service;

/// A node of a cluster, mostly the only one. It ends when dropped.
#[derive(Debug)]
pub struct FakeKurrentDb {
    node: Arc<Node>,
    accepted: mpsc::Sender<io::Result<PipedConnection>>,
    accept_task: Mutex<Option<AbortHandle>>,
    runtime: Option<Runtime>,
}

/// What the nodes of a cluster share.
#[derive(Debug)]
struct Cluster {
    log: Log,
    /// The leader's port.
    leader: AtomicU16,
    nodes: Mutex<Vec<Arc<Node>>>,
}

/// What a node's services work with.
#[derive(Debug)]
struct Node {
    port: u16,
    is_up: AtomicBool,
    cluster: Arc<Cluster>,
    connections: Connections,
    faults: Mutex<FaultInjector>,
    /// The `authorization` that requests must carry, where one is asked for.
    authorization: Mutex<Option<String>>,
    /// Counts up when all subscriptions are to end.
    end_subscriptions_signal: watch::Sender<u64>,
    append_count: AtomicU64,
    delivered_count: AtomicU64,
}

impl Node {
    fn is_leader(&self) -> bool {
        self.cluster.leader.load(Ordering::SeqCst) == self.port
    }

    fn faults(&self) -> MutexGuard<'_, FaultInjector> {
        lock(&self.faults)
    }

    fn end_subscriptions(&self) {
        self.end_subscriptions_signal.send_modify(|times| *times += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeKurrentDb {
    /// Starts a node with an empty log.
    pub fn start() -> io::Result<Self> {
        let cluster = Cluster { log: Log::default(), leader: AtomicU16::new(0), nodes: Mutex::default() };
        let node = Self::start_in(&Arc::new(cluster))?;
        node.become_leader();
        Ok(node)
    }

    /// Starts another node of the same cluster: a follower, until it is told to lead.
    pub fn start_follower(&self) -> io::Result<Self> {
        Self::start_in(&self.node.cluster)
    }

    fn start_in(cluster: &Arc<Cluster>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let node = Arc::new(Node {
            port: listener.local_addr()?.port(),
            is_up: AtomicBool::new(true),
            cluster: Arc::clone(cluster),
            connections: Connections::default(),
            faults: Mutex::default(),
            authorization: Mutex::default(),
            end_subscriptions_signal: watch::Sender::new(0),
            append_count: AtomicU64::new(0),
            delivered_count: AtomicU64::new(0),
        });
        lock(&cluster.nodes).push(Arc::clone(&node));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (pipes, incoming) = mpsc::channel(16);
        let service = Service::new(&node);
        let server = Server::builder()
            .add_service(StreamsServer::new(service.clone()).max_decoding_message_size(usize::MAX))
            .add_service(GossipServer::new(service.clone()))
            .add_service(ServerFeaturesServer::new(service));
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
                // A client that has gone again is no failure.
                let Ok(pipe) = node.connections.connect(socket) else { continue };
                if pipes.send(Ok(pipe)).await.is_err() {
                    break;
                }
            }
        });
        *lock(&self.accept_task) = Some(accepting.abort_handle());
        Ok(())
    }

    /// The connection string of this node.
    pub fn url(&self) -> String {
        format!("kurrentdb://127.0.0.1:{}?tls=false", self.node.port)
    }

    /// The connection string of the cluster: all nodes there are so far.
    pub fn cluster_url(&self) -> String {
        let nodes = lock(&self.node.cluster.nodes);
        let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("kurrentdb://{}?tls=false", hosts.join(","))
    }

    /// Makes this node the leader.
    pub fn become_leader(&self) {
        self.node.cluster.leader.store(self.node.port, Ordering::SeqCst);
    }

    /// What goes wrong with the next append; asked for several times, with the ones after it.
    pub fn fail_next(&self, fault: Fault) {
        self.node.faults().queued.push_back(fault);
    }

    /// Faults by chance from here on.
    pub fn set_fault_plan(&self, plan: FaultPlan) {
        self.node.faults().set_plan(plan);
    }

    /// From here on only requests with this `authorization` are answered.
    pub fn require_authorization(&self, authorization: &str) {
        *lock(&self.node.authorization) = Some(authorization.to_owned());
    }

    /// Goes away: nobody listens, and connections are cut. What is stored stays.
    pub fn go_down(&self) {
        self.node.is_up.store(false, Ordering::SeqCst);
        if let Some(accepting) = lock(&self.accept_task).take() {
            accepting.abort();
            // The port is free when the task is gone, which runs on a thread of its own.
            while !accepting.is_finished() {
                std::thread::yield_now();
            }
        }
        self.node.connections.cut_all();
    }

    /// Comes back on the same port.
    pub fn come_up(&self) -> io::Result<()> {
        self.accept(TcpListener::bind((Ipv4Addr::LOCALHOST, self.node.port))?)?;
        self.node.is_up.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Cuts all connections; new ones are taken.
    pub fn cut_connections(&self) {
        self.node.connections.cut_all();
    }

    /// Ends all subscriptions, with an error.
    pub fn end_subscriptions(&self) {
        self.node.end_subscriptions();
    }

    /// Appends events of another program, one each time.
    pub fn append_foreign_events(&self, stream: &str, events: usize) {
        for _ in 0..events {
            let metadata = [("type", "Foreign"), ("content-type", "application/json")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
            let event = ProposedEvent {
                id: Uuid::new_v4(),
                metadata,
                custom_metadata: Bytes::new(),
                data: Bytes::from_static(b"{}"),
            };
            self.node.cluster.log.append(&stream.to_owned().into(), ExpectedRevision::Any, vec![event]);
        }
    }

    /// Changes the payload of the event at a position, behind everybody's back.
    pub fn alter_payload(&self, position: u64, change: impl FnOnce(&mut Vec<u8>)) {
        self.node.cluster.log.alter(|records| {
            let Some(record) = records.iter_mut().find(|record| record.position == position) else { return };
            let mut data = record.proposed.data.to_vec();
            change(&mut data);
            let proposed = ProposedEvent { data: data.into(), ..record.proposed.clone() };
            *record = Arc::new(Record { proposed, ..Record::clone(record) });
        });
    }

    /// Takes the event at a position away, behind everybody's back.
    pub fn remove_event(&self, position: u64) {
        self.node.cluster.log.alter(|records| records.retain(|record| record.position != position));
    }

    /// Lets the events at two positions stand in each other's place, behind everybody's back.
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

    /// Puts a copy of the event at a position in front of it, with another id, behind everybody's back.
    pub fn insert_copy_before(&self, position: u64) {
        self.node.cluster.log.alter(|records| {
            let Some(place) = records.iter().position(|record| record.position == position) else { return };
            let proposed = ProposedEvent { id: Uuid::new_v4(), ..records[place].proposed.clone() };
            let inserted = Record { position: position - 1, proposed, ..Record::clone(&records[place]) };
            records.insert(place, Arc::new(inserted));
        });
    }

    /// Deletes a stream for good.
    pub fn tombstone_stream(&self, stream: &str) {
        self.node.cluster.log.tombstone(stream);
    }

    /// The appends that have arrived, whatever came of them.
    pub fn append_count(&self) -> u64 {
        self.node.append_count.load(Ordering::SeqCst)
    }

    /// The events that subscriptions were given; what waits for the other side to read is not among them.
    pub fn delivered_count(&self) -> u64 {
        self.node.delivered_count.load(Ordering::SeqCst)
    }
}

impl Drop for FakeKurrentDb {
    fn drop(&mut self) {
        self.go_down();
        if let Some(runtime) = self.runtime.take() {
            // Waiting would not be allowed in a test's own runtime, and there is nothing to wait for.
            runtime.shutdown_background();
        }
    }
}
