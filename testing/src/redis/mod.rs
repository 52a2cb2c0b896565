//! Private Redis instances: a single server, a cluster, and a master with a replica and sentinels.
//!
//! Calls block the thread, also in asynchronous tests.

mod cluster;
mod instance;
mod resp;
mod sentinel;

use std::env;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use instance::{RedisInstance, RestartData};
use tempfile::TempDir;

pub use cluster::RedisCluster;
pub use sentinel::RedisSentinel;

/// A single server with an append-only file.
#[derive(Debug)]
pub struct Redis {
    instance: RedisInstance,
    /// An earlier copy of the data.
    copy: Option<TempDir>,
}

impl Redis {
    /// The server that the tests of this process share. The first call starts it.
    ///
    /// # Panics
    ///
    /// Panics if it can't be started.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Redis> =
            LazyLock::new(|| Redis::start().unwrap_or_else(|error| panic!("Redis does not start: {error}")));
        &SHARED
    }

    /// Starts an empty server.
    pub fn start() -> io::Result<Self> {
        Self::start_in(&env::temp_dir(), "no")
    }

    /// Starts an empty server with its files in a folder below `parent`, and with this `appendfsync` setting.
    pub fn start_in(parent: &Path, appendfsync: &str) -> io::Result<Self> {
        let options = ["--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""];
        Ok(Self { instance: RedisInstance::start_in(parent, &options, |_| true)?, copy: None })
    }

    /// The URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.instance.address())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.instance.port()
    }

    /// Sends one command. The reply is flat: the strings and numbers of nested arrays in order, without nil.
    pub fn command(&self, arguments: &[&str]) -> io::Result<Vec<String>> {
        self.instance.command(arguments)
    }

    /// Removes all keys.
    pub fn flush(&self) -> io::Result<()> {
        self.command(&["FLUSHALL"]).map(drop)
    }

    /// Kills the server, starts it with its data, and waits until it answers.
    pub fn restart(&mut self) -> io::Result<()> {
        self.instance.restart(RestartData::Kept)
    }

    /// Kills the server, starts it without data, and waits until it answers.
    pub fn restart_empty(&mut self) -> io::Result<()> {
        self.instance.restart(RestartData::Empty)
    }

    /// Copies the server's data for [`Redis::restart_from_copy`].
    pub fn copy_data(&mut self) -> io::Result<()> {
        let copy = tempfile::Builder::new().prefix("chat-redis-copy-").tempdir()?;
        self.instance.copy_data(copy.path())?;
        self.copy = Some(copy);
        Ok(())
    }

    /// Kills the server, starts it with the data of the last copy, and waits until it answers. Without a copy, it starts
    /// empty. This simulates a failover to a replica that is behind.
    pub fn restart_from_copy(&mut self) -> io::Result<()> {
        let data = self.copy.as_ref().map_or(RestartData::Empty, |copy| RestartData::Copied(copy.path()));
        self.instance.restart(data)
    }

    /// Pauses the server (SIGSTOP): connections stay open without responses.
    pub fn pause(&self) -> io::Result<()> {
        self.instance.pause()
    }

    /// Resumes a paused server.
    pub fn resume(&self) -> io::Result<()> {
        self.instance.signal("CONT")
    }

    /// Kills the server (SIGKILL). [`Redis::restart`] starts it again.
    pub fn kill(&mut self) -> io::Result<()> {
        self.instance.kill()
    }
}
