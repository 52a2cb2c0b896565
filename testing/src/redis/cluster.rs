//! A Redis Cluster of three servers.

use std::io;

use super::instance::{RedisInstance, wait_until};
use crate::port;

/// The smallest number of servers that still has a majority when one of them fails.
const NODES: usize = 3;

/// The number of hash slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// The offset of a server's cluster bus port from its port.
const BUS_PORT_OFFSET: u16 = 10_000;

/// The time after which the servers consider a silent server failed, and then refuse all commands. Longer than any
/// pause of a server by a test or by a busy machine: no pause may make the cluster fail.
const NODE_TIMEOUT_MILLIS: &str = "60000";

/// A cluster of three servers without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisInstance>,
}

impl RedisCluster {
    /// Starts the servers and waits until they have formed a cluster.
    pub fn start() -> io::Result<Self> {
        let options =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT_MILLIS, "--save", ""];
        let bus_is_free = |port: u16| port.checked_add(BUS_PORT_OFFSET).is_some_and(port::is_free);
        let node = |_| RedisInstance::start(&options, bus_is_free);
        let nodes: Vec<RedisInstance> = (0..NODES).map(node).collect::<io::Result<_>>()?;
        for (index, node) in nodes.iter().enumerate() {
            let slots: Vec<String> =
                (index * SLOTS / NODES..(index + 1) * SLOTS / NODES).map(|slot| slot.to_string()).collect();
            let add: Vec<&str> =
                ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            node.command(&add)?;
            // With distinct config epochs, the servers need not resolve a conflict first.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        }
        for node in &nodes[1..] {
            nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()])?;
        }
        let is_formed = |node: &RedisInstance| {
            let info = node.command(&["CLUSTER", "INFO"])?.concat();
            let wanted = ["cluster_state:ok".to_owned(), format!("cluster_size:{NODES}")];
            Ok(wanted.iter().all(|wanted| info.contains(wanted)))
        };
        for node in &nodes {
            wait_until("the cluster is formed", || is_formed(node))?;
        }
        Ok(Self { nodes })
    }

    /// Returns the cluster's URL, with the addresses of all servers.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// Removes all keys.
    pub fn flush(&self) -> io::Result<()> {
        self.nodes.iter().try_for_each(|node| node.command(&["FLUSHALL"]).map(drop))
    }

    /// Returns the number of keys of each server.
    pub fn key_counts(&self) -> io::Result<Vec<u64>> {
        let keys = |node: &RedisInstance| Ok(node.command(&["DBSIZE"])?.concat().parse().unwrap_or(0));
        self.nodes.iter().map(keys).collect()
    }

    /// Whether a server, counted from 0, has a key.
    pub fn has_key(&self, server: usize, key: &str) -> io::Result<bool> {
        Ok(self.nodes[server].command(&["KEYS", "*"])?.iter().any(|found| found == key))
    }

    /// Pauses a server, counted from 0 (SIGSTOP).
    pub fn pause(&self, server: usize) -> io::Result<()> {
        self.nodes[server].pause()
    }

    /// Resumes a paused server.
    pub fn resume(&self, server: usize) -> io::Result<()> {
        self.nodes[server].signal("CONT")
    }
}
