//! The state of a node and of its cluster.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_kurrentdb_protocol::streams::read_resp::Checkpoint;
use tokio::sync::watch;

use super::connections::Connections;
use super::faults::ScheduledFaults;
use super::log::Log;

/// The state that the nodes of a cluster share.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) log: Log,
    /// The leader's port.
    pub(super) leader: AtomicU16,
    pub(super) nodes: Mutex<Vec<Arc<Node>>>,
}

/// The state of a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) port: u16,
    pub(super) is_up: AtomicBool,
    pub(super) cluster: Arc<Cluster>,
    pub(super) connections: Connections,
    pub(super) faults: Mutex<ScheduledFaults>,
    /// The `authorization` header that requests must have, if one is required.
    pub(super) authorization: Mutex<Option<String>>,
    /// Incremented to end all subscriptions.
    pub(super) end_subscriptions_signal: watch::Sender<u64>,
    /// The wrong position that all checkpoints have, if one is set.
    pub(super) wrong_checkpoint: Mutex<Option<Checkpoint>>,
    /// Whether reads of single streams fail.
    pub(super) has_unreadable_streams: AtomicBool,
    pub(super) append_count: AtomicU64,
    pub(super) delivered_count: AtomicU64,
}

impl Node {
    pub(super) fn is_leader(&self) -> bool {
        self.cluster.leader.load(Ordering::SeqCst) == self.port
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, ScheduledFaults> {
        lock(&self.faults)
    }

    pub(super) fn end_subscriptions(&self) {
        self.end_subscriptions_signal.send_modify(|times| *times += 1);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
