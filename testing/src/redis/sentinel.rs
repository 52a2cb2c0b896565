//! A Redis master, its replica, and the sentinels that replace the master by the replica.

use std::io;

use super::instance::{RedisInstance, RestartData, wait_until};
use crate::hosts::Host;

/// The name of the master.
const MASTER: &str = "numbers";

/// The options of master and replica.
const SERVER_OPTIONS: &[&str] = &["--repl-diskless-sync-delay", "0", "--save", ""];

/// The port of a server that is started on a [`Host`].
const PORT: u16 = 6_379;

/// The port of a sentinel that is started on a [`Host`].
const SENTINEL_PORT: u16 = 26_379;

/// The time limits of sentinels, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct FailoverTimes {
    /// The time after which a silent server counts as down, and is replaced if it is the master.
    down_after: &'static str,
    /// The time limit of each step of a failover.
    failover_timeout: &'static str,
}

/// For servers on one host. They fail over on demand only, because a busy machine may make the master silent. The
/// sentinels give up a failover that does not finish in 10 s, so that the test can ask for another one in time.
const ON_DEMAND: FailoverTimes = FailoverTimes { down_after: "60000", failover_timeout: "10000" };

/// For servers on hosts that may vanish.
const AUTOMATIC: FailoverTimes = FailoverTimes { down_after: "1000", failover_timeout: "2000" };

/// A master, a replica, and sentinels.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: [RedisInstance; 2],
    sentinels: Vec<RedisInstance>,
}

impl RedisSentinel {
    /// Starts the servers with one sentinel, and waits until the sentinel monitors both servers. It replaces the master
    /// on demand only: see [`RedisSentinel::fail_over`].
    pub fn start() -> io::Result<Self> {
        let server = || RedisInstance::start(SERVER_OPTIONS, |_| true);
        let sentinel = RedisInstance::start(&["--sentinel"], |_| true)?;
        Self::join([server()?, server()?], vec![sentinel], ON_DEMAND)
    }

    /// Starts the servers on two hosts, and a sentinel on each host of `sentinels`. A majority of the sentinels decides
    /// on a failover.
    pub fn start_on(servers: [&Host; 2], sentinels: &[&Host]) -> io::Result<Self> {
        let [master, replica] = servers.map(|host| RedisInstance::start_on(host, PORT, SERVER_OPTIONS));
        let sentinels =
            sentinels.iter().map(|host| RedisInstance::start_on(host, SENTINEL_PORT, &["--sentinel"]));
        Self::join([master?, replica?], sentinels.collect::<io::Result<_>>()?, AUTOMATIC)
    }

    fn join(
        servers: [RedisInstance; 2],
        sentinels: Vec<RedisInstance>,
        times: FailoverTimes,
    ) -> io::Result<Self> {
        let started = Self { servers, sentinels };
        let [master, replica] = &started.servers;
        let (ip_address, port) = (master.address().ip().to_string(), master.port().to_string());
        replica.command(&["REPLICAOF", &ip_address, &port])?;
        wait_until("the replica follows", || replica.info_contains("replication", "master_link_status:up"))?;
        let majority = (started.sentinels.len() / 2 + 1).to_string();
        for sentinel in &started.sentinels {
            sentinel.command(&["SENTINEL", "MONITOR", MASTER, &ip_address, &port, &majority])?;
            let options =
                [("down-after-milliseconds", times.down_after), ("failover-timeout", times.failover_timeout)];
            for (option, millis) in options {
                sentinel.command(&["SENTINEL", "SET", MASTER, option, millis])?;
            }
        }
        let other_sentinels = started.sentinels.len() - 1;
        for sentinel in &started.sentinels {
            wait_until("the sentinel knows the replica and the other sentinels", || {
                let replicas = sentinel.command(&["SENTINEL", "REPLICAS", MASTER])?;
                let sentinels = sentinel.command(&["SENTINEL", "SENTINELS", MASTER])?;
                let known_sentinels = sentinels.iter().filter(|&text| text == "runid").count();
                Ok(replicas.contains(&replica.address().to_string()) && known_sentinels == other_sentinels)
            })?;
        }
        Ok(started)
    }

