//! A real KurrentDB, which the person who runs the tests provides.

use std::env;
use std::process::{Command, Stdio};

/// The variable with the connection string of the server.
const URL: &str = "KURRENTDB_URL";
/// The variable with the command that starts and stops the server.
const COMMAND: &str = "KURRENTDB_COMMAND";

/// The KurrentDB that the environment names.
///
/// `KURRENTDB_COMMAND` is called with `empty` to start all nodes with an empty log, and with `stop` or `start` and a
/// number to stop or start a node. Any number names a node: the command takes it modulo the number of nodes.
#[derive(Clone, Debug)]
pub struct RealKurrentDb {
    url: String,
    has_command: bool,
}

impl RealKurrentDb {
    /// Returns the server, if the environment names one.
    pub fn from_environment() -> Option<Self> {
        Some(Self { url: env::var(URL).ok()?, has_command: env::var_os(COMMAND).is_some() })
    }

    /// Its connection string.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it can be started and stopped.
    pub fn has_command(&self) -> bool {
        self.has_command
    }

    /// Starts all nodes with an empty log. They may not answer yet.
    ///
    /// # Panics
    ///
    /// Panics if there is no command for that, or if it fails. So do the methods below.
    pub fn start_with_empty_log(&self) {
        Self::run(&["empty"]);
    }

    /// Stops a node.
    pub fn stop_node(&self, number: usize) {
        Self::run(&["stop", &number.to_string()]);
    }

    /// Starts a node again.
    pub fn start_node(&self, number: usize) {
        Self::run(&["start", &number.to_string()]);
    }

    fn run(arguments: &[&str]) {
        let command = env::var(COMMAND).unwrap_or_else(|_| {
            panic!("{URL} is set, and this test needs {COMMAND} too: docs/operations/kurrentdb.md says how")
        });
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{command} \"$@\""), "sh"]).args(arguments);
        let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "{COMMAND} {} failed", arguments.join(" "));
    }
}
