//! Postgres on hosts of its own: a primary and its synchronous standby.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt;

use super::Postgres;
use crate::hosts::Host;
use crate::supervised_server::tail_log;

/// The settings of a server on a host of its own. With these timeouts it notices a dead network within seconds.
const REPLICATION_SETTINGS: &[&str] = &[
    "listen_addresses=0.0.0.0",
    "wal_sender_timeout=2s",
    "wal_receiver_timeout=2s",
    "wal_retrieve_retry_interval=200ms",
    "tcp_user_timeout=2000",
];

/// The name under which a standby connects to its primary.
const STANDBY_NAME: &str = "standby";

impl Postgres {
    /// Starts an instance on a host. Its transactions wait until a standby has stored them too, once
    /// [`Postgres::start_standby_on`] has started one.
    ///
    /// # Panics
    ///
    /// Panics if it can't be started.
    pub fn start_on(host: &Host) -> Self {
        let mut postgres = Self::prepare(&std::env::temp_dir(), Some(host), REPLICATION_SETTINGS);
        postgres.run_initdb();
        postgres.allow_connections();
        postgres.launch_on_host();
        postgres
    }

    /// Starts a synchronous standby of this server on another host, and waits until it follows.
    ///
    /// # Panics
    ///
    /// Panics if it can't be started.
    #[must_use]
    pub fn start_standby_on(&self, host: &Host) -> Self {
        let mut standby = Self::prepare(&std::env::temp_dir(), Some(host), REPLICATION_SETTINGS);
        standby.password.clone_from(&self.password);
        standby.follow(self);
        standby
    }

    /// Replaces the data of this server with the data of `primary`, starts this server as the standby of `primary`, and
    /// waits until it is synchronous. This server must not be running when this is called.
    ///
    /// # Panics
    ///
    /// Panics if it can't be started.
    pub fn follow(&mut self, primary: &Self) {
        let _ = fs::remove_dir_all(self.data_folder());
        let mut copy = primary.client_command("pg_basebackup");
        copy.arg("--pgdata")
            .arg(self.data_folder())
            .args(["--checkpoint=fast", "--no-sync"])
            // A base backup may stall for longer than the `wal_sender_timeout` of `REPLICATION_SETTINGS`.
            .env("PGOPTIONS", "-c wal_sender_timeout=1min")
            .current_dir("/");
        if let Some((user, group)) = self.user {
            copy.uid(user).gid(group);
        }
        let output = copy.output().unwrap_or_else(|error| panic!("pg_basebackup can't be run: {error}"));
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let signal_file = self.data_folder().join("standby.signal");
        fs::write(signal_file, "")
            .unwrap_or_else(|error| panic!("the copy can't be made a standby: {error}"));
        let (address, port, password) = (primary.address(), primary.port, &self.password);
        self.settings.retain(|setting| !setting.starts_with("primary_conninfo="));
        self.settings.push(format!(
            "primary_conninfo=host={address} port={port} user=postgres password={password} \
             application_name={STANDBY_NAME} connect_timeout=2"
        ));
        self.launch_on_host();
        primary.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY_NAME}'"));
        primary.execute("SELECT pg_reload_conf()");
        primary.wait_until("SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'");
    }

    /// Makes a standby the primary.
    ///
    /// # Panics
    ///
    /// Panics if it refuses.
    pub fn promote(&self) {
        self.execute("SELECT pg_promote()");
        self.wait_until("SELECT NOT pg_is_in_recovery()");
    }

    /// Lets clients and standbys of other hosts connect.
    fn allow_connections(&self) {
        let rules = "host all all all scram-sha-256\nhost replication all all scram-sha-256\n";
        let file = File::options().append(true).open(self.data_folder().join("pg_hba.conf"));
        file.and_then(|mut file| file.write_all(rules.as_bytes()))
            .unwrap_or_else(|error| panic!("the rules for connections can't be written: {error}"));
    }

    fn launch_on_host(&mut self) {
        assert!(self.launch(), "Postgres does not start:\n{}", tail_log(&self.log_file()));
    }
}
