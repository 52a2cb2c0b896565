//! A running system, and the operator's command line beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chat_postgres::PostgresUrl;
use chat_testing::postgres::Postgres;
use serde_json::Value;
use sqlx::{Connection, Executor};
use tempfile::TempDir;

use crate::harness::client::Client;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions, program};

/// The engines and processes of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One process, everything in files.
    Embedded,
    /// A command API and a projector with log and read model in Postgres, and two query hosts, one of which has its own
    /// search folder and search projector.
    AtScale,
}

/// A running system with its folder.
pub struct TestSystem {
    pub topology: Topology,
    processes: Vec<Process>,
    /// The flags that name the engines, with their values.
    engine_flags: Vec<(&'static str, String)>,
    client: Option<Client>,
    folder: TempDir,
}

impl TestSystem {
    /// Starts the engines, but no process.
    pub fn start_engines(topology: Topology) -> Self {
        let folder = folder();
        let engine_flags = match topology {
            Topology::Embedded => Vec::new(),
            Topology::AtScale => {
                let [log, database] = [(); 2].map(|()| Postgres::shared().create_database());
                vec![("--event-store-url", log), ("--database-url", database)]
            }
        };
        Self { topology, processes: Vec::new(), engine_flags, client: None, folder }
    }

    /// Starts the engines and all processes, and waits until they are ready.
    pub async fn start(topology: Topology) -> Self {
        let mut system = Self::start_engines(topology);
        system.start_processes().await;
        system
    }

    pub async fn start_processes(&mut self) {
        let other_folder = self.folder.path().join("another-host/search-index").display().to_string();
        let in_other_folder = |options: ProcessOptions| options.with("--search-index-dir", &other_folder);
        let all = match self.topology {
            Topology::Embedded => vec![self.options("serve")],
            Topology::AtScale => vec![
                self.options("command-api"),
                self.options("query-api"),
                in_other_folder(self.options("query-api")),
                in_other_folder(self.options("projector").with("--only", "search")),
                self.options("projector"),
            ],
        };
        self.processes = all.iter().map(ProcessOptions::spawn).collect();
        for process in &mut self.processes {
            process.wait_for_address().await;
            process.wait_until_ready().await;
        }
        let commands = self.processes[0].url().to_owned();
        let queries: Vec<&str> = self.query_processes().iter().map(Process::url).collect();
        self.client = Some(Client::routed([commands.as_str()], queries));
    }

    pub async fn end_processes(&mut self) {
        for process in self.processes.drain(..) {
            process.shut_down().await;
        }
    }

    /// Whether a process has logged a text.
    pub fn has_logged(&self, text: &str) -> bool {
        self.processes.iter().any(|process| process.stderr().contains(text))
    }

    /// Kills the process that has logged a text, and returns the URLs of the other processes that answer queries.
    pub fn kill_process_that_logged(&mut self, text: &str) -> Vec<String> {
        let index = self.processes.iter().position(|process| process.stderr().contains(text));
        let query_urls = self.query_processes().iter().map(|process| process.url().to_owned());
        let query_urls: Vec<String> = query_urls.collect();
        let killed = self.processes.remove(index.expect("a process that logged it"));
        let killed_url = killed.url().to_owned();
        killed.kill();
        query_urls.into_iter().filter(|url| *url != killed_url).collect()
    }

    fn options(&self, role: &'static str) -> ProcessOptions {
        // The previous generation can be dropped 12 seconds after a switch-over.
        let options = ProcessOptions::new(role, self.folder.path()).with("--keep-previous", "12");
        self.engine_flags.iter().fold(options, |options, (flag, value)| options.with(flag, value))
    }

    /// A client that sends each request to a process with the right role.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("running processes")
    }

    /// The processes that answer queries.
    pub fn query_processes(&self) -> &[Process] {
        match self.topology {
            Topology::Embedded => &self.processes[..1],
            Topology::AtScale => &self.processes[1..3],
        }
    }

    /// A client for each process that answers queries. Each client sends commands to the command API.
    pub fn clients(&self) -> Vec<Client> {
        let commands = self.command_process().url();
        self.query_processes().iter().map(|process| Client::routed([commands], [process.url()])).collect()
    }

    /// The process that takes commands.
    pub fn command_process(&self) -> &Process {
        &self.processes[0]
    }

    /// The process that runs a projector of each projection.
    pub fn projector_process(&self) -> &Process {
        self.processes.last().expect("running processes")
    }

    /// The URL of the log; `None` if the log is a file in the folder.
    pub fn event_store_url(&self) -> Option<&str> {
        self.flag("--event-store-url")
    }

    /// The value of a flag that names an engine, such as `--database-url`; `None` if the flag is not set.
    pub fn flag(&self, flag: &str) -> Option<&str> {
        self.engine_flags.iter().find(|(named, _)| *named == flag).map(|(_, value)| value.as_str())
    }

    /// The flags that name the data folder and the log.
    pub fn log_flags(&self) -> Vec<String> {
        let folder = self.folder().display().to_string();
        let url = self.event_store_url().map(|url| ["--event-store-url".to_owned(), url.to_owned()]);
        ["--data-dir".to_owned(), folder].into_iter().chain(url.into_iter().flatten()).collect()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns an operator command, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).arg("--data-dir").arg(self.folder.path()).env("NO_COLOR", "1");
        for (flag, value) in &self.engine_flags {
            command.arg(flag).arg(value);
        }
        command
    }

    /// Runs an operator command.
    pub async fn run(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs"));
        CommandOutput(output.await.expect("its end"))
    }

    /// Runs an operator command and returns its JSON output.
    pub async fn run_json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        let answer = self.run(&arguments).await;
        serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// The file of a generation of the read model.
    fn read_model_path(&self, generation: u32) -> PathBuf {
        match generation {
            1 => self.folder.path().join("read-model.db"),
            other => self.folder.path().join(format!("read-model.{other}.db")),
        }
    }

    /// Executes a statement that alters one row in a generation of the read model, bypassing the projector.
    pub async fn alter(&self, generation: u32, statement: &'static str) {
        if self.topology == Topology::Embedded {
            let database =
                rusqlite::Connection::open(self.read_model_path(generation)).expect("the read model");
            let altered = database.execute(statement, []).expect("an alteration");
            assert_eq!(altered, 1, "the number of altered rows is wrong");
            return;
        }
        let url = self.flag("--database-url").expect("a database");
        let schema = match generation {
            1 => PostgresUrl::DEFAULT_SCHEMA.to_owned(),
            other => format!("{}_{other}", PostgresUrl::DEFAULT_SCHEMA),
        };
        let mut database = sqlx::PgConnection::connect(url).await.expect("the database");
        let use_schema = format!("SET search_path TO {schema}");
        database.execute(sqlx::AssertSqlSafe(use_schema)).await.expect("the schema");
        let altered = database.execute(statement).await.expect("an alteration");
        assert_eq!(altered.rows_affected(), 1, "the number of altered rows is wrong");
    }
}

/// The output of an operator command.
#[derive(Debug)]
pub struct CommandOutput(pub Output);

impl CommandOutput {
    /// The standard output.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("text")
    }

    /// The standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("text")
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "{}\n{}", self.text(), self.stderr());
        self
    }
}
