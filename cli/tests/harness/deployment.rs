//! Deployments: the processes that make up a whole chat API.

use std::path::{Path, PathBuf};

use chat_testing::kurrentdb::RealKurrentDb;
use chat_testing::postgres::Postgres;
use chat_testing::redis::Redis;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use super::client::Client;
use super::process::{Process, ProcessOptions};

/// Deployments on a real KurrentDB take turns: it has one log.
static TURNS: Mutex<()> = Mutex::const_new(());

/// A chat API of one or more processes, with its folder.
#[derive(Debug)]
pub struct Deployment {
    processes: Vec<Process>,
    client: Client,
    /// The URL of a log on a server; `None` if the log is in the folder.
    log_url: Option<String>,
    folder: PathBuf,
    // Fields are dropped in this order: the processes first, then the folder, then the turn.
    _temp_folder: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Deployment {
    /// Starts one process with all roles.
    pub async fn serve() -> Self {
        Self::serve_with(|options| options).await
    }

    /// Starts one process with all roles and the options that `configure` returns.
    pub async fn serve_with(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Self {
        let folder = folder();
        let process = configure(ProcessOptions::new("serve", folder.path())).start().await;
        let client = process.client();
        let processes = vec![process];
        Self::in_folder(processes, client, folder)
    }

    /// Starts one process for each role.
    pub async fn roles() -> Self {
        let folder = folder();
        let options = |role| ProcessOptions::new(role, folder.path());
        let commands = options("command-api").start().await;
        let projector = options("projector").start().await;
        let queries = options("query-api").start().await;
        let client = Client::routed([commands.url()], [queries.url()]);
        let processes = vec![commands, queries, projector];
        Self::in_folder(processes, client, folder)
    }

    fn in_folder(processes: Vec<Process>, client: Client, folder: TempDir) -> Self {
        let path = folder.path().to_owned();
        Self { processes, client, log_url: None, folder: path, _temp_folder: folder, _turn: None }
    }

    /// Starts three command APIs, a projector and two query APIs. The log and the read model are in Postgres, and the
    /// counters in Redis. If the environment names a KurrentDB, the log is there instead.
    pub async fn at_scale_with(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Self {
        let folder = folder();
        let (database, redis) = (Postgres::shared().create_database(), Redis::shared().url());
        let (log_url, turn) = match RealKurrentDb::from_environment() {
            None => (database.clone(), None),
            Some(server) => {
                let turn = TURNS.lock().await;
                server.start_with_empty_log();
                (server.url().to_owned(), Some(turn))
            }
        };
        let spawn = |role| {
            let options = ProcessOptions::new(role, folder.path());
            let options = options.with("--event-store-url", &log_url).with("--database-url", &database);
            configure(options.with("--redis-url", &redis)).spawn()
        };
        let roles = ["command-api", "command-api", "command-api", "query-api", "query-api", "projector"];
        let mut processes: Vec<Process> = roles.into_iter().map(spawn).collect();
        for process in &mut processes {
            process.wait_for_address().await;
            process.wait_until_ready().await;
        }
        let urls: Vec<&str> = processes.iter().map(Process::url).collect();
        let client = Client::routed(urls[..3].iter().copied(), urls[3..5].iter().copied());
        let path = folder.path().to_owned();
        let log_url = Some(log_url);
        Self { processes, client, log_url, folder: path, _temp_folder: folder, _turn: turn }
    }

    /// Returns a client that sends each request to a process with the right role.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the folder of the data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the positions of the log have no gaps. In KurrentDB, positions are byte offsets.
    pub fn has_contiguous_positions(&self) -> bool {
        self.log_url.as_ref().is_none_or(|url| url.starts_with("postgres"))
    }

    /// Locks the log, so that nothing can be appended until the lock is released. Returns `None` for a log in
    /// KurrentDB, which can't be locked.
    #[expect(clippy::print_stderr, reason = "the person who runs the tests should know")]
    pub async fn lock_log(&self) -> Option<LockedLog> {
        match &self.log_url {
            None => {
                let log = rusqlite::Connection::open(self.folder.join("events.db")).expect("the log");
                log.execute_batch("BEGIN IMMEDIATE").expect("the log is free");
                Some(LockedLog::File(log))
            }
            Some(url) if !url.starts_with("postgres") => {
                eprintln!("not tested: a log in KurrentDB can't be locked");
                None
            }
            Some(url) => {
                let mut log = PgConnection::connect(url).await.expect("the log");
                let lock = "BEGIN; SELECT FROM chat_event_log.log FOR UPDATE";
                log.execute(lock).await.expect("the log is free");
                Some(LockedLog::Postgres(log))
            }
        }
    }

    /// Returns the processes.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }
}

/// A log that can't be appended to.
pub enum LockedLog {
    File(rusqlite::Connection),
    Postgres(PgConnection),
}

impl LockedLog {
    pub async fn release(self) {
        match self {
            Self::File(log) => log.execute_batch("ROLLBACK").expect("the log is released"),
            Self::Postgres(mut log) => drop(log.execute("ROLLBACK").await.expect("the log is released")),
        }
    }
}

/// Creates a temporary folder for a chat API's data. Dropping it removes the folder.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("chat-api-test-").tempdir().expect("a temporary folder")
}
