//! Private instances of Redis: one server, a cluster, and a server that a sentinel watches over.
//!
//! Calls block, briefly: they are for tests, asynchronous ones too.

mod cluster;
mod instance;
mod resp;
mod sentinel;

use std::env;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use instance::RedisInstance;

pub use cluster::RedisCluster;
pub use sentinel::RedisSentinel;

/// One server, which keeps its data in an append-only file.
#[derive(Debug)]
pub struct Redis {
    instance: RedisInstance,
}

impl Redis {
    /// The server that this process's tests share, started when it is first asked for.
    ///
    /// # Panics
    ///
    /// Where it can't be started.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Redis> =
            LazyLock::new(|| Redis::start().unwrap_or_else(|error| panic!("Redis does not start: {error}")));
        &SHARED
    }

    /// Starts an empty server.
    pub fn start() -> io::Result<Self> {
        Self::start_in(&env::temp_dir(), "no")
    }

    /// Starts an empty server with its files below this folder, which syncs them as often as `appendfsync` says.
    pub fn start_in(parent: &Path, appendfsync: &str) -> io::Result<Self> {
        let options = ["--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""];
        Ok(Self { instance: RedisInstance::start_in(parent, &options, |_| true)? })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://{}", self.instance.address())
    }

    /// Its port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.instance.port()
    }

    /// Sends one command. The answer is flat: the texts and numbers of nested lists in order, without what is nil.
    pub fn command(&self, arguments: &[&str]) -> io::Result<Vec<String>> {
        self.instance.command(arguments)
    }

    /// Removes all keys.
    pub fn flush(&self) -> io::Result<()> {
        self.command(&["FLUSHALL"]).map(drop)
    }

    /// Kills the server and starts it again with its data. Waits until it answers.
    pub fn restart(&mut self) -> io::Result<()> {
        self.instance.restart(true)
    }

    /// Kills the server and starts it again with nothing. Waits until it answers.
    pub fn restart_empty(&mut self) -> io::Result<()> {
        self.instance.restart(false)
    }

    /// Stops the server where it is (SIGSTOP): connections stay, and nothing is answered.
    pub fn pause(&self) -> io::Result<()> {
        self.instance.signal("STOP")
    }

    /// Lets a paused server go on.
    pub fn resume(&self) -> io::Result<()> {
        self.instance.signal("CONT")
    }

    /// Kills the server (SIGKILL). [`Redis::restart`] brings it back.
    pub fn kill(&mut self) -> io::Result<()> {
        self.instance.kill()
    }
}