    /// The URL: the sentinels and the name of the master.
    pub fn url(&self) -> String {
        let addresses: Vec<String> =
            self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("redis+sentinel://{}/{MASTER}", addresses.join(","))
    }

    /// Makes the servers, and the sentinels too if `protects_sentinels`, ask for a password. Returns the URL with the
    /// password. Afterwards, each method that sends a command to a protected server or sentinel fails.
    pub fn set_password(&self, password: &str, protects_sentinels: bool) -> io::Result<String> {
        for server in &self.servers {
            server.command(&["CONFIG", "SET", "masterauth", password, "requirepass", password])?;
        }
        for sentinel in &self.sentinels {
            sentinel.command(&["SENTINEL", "SET", MASTER, "auth-pass", password])?;
            if protects_sentinels {
                sentinel.command(&["ACL", "SETUSER", "default", "resetpass", &format!(">{password}")])?;
            }
        }
        Ok(self.url().replacen("://", &format!("://:{password}@"), 1))
    }

    /// Removes all keys.
    pub fn flush(&self) -> io::Result<()> {
        self.servers[self.master()?].command(&["FLUSHALL"]).map(drop)
    }

    /// Makes the replica the master, and waits until a sentinel reports it as the master and it calls itself one.
    pub fn fail_over(&self) -> io::Result<()> {
        let old_master = self.master()?;
        let sentinel = &self.sentinels[0];
        wait_until("the replica is the master", || {
            let state = sentinel.command(&["SENTINEL", "MASTER", MASTER])?;
            let is_in_progress = state.iter().any(|text| text.contains("failover_in_progress"));
            if !is_in_progress && self.master()? == old_master {
                // The sentinel refuses until it has monitored the replica long enough and the last failover has ended.
                // It also gives up a failover if the replica does not answer for a while, and must be asked again.
                if let Err(error) = sentinel.command(&["SENTINEL", "FAILOVER", MASTER])
                    && !["NOGOODSLAVE ", "INPROG "].iter().any(|code| error.to_string().starts_with(code))
                {
                    return Err(error);
                }
            }
            self.has_another_master(old_master)
        })
    }

    /// Waits until a sentinel reports another master than the server with the index `old_master`, and that other server
    /// calls itself the master.
    pub fn wait_for_another_master(&self, old_master: usize) -> io::Result<()> {
        wait_until("the replica is the master", || self.has_another_master(old_master))
    }

    fn has_another_master(&self, old_master: usize) -> io::Result<bool> {
        let now = self.master()?;
        Ok(now != old_master && self.servers[now].info_contains("replication", "role:master")?)
    }

    /// Kills a server (SIGKILL).
    pub fn kill(&mut self, server: usize) -> io::Result<()> {
        self.servers[server].kill()
    }

    /// Starts a killed server without data, as the replica of the other one. The sentinels would also make it the
    /// replica, but only after seconds.
    pub fn restart_as_replica(&mut self, server: usize) -> io::Result<()> {
        self.servers[server].restart(RestartData::Empty)?;
        let master = self.servers[1 - server].address();
        let arguments = ["REPLICAOF", &master.ip().to_string(), &master.port().to_string()];
        self.servers[server].command(&arguments).map(drop)
    }

    /// Waits until both servers work: one as the master and the other as its replica.
    pub fn wait_until_replicated(&self) -> io::Result<()> {
        wait_until("the replica follows", || {
            let replica = 1 - self.master()?;
            self.servers[replica].info_contains("replication", "master_link_status:up")
        })
    }

    /// The index of the server that a sentinel reports as the master.
    pub fn master(&self) -> io::Result<usize> {
        let mut last_error = io::ErrorKind::NotConnected.into();
        for sentinel in &self.sentinels {
            match sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]) {
                Ok(address) => {
                    let address = address.join(":");
                    let found =
                        self.servers.iter().position(|server| server.address().to_string() == address);
                    return found.ok_or_else(|| {
                        io::Error::other(format!("the sentinel names an unknown server: {address}"))
                    });
                }
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }
}
