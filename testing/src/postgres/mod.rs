//! Private Postgres instances.

mod replication;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::hosts::Host;
use crate::install::{Program, find_or_install};
use crate::pause::pause;
use crate::port;
use crate::supervised_server::{Server, SupervisedServer, tail_log};

/// The program that is searched for. The other programs are in the same folder.
const INITDB: Program = Program {
    name: "initdb",
    title: "Postgres",
    debian_package: "postgresql",
    homebrew_package: "postgresql@17",
    search_folders: &["/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/*/bin", "/usr/local/opt/*/bin"],
};

/// The time limit of each wait for the server. Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The time between two checks of the server.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Settings that differ from Postgres's defaults. Files are not synced. That is safe here: a killed server loses no
/// data, because the operating system keeps its cache.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "max_connections=300",
    "shared_buffers=64MB",
    "fsync=off",
    "full_page_writes=off",
];

/// The port of a server on a host of its own.
const PORT_ON_HOST: u16 = 5_432;

/// A private Postgres instance with its files in a temporary folder. Clients connect over TCP with a password.
#[derive(Debug)]
pub struct Postgres {
    bin_folder: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
    /// The host that it runs on, if other than the test's.
    host: Option<Host>,
    port: u16,
    password: String,
    /// The last one is the running server. Ended ones are kept, because dropping a supervisor removes the folder, which
    /// is still in use.
    servers: Vec<SupervisedServer>,
    /// Settings that override [`SETTINGS`].
    settings: Vec<String>,
    is_running: bool,
}

impl Postgres {
    /// The instance that the tests of this process share. It ends with the process.
    ///
    /// # Panics
    ///
    /// Panics if it can't be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts an instance for one test, which may restart, kill and pause it. It ends when it is dropped.
    ///
    /// # Panics
    ///
    /// Panics if it can't be started.
    pub fn start() -> Self {
        Self::start_in(&std::env::temp_dir(), &[])
    }

