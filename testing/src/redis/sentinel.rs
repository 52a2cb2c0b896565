//! A Redis server, its replica, and a sentinel that makes the replica the master when it is told to or has to.

use std::io;

use super::instance::{RedisInstance, wait_until};

/// What the sentinel calls the master.
const MASTER: &str = "numbers";

/// Two servers and the sentinel.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: [RedisInstance; 2],
    sentinel: RedisInstance,
}

impl RedisSentinel {
    /// Starts the servers and waits until the sentinel knows both.
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
        let address = started.servers[1].port().to_string();
        wait_until("the sentinel knows the replica", || {
            Ok(started.sentinel.command(&["SENTINEL", "REPLICAS", MASTER])?.contains(&address))
        })?;
        Ok(started)
    }

    /// Where it is: the sentinel and the name of the master.
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/{MASTER}", self.sentinel.address())
    }

    /// Removes all keys.
    pub fn flush(&self) -> io::Result<()> {
        self.servers[self.master()?].command(&["FLUSHALL"]).map(drop)
    }

    /// Makes the replica the master, and waits until the sentinel says so.
    pub fn fail_over(&self) -> io::Result<()> {
        let before = self.master()?;
        // It refuses while it has not heard enough of the replica, and while the last time is not over.
        let told = || Ok(self.sentinel.command(&["SENTINEL", "FAILOVER", MASTER]).is_ok());
        wait_until("the sentinel makes the replica the master", told)?;
        wait_until("the replica is the master", || {
            let now = self.master()?;
            Ok(now != before && self.servers[now].info_contains("replication", "role:master")?)
        })
    }

    /// Which server the sentinel takes for the master.
    fn master(&self) -> io::Result<usize> {
        let address = self.sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER])?;
        let found = self.servers.iter().position(|server| address.contains(&server.port().to_string()));
        found.ok_or_else(|| io::Error::other(format!("the sentinel names a stranger: {address:?}")))
    }
}
