//! The chat API with an app and its chats, and the steps that are taken with it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::disk_usage::{DiskUsage, sizes};
use super::requests::messages_path;
use super::run_config::RunConfig;
use super::seeded_log::SeededLog;
use super::server_process::Server;
use crate::client::{self, CONSISTENCY_TOKEN, Call, Connection, PREFER};

/// How long the projections may take to see everything.
const CATCH_UP_TIMEOUT: Duration = Duration::from_hours(2);
/// How often a server that has much to fold is asked whether it is through.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A running chat API with one app.
pub struct Stage {
    /// The process.
    pub server: Server,
    /// The app's token.
    pub app: String,
    /// The paths of the chats' messages.
    pub paths: Vec<String>,
    folder: TempDir,
}

#[derive(Deserialize)]
struct AppCreated {
    data: App,
}

#[derive(Deserialize)]
struct App {
    app_token: String,
}

#[derive(Deserialize)]
struct Ready {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    projection: Option<Projection>,
}

#[derive(Deserialize)]
struct Projection {
    state: String,
    lag_events: Option<u64>,
}

impl Stage {
    /// A new chat API with so many chats, on the engines that the arguments name.
    pub async fn new(setting: &RunConfig, chats: u64, arguments: &[&str]) -> io::Result<Self> {
        let folder = setting.new_folder()?;
        let server = Server::chat_api(&setting.program, folder.path(), arguments).await?;
        let mut connection = connection(&server)?;
        let app = Call::post("/api/v1/apps".to_owned(), &json!({ "name": "bench" }));
        let app: AppCreated = send_for_json(&mut connection, &app).await?;
        let app = app.data.app_token;
        for _ in 0..chats {
            let chat = Call::post(format!("/api/v1/apps/{app}/chats"), &json!({}));
            let _: serde_json::Value = send_for_json(&mut connection, &chat).await?;
        }
        let paths = (1..=chats).map(|chat| messages_path(&app, chat)).collect();
        Ok(Self { server, app, paths, folder })
    }

    /// A chat API on a log that was written before, once it has folded it.
    pub async fn on_seeded_log(setting: &RunConfig, folder: TempDir, seed: &SeededLog) -> io::Result<Self> {
        let server = Server::chat_api(&setting.program, folder.path(), &[]).await?;
        let app = seed.token.expose().to_owned();
        let paths = (1..=seed.chats).map(|chat| messages_path(&app, chat)).collect();
        let stage = Self { server, app, paths, folder };
        stage.wait_until_live().await?;
        Ok(stage)
    }

    /// The same in a new process.
    pub async fn restart(self, setting: &RunConfig) -> io::Result<Self> {
        let Self { server, app, paths, folder } = self;
        server.stop().await?;
        let server = Server::chat_api(&setting.program, folder.path(), &[]).await?;
        let stage = Self { server, app, paths, folder };
        stage.wait_until_live().await?;
        Ok(stage)
    }

    /// Waits until the projections have nothing left to fold.
    async fn wait_until_live(&self) -> io::Result<()> {
        let mut connection = connection(&self.server)?;
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            let reply = send(&mut connection, &Call::get("/readyz".to_owned())).await?;
            let ready: Ready = reply.json().map_err(io::Error::other)?;
            let mut projections = ready.parts.iter().filter_map(|part| part.projection.as_ref()).peekable();
            let known = projections.peek().is_some();
            if known && projections.all(|of| of.state == "live" && of.lag_events == Some(0)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the projections do not come to the log's end"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until the projections hold what was posted last: a query with the token of a command sees it.
    pub async fn catch_up(&self) -> io::Result<()> {
        let mut connection = connection(&self.server)?;
        let last = Call::post(self.paths[0].clone(), &json!({ "body": "catch up" }));
        let posted = send(&mut connection, &last).await?;
        let token = posted.headers.get(CONSISTENCY_TOKEN).cloned();
        let token = token.ok_or_else(|| io::Error::other("no Consistency-Token"))?;
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        let path = &self.paths[0];
        for path in [format!("{path}?limit=1"), format!("{path}/search?query=catch&limit=1")] {
            let wait = HeaderValue::from_static("wait=10");
            let query =
                Call::get(path).with_header(CONSISTENCY_TOKEN, token.clone()).with_header(PREFER, wait);
            loop {
                let reply = send(&mut connection, &query).await?;
                match reply.status {
                    StatusCode::OK => break,
                    // Behind by more than ten seconds.
                    StatusCode::SERVICE_UNAVAILABLE if Instant::now() < deadline => {}
                    _ => return Err(io::Error::other(reply.outcome())),
                }
            }
        }
        Ok(())
    }

    /// What is answered to a `GET`.
    pub async fn get(&self, path: &str) -> io::Result<bytes::Bytes> {
        let reply = send(&mut connection(&self.server)?, &Call::get(path.to_owned())).await?;
        if reply.status == StatusCode::OK { Ok(reply.body) } else { Err(io::Error::other(reply.outcome())) }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it in order and tells what its files take.
    pub async fn stop(self) -> io::Result<DiskUsage> {
        self.server.stop().await?;
        sizes(self.folder.path())
    }
}

fn connection(server: &Server) -> io::Result<Connection> {
    let server = client::Server::parse(&format!("http://{}", server.address)).map_err(io::Error::other)?;
    Ok(Connection::new(Arc::new(server)))
}

async fn send(connection: &mut Connection, call: &Call) -> io::Result<client::Reply> {
    connection.send(call).await.map_err(io::Error::other)
}

async fn send_for_json<T: for<'a> Deserialize<'a>>(
    connection: &mut Connection,
    call: &Call,
) -> io::Result<T> {
    let reply = send(connection, call).await?;
    if !reply.status.is_success() {
        return Err(io::Error::other(reply.outcome()));
    }
    reply.json().map_err(io::Error::other)
}
