//! A Redis master, its replica, and a sentinel that can fail over.

use std::io;

use super::instance::{RedisInstance, wait_until};

/// The name of the master.
const MASTER: &str = "numbers";

/// A master, a replica and a sentinel.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: [RedisInstance; 2],
    sentinel: RedisInstance,
}

impl RedisSentinel {
    /// Starts the servers and waits until the sentinel monitors both.
    pub fn start() -> io::Result<Self> {
        let options = ["--repl-diskless-sync-delay", "0", "--save", ""];
        let master = RedisInstance::start(&options, |_| true)?;
        let replica = RedisInstance::start(&options, |_| true)?;
        replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()])?;
        wait_until("the replica follows", || replica.info_contains("replication", "master_link_status:up"))?;
        let sentinel = RedisInstance::start(&["--sentinel"], |_| true)?;
        sentinel.command(&["SENTINEL", "MONITOR", MASTER, "127.0.0.1", &master.port().to_string(), "1"])?;
        for (option, millis) in [("down-after-milliseconds", "1000"), ("failover-timeout", "5000")] {
            sentinel.command(&["SENTINEL", "SET", MASTER, option, millis])?;
        }
        let started = Self { servers: [master, replica], sentinel };
        let replica_port = started.servers[1].port().to_string();
        wait_until("the sentinel monitors the replica", || {
            Ok(started.sentinel.command(&["SENTINEL", "REPLICAS", MASTER])?.contains(&replica_port))
        })?;
        Ok(started)
    }

    /// The URL: the sentinel and the name of the master.
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/{MASTER}", self.sentinel.address())
    }

    /// Removes all keys.
    pub fn flush(&self) -> io::Result<()> {
        self.servers[self.master()?].command(&["FLUSHALL"]).map(drop)
    }

    /// Makes the replica the master, and waits until the sentinel reports it.
    pub fn fail_over(&self) -> io::Result<()> {
        let before = self.master()?;
        // The sentinel refuses until it has monitored the replica long enough and the last failover has ended.
        let failover_accepted = || Ok(self.sentinel.command(&["SENTINEL", "FAILOVER", MASTER]).is_ok());
        wait_until("the sentinel accepts the failover", failover_accepted)?;
        wait_until("the replica is the master", || {
            let now = self.master()?;
            Ok(now != before && self.servers[now].info_contains("replication", "role:master")?)
        })
    }

    /// The index of the server that the sentinel reports as the master.
    fn master(&self) -> io::Result<usize> {
        let address = self.sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER])?;
        let found = self.servers.iter().position(|server| address.contains(&server.port().to_string()));
        found.ok_or_else(|| io::Error::other(format!("the sentinel names an unknown server: {address:?}")))
    }
}
