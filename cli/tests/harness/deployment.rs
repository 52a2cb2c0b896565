//! Deployments: the processes that make up a whole chat API.

use std::path::{Path, PathBuf};

use chat_testing::postgres::Postgres;
use chat_testing::redis::Redis;
use tempfile::TempDir;

use super::client::Client;
use super::process::{Process, ProcessOptions};

/// A chat API of one or more processes, with its folder.
#[derive(Debug)]
pub struct Deployment {
    processes: Vec<Process>,
    client: Client,
    folder: PathBuf,
    // Dropped last, after all processes.
    _temp_folder: TempDir,
}

impl Deployment {
    /// Starts one process with all roles.
    pub async fn serve() -> Self {
        Self::serve_with(|options| options).await
    }

    /// Starts one process with all roles and configured options.
    pub async fn serve_with(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Self {
        let folder = folder();
        let process = configure(ProcessOptions::new("serve", folder.path())).start().await;
        let client = process.client();
        Self { processes: vec![process], client, folder: folder.path().to_owned(), _temp_folder: folder }
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
        Self { processes, client, folder: folder.path().to_owned(), _temp_folder: folder }
    }

    /// Starts three command APIs, a projector and two query APIs on one log. The counters are in Redis, and the read
    /// model is in Postgres.
    pub async fn at_scale_with(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Self {
        let folder = folder();
        let (database, redis) = (Postgres::shared().create_database(), Redis::shared().url());
        let spawn = |role| {
            let options = ProcessOptions::new(role, folder.path());
            configure(options.with("--database-url", &database).with("--redis-url", &redis)).spawn()
        };
        let roles = ["command-api", "command-api", "command-api", "query-api", "query-api", "projector"];
        let mut processes: Vec<Process> = roles.into_iter().map(spawn).collect();
        for process in &mut processes {
            process.wait_for_address().await;
            process.wait_until_ready().await;
        }
        let urls: Vec<&str> = processes.iter().map(Process::url).collect();
        let client = Client::routed(urls[..3].iter().copied(), urls[3..5].iter().copied());
        Self { processes, client, folder: folder.path().to_owned(), _temp_folder: folder }
    }

    /// Returns a client of all processes.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the folder of the data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the processes.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }
}

/// Creates a temporary folder for a chat API's data. Dropping it removes the folder.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("chat-api-test-").tempdir().expect("a temporary folder")
}
