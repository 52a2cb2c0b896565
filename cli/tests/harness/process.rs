//! A process of the real binary.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use chat_testing::hosts::Host;
use chat_testing::pause::pause;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::deadline::{TIMEOUT, eventually};

/// The environment variables that the program reads. The processes do not inherit them from the test run.
const ENVIRONMENT: [&str; 33] = [
    "DATA_DIR",
    "LISTEN_ADDR",
    "ADMIN_LISTEN_ADDR",
    "ADMIN_TOKEN",
    "ALLOWED_HOSTS",
    "APP_CREATION",
    "RATE_LIMIT",
    "EVENT_STORE_URL",
    "DATABASE_URL",
    "SEARCH_INDEX_DIR",
    "REDIS_URL",
    "TRUSTED_PROXIES",
    "RUST_LOG",
    "LOG_FORMAT",
    "ACCESS_LOG",
    "MAX_IN_FLIGHT",
    "MAX_FOLLOWERS",
    "REQUEST_TIMEOUT",
    "DRAIN_TIMEOUT",
    "SHUTDOWN_DELAY",
    "CORS_ORIGINS",
    "LOG_CHECK_INTERVAL",
    "HTTP_MEMORY",
    "KEEP_PREVIOUS",
    "MAX_CONNECTIONS",
    "MAX_CONNECTIONS_PER_ADDRESS",
    "REPLAY_AUTHORIZATION",
    "CHAT_OPERATOR",
    "OPERATORS_FILE",
    "AUDIT_KEY_FILE",
    "CHAT_API_TOKEN",
    "COLUMNS",
    "NO_COLOR",
];

/// A command that starts the program without the variables of [`ENVIRONMENT`].
pub fn program() -> Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_chat-api")), None)
}

fn program_at(path: &Path, host: Option<&Host>) -> Command {
    let mut command = host.map_or_else(|| Command::new(path), |host| host.command(path, None));
    for variable in ENVIRONMENT {
        command.env_remove(variable);
    }
    command
}

/// The options of a process.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    role: &'static str,
    program: PathBuf,
    data_dir: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(&'static str, PathBuf)>,
    user: Option<u32>,
    host: Option<Host>,
}

impl ProcessOptions {
    /// Options for a process of this role, such as `serve`, with this data folder and a free port.
    pub fn new(role: &'static str, data_dir: &Path) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_chat-api"));
        Self {
            role,
            program,
            data_dir: data_dir.to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            user: None,
            host: None,
        }
    }

    /// Sets a flag to a value.
    #[must_use]
    pub fn with(mut self, flag: &str, value: &str) -> Self {
        match self.arguments.iter().position(|argument| argument == flag) {
            Some(index) => value.clone_into(&mut self.arguments[index + 1]),
            None => self.arguments.extend([flag.to_owned(), value.to_owned()]),
        }
        self
    }

    /// Returns the value of a flag, if it is set.
    pub fn value(&self, flag: &str) -> Option<&str> {
        let index = self.arguments.iter().position(|argument| argument == flag)?;
        self.arguments.get(index + 1).map(String::as_str)
    }

    /// Adds environment variables.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (&'static str, PathBuf)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// Runs the process as another user, and as the group with the same number. Only root can.
    #[must_use]
    pub fn with_user(self, user: u32) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Runs the process on a host.
    #[must_use]
    pub fn with_host(self, host: &Host) -> Self {
        Self { host: Some(host.clone()), ..self }
    }

    /// Runs another version of the program.
    #[must_use]
    pub fn with_program(self, program: &Path) -> Self {
        Self { program: program.to_owned(), ..self }
    }

    /// Starts the process, without waiting until it is ready.
    pub fn spawn(&self) -> Process {
        let mut command = program_at(&self.program, self.host.as_ref());
        command.arg(self.role).arg("--data-dir").arg(&self.data_dir);
        if !self.arguments.iter().any(|argument| argument == "--listen-addr") {
            command.args(["--listen-addr", "127.0.0.1:0"]);
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // The delay is for gateways. A test that needs it sets the flag.
        command.env("SHUTDOWN_DELAY", "0");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("the program starts");
        let stderr = child.stderr.take().expect("a pipe");
        let output = Arc::new(Mutex::new(String::new()));
        let shared_output = Arc::clone(&output);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = shared_output.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        });
        Process { child, output, reader: Some(reader), url: String::new() }
    }

    /// Starts the process, and waits until it has printed its address and is ready.
    pub async fn start(&self) -> Process {
        let mut process = self.spawn();
        process.wait_for_address().await;
        process.wait_until_ready().await;
        process
    }
}

