//! Helpers for tests of operator commands: a log with known events on each engine, and the output of the program.

#![allow(dead_code, reason = "each test program uses only some of the helpers")]

use std::path::Path;
use std::process::Output;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Revision, Timestamp};
use chat_kurrentdb::{KurrentDbEventStore, KurrentDbUrl};
use chat_ports::event_store::{EventStore, NewEvent, RecordedEvent, StreamAppend};
use chat_postgres::{PostgresEventStore, PostgresUrl};
use chat_sqlite::SqliteEventStore;
use chat_testing::kurrentdb::FakeKurrentDb;
use chat_testing::postgres::Postgres;
use tempfile::TempDir;
use uuid::Uuid;

use crate::harness::deployment::folder;
use crate::harness::process::program;

/// The number of events that a constructor of [`TestLog`] appends.
pub const EVENTS: u64 = 12;

/// A well-formed app token.
const APP_TOKEN: &str = "4Vq9xKbT2mWcJz8RfNs6HyPdGu3LaEtX5Q7C";

/// A log, and a folder for files.
pub struct TestLog {
    /// The name in snapshots.
    pub name: &'static str,
    pub folder: TempDir,
    /// The server that has the log; `None` if the log is a file in the folder.
    pub server: Option<LogServer>,
}

/// A server that has a log.
pub enum LogServer {
    KurrentDb(FakeKurrentDb),
    /// The URL of a database.
    Postgres(String),
}

impl LogServer {
    /// Starts the fake KurrentDB.
    pub fn kurrentdb() -> Self {
        Self::KurrentDb(FakeKurrentDb::start().expect("a server"))
    }

    /// Creates a database.
    pub fn postgres() -> Self {
        Self::Postgres(Postgres::shared().create_database())
    }

    /// Returns the value of `--event-store-url`.
    pub fn url(&self) -> String {
        match self {
            Self::KurrentDb(server) => server.url(),
            Self::Postgres(url) => url.clone(),
        }
    }
}

/// Opens the log at a URL of KurrentDB or Postgres.
pub async fn open_log_at(url: &str) -> Box<dyn EventStore> {
    if let Ok(url) = PostgresUrl::parse(url) {
        return Box::new(PostgresEventStore::open(&url).await.expect("a log"));
    }
    let url = KurrentDbUrl::parse(url).expect("a URL");
    Box::new(KurrentDbEventStore::open(&url).await.expect("a log"))
}

/// The output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl TestLog {
    /// Creates a log in a file.
    pub async fn sqlite() -> Self {
        let test_log = Self { name: "sqlite", folder: folder(), server: None };
        fill(&*test_log.log().await, EVENTS).await;
        test_log
    }

    /// Creates a log in the fake KurrentDB.
    pub async fn kurrentdb() -> Self {
        let test_log = Self { name: "kurrentdb", folder: folder(), server: Some(LogServer::kurrentdb()) };
        fill(&*test_log.log().await, EVENTS).await;
        test_log
    }

    /// Creates a log in Postgres.
    pub async fn postgres() -> Self {
        let test_log = Self { name: "postgres", folder: folder(), server: Some(LogServer::postgres()) };
        fill(&*test_log.log().await, EVENTS).await;
        test_log
    }

    /// Creates one log on each engine.
    pub async fn on_each_engine() -> [Self; 3] {
        [Self::sqlite().await, Self::postgres().await, Self::kurrentdb().await]
    }

    /// Opens the log.
    pub async fn log(&self) -> Box<dyn EventStore> {
        match &self.server {
            None => Box::new(SqliteEventStore::open(&self.path("events.db")).expect("a log")),
            Some(server) => open_log_at(&server.url()).await,
        }
    }

    /// Reads all events.
    pub async fn events(&self) -> Vec<RecordedEvent> {
        self.log().await.read_all(Position::START, 1_000_000).await.expect("the log")
    }

    /// Returns the path of a file in the folder.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the path of a file in the folder as text.
    pub fn path_text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path").to_owned()
    }

    /// Returns the arguments that locate the log.
    pub fn log_arguments(&self) -> Vec<String> {
        match &self.server {
            None => vec!["--data-dir".to_owned(), self.folder.path().to_str().expect("a path").to_owned()],
            Some(server) => vec!["--event-store-url".to_owned(), server.url()],
        }
    }

    /// Runs a command on the log, in the folder.
    pub fn run(&self, arguments: &[&str]) -> CommandOutput {
        run(self.folder.path(), arguments, &self.log_arguments())
    }

    /// Runs a command in the folder, without the arguments that locate the log.
    pub fn run_without_log_arguments(&self, arguments: &[&str]) -> CommandOutput {
        run(self.folder.path(), arguments, &[])
    }
}

impl CommandOutput {
    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Returns standard output and standard error. Replaces the parts that differ between runs: the first text of each
    /// pair in `variable_parts` by the second one, and the path of the folder by `[folder]`.
    pub fn redacted(&self, test_log: &TestLog, variable_parts: &[(&str, &str)]) -> String {
        let mut redacted = format!("{}--\n{}", self.stdout, self.stderr);
        let folder = test_log.folder.path().to_str().expect("a path");
        for (part, name) in variable_parts.iter().copied().chain([(folder, "[folder]")]) {
            assert!(!part.is_empty(), "{name} is empty");
            redacted = redacted.replace(part, name);
        }
        redacted
    }
}

fn run(folder: &Path, arguments: &[&str], log_arguments: &[String]) -> CommandOutput {
    let mut command = program();
    command.current_dir(folder).args(arguments).args(log_arguments).env("CHAT_OPERATOR", "alice@ops-1");
    command.output().expect("the program runs").into()
}

impl From<Output> for CommandOutput {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// Appends `count` fixed events to three chats of an app.
pub async fn fill(log: &dyn EventStore, count: u64) {
    const MAX_APPEND_EVENTS: u64 = 3_000;
    let event = |index: u64| {
        NewEvent {
        id: EventId::new(Uuid::from_u128(u128::from(index) + 1)),
        event_type: "MessageCreated",
        schema_version: SchemaVersion::FIRST,
        recorded_at: Timestamp::from_millis(1_790_000_000_000 + i64::try_from(index).expect("few")),
        data: format!(r#"{{"message_number":{},"body":"message {index}"}}"#, index / 3 + 1),
        metadata: format!(
            r#"{{"command":"CreateMessage","actor":{{"kind":"app"}},"correlation_id":"c-{index}","causation_id":"r-{index}"}}"#
        )
        .into(),
    }
    };
    let mut appended = 0;
    while appended < count {
        // A short log gets its events one by one, in alternating streams. A long log gets large appends, which keep the
        // events of a stream together.
        let next_count = if count < MAX_APPEND_EVENTS { 1 } else { MAX_APPEND_EVENTS.min(count - appended) };
        let chats = 3.min(next_count);
        let appends = (0..chats).map(|offset| {
            let indexes: Vec<u64> = (appended..appended + next_count)
                .filter(|index| (index - appended) % chats == offset)
                .collect();
            let chat = if next_count == 1 { appended % 3 } else { offset };
            let stream_length = if next_count == 1 { appended / 3 } else { appended / chats };
            StreamAppend {
                stream: format!("chat-{APP_TOKEN}-{}", chat + 1).into(),
                expected_revision: ExpectedRevision::from_last_revision(
                    stream_length.checked_sub(1).map(Revision::new),
                ),
                events: indexes.into_iter().map(event).collect(),
            }
        });
        for outcome in log.append(appends.collect()).await {
            outcome.expect("an append");
        }
        appended += next_count;
    }
}
