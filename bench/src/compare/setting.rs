//! What all figures share, and the steps they are made of.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::blast::{Burst, Outcome, Source, blast};
use super::process::Server;
use super::requests::{Posts, messages_path};
use crate::caller::Caller;
use crate::client::{self, Call};

/// Keep-alive connections of a load.
pub const CONNECTIONS: usize = 64;

/// What is measured with, and how long.
pub struct Setting {
    /// The chat API.
    pub program: PathBuf,
    /// Where data folders are made.
    pub folder: PathBuf,
    /// What messages say.
    pub texts: Vec<String>,
    /// Rounds of each figure.
    pub rounds: usize,
    /// How long one side of a round is measured.
    pub duration: Duration,
    /// Messages where a figure is about many of them.
    pub messages: u64,
}

/// The chat API with an app and its chats.
pub struct Stage {
    /// The process.
    pub server: Server,
    /// The paths of the chats' messages.
    pub paths: Vec<String>,
    /// Held for as long as the process runs.
    _folder: TempDir,
}

#[derive(Deserialize)]
struct AppCreated {
    data: App,
}

#[derive(Deserialize)]
struct App {
    app_token: String,
}

impl Setting {
    /// A new chat API with so many chats.
    pub async fn stage(&self, chats: u64) -> io::Result<Stage> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&self.folder)?;
        let server = Server::chat_api(&self.program, folder.path(), &[]).await?;
        let mut caller = caller(&server)?;
        let app = Call::post("/api/v1/apps".to_owned(), &json!({ "name": "bench" }));
        let app: AppCreated = answer(&mut caller, &app).await?;
        let app = app.data.app_token;
        for _ in 0..chats {
            let chat = Call::post(format!("/api/v1/apps/{app}/chats"), &json!({}));
            let _: serde_json::Value = answer(&mut caller, &chat).await?;
        }
        let paths = (1..=chats).map(|chat| messages_path(&app, chat)).collect();
        Ok(Stage { server, paths, _folder: folder })
    }

    /// Posts as fast as it goes for as long as a side of a round lasts.
    pub async fn posts(&self, address: &str, paths: &[String]) -> io::Result<Outcome> {
        let source = Posts::new(paths.to_vec(), &self.texts, u64::MAX);
        self.at_full_speed(address, 201, Arc::new(source)).await
    }

    /// Sends as fast as it goes for as long as a side of a round lasts.
    pub async fn at_full_speed(
        &self,
        address: &str,
        expected: u16,
        source: Arc<dyn Source>,
    ) -> io::Result<Outcome> {
        let burst = Burst { connections: CONNECTIONS, duration: self.duration, rate: None };
        all_answered(blast(address, expected, burst, source).await?)
    }

    /// Where to write something for a server to read.
    pub fn file(&self, name: &str, content: &[u8]) -> io::Result<(TempDir, PathBuf)> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&self.folder)?;
        let path = folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok((folder, path))
    }

    /// The folder whose disk is measured.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A load of which something was refused measures something else.
pub fn all_answered(outcome: Outcome) -> io::Result<Outcome> {
    if outcome.refused > 0 {
        return Err(io::Error::other(format!("{} requests were refused", outcome.refused)));
    }
    Ok(outcome)
}

/// A caller for single requests.
pub fn caller(server: &Server) -> io::Result<Caller> {
    let server = client::Server::parse(&format!("http://{}", server.address)).map_err(io::Error::other)?;
    Ok(Caller::new(Arc::new(server)))
}

/// Makes a call and reads its answer.
pub async fn answer<T: for<'a> Deserialize<'a>>(caller: &mut Caller, call: &Call) -> io::Result<T> {
    let reply = caller.call(call).await.map_err(|error| io::Error::other(error.to_string()))?;
    reply.json().map_err(io::Error::other)
}