/// A running process, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    /// The thread that reads stderr. The thread ends when the process has closed stderr.
    reader: Option<JoinHandle<()>>,
    url: String,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The URL that it listens on, such as `http://127.0.0.1:40123`.
    pub fn url(&self) -> &str {
        assert!(!self.url.is_empty(), "call wait_for_address first");
        &self.url
    }

    /// A client of this process alone.
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// The output on stderr so far.
    pub fn stderr(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has printed its address.
    pub async fn wait_for_address(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        self.url = loop {
            if let Some(url) = listening_on(&self.stderr()) {
                break url;
            }
            if let Some(status) = self.child.try_wait().expect("its state") {
                panic!("the process ended with {status}:\n{}", self.stderr());
            }
            assert!(Instant::now() < deadline, "the process has not printed its address:\n{}", self.stderr());
            sleep(Duration::from_millis(2)).await;
        };
    }

    /// Waits until `/readyz` reports that it is ready.
    pub async fn wait_until_ready(&self) {
        let client = self.client();
        // The output at the end of the wait.
        let condition =
            fmt::from_fn(|f| write!(f, "the process is ready, after this output: {}", self.stderr()));
        eventually(condition, async || {
            let reply = client.get("/readyz").try_send().await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    /// Waits until each of its projections has folded the log up to this position.
    pub async fn wait_until_folded(&self, position: u64) {
        let client = self.client();
        eventually(&format!("everything folded up to {position}"), async || {
            let ready = client.get("/readyz").try_send().await.ok()?.json();
            let positions =
                ready["parts"].as_array()?.iter().filter_map(|part| part["projection"]["position"].as_u64());
            let positions: Vec<u64> = positions.collect();
            (!positions.is_empty() && positions.iter().all(|reached| *reached >= position)).then_some(())
        })
        .await;
    }

    /// Waits until its projections have nothing left to fold, and returns the position that all of them have reached.
    /// Nothing may be written meanwhile.
    pub async fn wait_until_caught_up(&self) -> u64 {
        let client = self.client();
        eventually("nothing left to fold", async || {
            let ready = client.get("/readyz").try_send().await.ok()?.json();
            let projections: Vec<_> = ready["parts"]
                .as_array()?
                .iter()
                .map(|part| &part["projection"])
                .filter(|projection| projection.is_object())
                .collect();
            let has_caught_up =
                projections.iter().all(|projection| match projection["lag_events"].as_u64() {
                    Some(events) => events == 0,
                    // `lag_events` is left out if positions of the log do not count events (KurrentDB).
                    None => projection["state"] == "live" && projection["lag_ms"] == 0,
                });
            let reached =
                projections.iter().map(|projection| projection["position"].as_u64().unwrap_or(0)).min()?;
            has_caught_up.then_some(reached)
        })
        .await
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_some()
    }

    /// Kills it (SIGKILL).
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("its end");
    }

    /// Requests a shutdown (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Pauses it (SIGSTOP): its connections stay open, and it does not respond.
    pub fn pause(&self) {
        pause(&[self.child.id()]).expect("the process stops");
    }

    /// Resumes it after a pause.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        // The standard library can't send signals other than SIGKILL.
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid).status().expect("the program kill");
        assert!(sent.success(), "SIG{name} could not be sent");
    }

    /// Waits until it exits. Returns the status and the output on stderr.
    pub async fn wait_for_exit(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("the thread that reads stderr");
                }
                return (status, self.stderr());
            }
            assert!(Instant::now() < deadline, "the process does not end:\n{}", self.stderr());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Requests a shutdown, waits for it, and asserts success.
    pub async fn shut_down(self) {
        self.terminate();
        let (status, output) = self.wait_for_exit().await;
        assert!(status.success(), "the process ended with {status}:\n{output}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the first URL in the output.
fn listening_on(output: &str) -> Option<String> {
    // Only complete lines: the last one may still be incomplete.
    let (lines, _) = output.rsplit_once('\n')?;
    let (_, rest) = lines.split_once("http://")?;
    let address: String =
        rest.chars().take_while(|letter| letter.is_ascii_digit() || ".:[]".contains(*letter)).collect();
    Some(format!("http://{address}"))
}