    /// Starts an instance with its files in a folder below `parent`, and with settings such as `fsync=on` that override
    /// those of tests.
    ///
    /// # Panics
    ///
    /// Panics if it can't be started.
    pub fn start_in(parent: &Path, settings: &[&str]) -> Self {
        let mut postgres = Self::prepare(parent, None, settings);
        postgres.run_initdb();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let port = port::find_free_for_restarts();
            postgres.port = port.unwrap_or_else(|error| panic!("no port is free: {error}"));
            if postgres.launch() {
                return postgres;
            }
            // Another process may have taken the port.
            assert!(
                Instant::now() < deadline,
                "Postgres does not start:\n{}",
                tail_log(&postgres.log_file())
            );
        }
    }

    /// Runs a statement as the superuser, through the socket in the server's folder. Returns the rows as text.
    ///
    /// # Panics
    ///
    /// Panics if it fails.
    pub fn execute(&self, statement: &str) -> String {
        let mut psql = self.client_command("psql");
        psql.args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--command",
            statement,
        ]);
        let output = psql.stdout(Stdio::piped()).output();
        let output = output.unwrap_or_else(|error| panic!("psql can't be run: {error}"));
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits until the statement `condition` returns true.
    fn wait_until(&self, condition: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while self.execute(condition) != "t" {
            assert!(
                Instant::now() < deadline,
                "timed out waiting for: {condition}\n{}",
                tail_log(&self.log_file())
            );
            sleep(POLL_INTERVAL);
        }
    }

    /// Creates an instance that has no data and is not started.
    fn prepare(parent: &Path, host: Option<&Host>, settings: &[&str]) -> Self {
        let bin_folder = find_or_install(&INITDB).parent().map(Path::to_owned).unwrap_or_default();
        let user = unprivileged_user();
        let folder = tempfile::Builder::new().prefix("chat-postgres-").tempdir_in(parent);
        let folder = folder.unwrap_or_else(|error| panic!("no temporary folder: {error}")).keep();
        let password = Uuid::new_v4().simple().to_string();
        fs::write(folder.join("password"), &password)
            .unwrap_or_else(|error| panic!("no password file for Postgres: {error}"));
        if let Some((user, group)) = user {
            for path in [&folder, &folder.join("password")] {
                chown(path, Some(user), Some(group)).unwrap_or_else(|error| {
                    panic!("the files can't be given to the user of Postgres: {error}")
                });
            }
        }
        Self {
            bin_folder,
            folder,
            user,
            host: host.cloned(),
            port: PORT_ON_HOST,
            password,
            servers: Vec::new(),
            settings: settings.iter().map(ToString::to_string).collect(),
            is_running: false,
        }
    }

    /// The address for clients.
    pub fn address(&self) -> Ipv4Addr {
        self.host.as_ref().map_or(Ipv4Addr::LOCALHOST, Host::address)
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Panics
    ///
    /// Panics if Postgres refuses.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let output = self.client_command("createdb").arg(&name).output();
        let output = output.unwrap_or_else(|error| panic!("createdb can't be run: {error}"));
        assert!(output.status.success(), "no database: {}", String::from_utf8_lossy(&output.stderr));
        let (password, address, port) = (&self.password, self.address(), self.port);
        format!("postgres://postgres:{password}@{address}:{port}/{name}")
    }

    /// The port of [`Postgres::address`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password in each URL. Logs and errors must not contain it.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Stops the server if it runs, and starts it with the same files on the same port. Connections are lost.
    ///
    /// # Panics
    ///
    /// Panics if it does not start.
    pub fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + TIMEOUT;
        while !self.launch() {
            assert!(
                Instant::now() < deadline,
                "Postgres does not start again:\n{}",
                tail_log(&self.log_file())
            );
        }
    }

    /// Stops the server as an operator does (`pg_ctl stop --mode fast`). [`Postgres::restart`] starts it again.
    ///
    /// # Panics
    ///
    /// Panics if it does not end.
    pub fn stop(&mut self) {
        self.signal_and_wait("INT", |postgres| vec![postgres.pid()]);
    }

    /// Kills the server and all its processes (SIGKILL). [`Postgres::restart`] starts it again.
    ///
    /// # Panics
    ///
    /// Panics if it does not end.
    pub fn kill(&mut self) {
        if self.is_running {
            // The main process starts the others. While it is paused, the list of processes stays complete.
            pause(&[self.pid()]).unwrap_or_else(|error| panic!("Postgres can't be paused: {error}"));
        }
        self.signal_and_wait("KILL", Self::process_ids);
    }

    /// Pauses the server and all its processes (SIGSTOP): connections stay open without responses.
    ///
    /// # Panics
    ///
    /// Panics if it can't be paused.
    pub fn pause(&self) {
        // The main process comes first because it starts the others.
        for processes in [vec![self.pid()], self.process_ids()] {
            pause(&processes).unwrap_or_else(|error| panic!("Postgres can't be paused: {error}"));
        }
    }

    /// Resumes a paused server.
    pub fn resume(&self) {
        send_signal("CONT", &self.process_ids());
    }

    fn signal_and_wait(&mut self, signal_name: &str, select_pids: impl FnOnce(&Self) -> Vec<u32>) {
        if !std::mem::take(&mut self.is_running) {
            return;
        }
        let processes = self.process_ids();
        send_signal(signal_name, &select_pids(self));
        let deadline = Instant::now() + TIMEOUT;
        // A remaining child would keep the shared memory, and the next server could not start.
        while processes.iter().any(|pid| is_alive(*pid)) {
            assert!(Instant::now() < deadline, "Postgres does not end:\n{}", tail_log(&self.log_file()));
            sleep(POLL_INTERVAL);
        }
    }

    fn run_initdb(&self) {
        let mut initdb = Command::new(self.bin_folder.join("initdb"));
        initdb.arg("--pgdata").arg(self.data_folder()).arg("--pwfile").arg(self.folder.join("password"));
        initdb.args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        initdb.args(["--no-sync", "--no-instructions"]).current_dir("/");
        if let Some((user, group)) = self.user {
            initdb.uid(user).gid(group);
        }
        let output = initdb.output().unwrap_or_else(|error| panic!("initdb can't be run: {error}"));
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the server. Returns `false` if it ended before it answered.
    fn launch(&mut self) -> bool {
        let text = |path: &Path| path.display().to_string();
        let mut command =
            vec![text(&self.bin_folder.join("postgres")), "-D".to_owned(), text(&self.data_folder())];
        let own = [format!("port={}", self.port), format!("unix_socket_directories={}", text(&self.folder))];
        let chosen = self.settings.iter().cloned();
        for setting in SETTINGS.iter().map(ToString::to_string).chain(chosen).chain(own) {
            command.extend(["-c".to_owned(), setting]);
        }
        let server = Server {
            command,
            user: self.user,
            host: self.host.clone(),
            log: self.log_file(),
            stop_signal: "QUIT",
            remove_on_exit: Some(self.folder.clone()),
        };
        let started = SupervisedServer::start(&server);
        self.servers.push(started.unwrap_or_else(|error| panic!("Postgres can't be run: {error}")));
        let deadline = Instant::now() + TIMEOUT;
        // The check uses the socket in the folder: on the port, another server might answer.
        while !self.client_command("pg_isready").status().is_ok_and(|status| status.success()) {
            assert!(Instant::now() < deadline, "Postgres does not answer:\n{}", tail_log(&self.log_file()));
            if !is_alive(self.pid()) {
                return false;
            }
            sleep(POLL_INTERVAL);
        }
        self.is_running = true;
        true
    }

    /// A command of a client program such as `psql`, connected to the server. Input and output are null by default.
    pub fn client_command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin_folder.join(name));
        command.env("PGHOST", &self.folder).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGPASSWORD", &self.password).env("PGDATABASE", "postgres");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn pid(&self) -> u32 {
        self.servers.last().map_or(0, SupervisedServer::pid)
    }

    /// The ids of the server's main process and its children.
    fn process_ids(&self) -> Vec<u32> {
        let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output();
        let listed = listed.unwrap_or_else(|error| panic!("ps can't be run: {error}"));
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let children = listed.lines().filter_map(|line| {
            let mut ids = line.split_whitespace().map(str::parse);
            let (Some(Ok(pid)), Some(Ok(parent))) = (ids.next(), ids.next()) else { return None };
            (parent == self.pid()).then_some(pid)
        });
        std::iter::once(self.pid()).chain(children).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The last supervisor ends the running server. The others only remove the folder.
        while let Some(server) = self.servers.pop() {
            drop(server);
        }
        // The supervisor's user can empty the folder, but perhaps not remove it from its parent.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The user and group for Postgres if this process runs as root: Postgres refuses to run as root.
fn unprivileged_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let answer = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
        String::from_utf8(answer.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let user_named = |name: &str| Some((id(&["-u", name])?, id(&["-g", name])?));
    let user = user_named("postgres").or_else(|| user_named("nobody"));
    assert!(user.is_some(), "Postgres refuses to run as root, and there is no user nobody");
    user
}

/// Sends a signal to each process that still exists.
fn send_signal(name: &str, processes: &[u32]) {
    let processes = processes.iter().map(ToString::to_string);
    let _ = Command::new("kill").arg(format!("-{name}")).args(processes).stderr(Stdio::null()).status();
}

/// Whether a process runs. A zombie does not.
fn is_alive(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
    state.is_ok_and(|state| !state.stdout.trim_ascii().is_empty() && !state.stdout.starts_with(b"Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(postgres: &Postgres, sql: &str) -> String {
        let answer = postgres
            .client_command("psql")
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", sql])
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_test_has_a_database_of_its_own_on_the_shared_instance() {
        let (one, two) = (Postgres::shared().create_database(), Postgres::shared().create_database());
        assert_ne!(one, two);
        assert!(one.starts_with("postgres://postgres:") && one.contains("@127.0.0.1:"), "{one}");
    }

    #[test]
    fn data_survives_restart_and_kill_but_drop_removes_data_and_server() {
        let mut postgres = Postgres::start();
        query(&postgres, "CREATE TABLE kept (n int)");
        postgres.restart();
        query(&postgres, "INSERT INTO kept VALUES (1)");
        postgres.kill();
        assert_eq!(query(&postgres, "SELECT n FROM kept"), "", "the killed server answered");
        postgres.restart();
        assert_eq!(query(&postgres, "SELECT n FROM kept"), "1");
        let (folder, pid) = (postgres.folder.clone(), postgres.pid());
        drop(postgres);
        assert!(!folder.exists() && !is_alive(pid), "the folder or the server is left after the drop");
    }

    #[test]
    fn a_paused_instance_answers_after_it_is_resumed() {
        let postgres = Postgres::start();
        postgres.pause();
        let silent = postgres.client_command("pg_isready").args(["--timeout", "1"]).status().unwrap();
        assert!(!silent.success(), "the paused server answered");
        postgres.resume();
        assert_eq!(query(&postgres, "SELECT 1"), "1");
    }
}
