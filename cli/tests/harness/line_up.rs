//! The processes that make up a whole chat API, on one folder.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::client::Client;
use super::process::{Options, Process};

/// A chat API of one or more processes, with its folder.
#[derive(Debug)]
pub struct LineUp {
    processes: Vec<Process>,
    client: Client,
    folder: PathBuf,
    // Removed last, when every process is gone.
    _owned: TempDir,
}

impl LineUp {
    /// One process that does everything.
    pub async fn serve() -> Self {
        Self::serve_with(|options| options).await
    }

    /// One process that does everything, with more flags.
    pub async fn serve_with(more: impl FnOnce(Options) -> Options) -> Self {
        let folder = folder();
        let process = more(Options::new("serve", folder.path())).start().await;
        let client = process.client();
        Self { processes: vec![process], client, folder: folder.path().to_owned(), _owned: folder }
    }

    /// One process a role.
    pub async fn roles() -> Self {
        let folder = folder();
        let of = |role| Options::new(role, folder.path());
        let commands = of("command-api").start().await;
        let projector = of("projector").start().await;
        let queries = of("query-api").start().await;
        let client = Client::routed(commands.url(), queries.url());
        let processes = vec![commands, queries, projector];
        Self { processes, client, folder: folder.path().to_owned(), _owned: folder }
    }

    /// A client of the whole.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The folder of its data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its processes.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }
}

/// A folder for a chat API's data, removed when dropped.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("chat-api-test-").tempdir().expect("a temporary folder")
}
