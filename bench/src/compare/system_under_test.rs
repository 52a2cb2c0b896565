//! The system under test: a running chat API with one app and its chats.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::disk_usage::DiskUsage;
use super::requests::messages_path;
use super::run_config::RunConfig;
use super::seeded_log::SeededLog;
use super::server_process::ServerProcess;
use crate::client::{ApiRequest, ApiResponse, CONSISTENCY_TOKEN, Connection, PREFER, Server};

/// The time in which the projections must catch up with the log.
const CATCH_UP_TIMEOUT: Duration = Duration::from_hours(2);
/// The time between two checks of whether the projections are live.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A server is idle if it used at most [`MAX_IDLE_CPU_TIME`] during an interval of this length.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_IDLE_CPU_TIME: Duration = Duration::from_millis(20);
/// The longest wait for an idle server. After this time, the measurement goes on although the server is busy.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// A running chat API with one app.
pub struct SystemUnderTest {
    /// The process of the chat API.
    pub server: ServerProcess,
    /// The app's token.
    pub app_token: String,
    /// The path of the messages of each chat: `/api/v1/apps/{app_token}/chats/{chat_number}/messages`.
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
    position: u64,
    lag_events: Option<u64>,
}

impl SystemUnderTest {
    /// Starts a chat API in a new folder, with further arguments, and creates an app with this many chats.
    pub async fn start(config: &RunConfig, chats: u64, arguments: &[&str]) -> io::Result<Self> {
        let folder = config.new_folder()?;
        let server = ServerProcess::start_chat_api(&config.program, folder.path(), arguments).await?;
        let mut connection = connect(&server)?;
        let create_app = ApiRequest::post("/api/v1/apps".to_owned(), &json!({ "name": "bench" }));
        let created: AppCreated = send_for_json(&mut connection, &create_app).await?;
        let app_token = created.data.app_token;
        for _ in 0..chats {
            let create_chat = ApiRequest::post(format!("/api/v1/apps/{app_token}/chats"), &json!({}));
            let _: serde_json::Value = send_for_json(&mut connection, &create_chat).await?;
        }
        let paths = (1..=chats).map(|chat| messages_path(&app_token, chat)).collect();
        Ok(Self { server, app_token, paths, folder })
    }

    /// Starts a chat API on a seeded log, and waits until the projections are live and the server is idle.
    pub async fn on_seeded_log(config: &RunConfig, folder: TempDir, log: &SeededLog) -> io::Result<Self> {
        let server = ServerProcess::start_chat_api(&config.program, folder.path(), &[]).await?;
        let app_token = log.token.expose().to_owned();
        let paths = (1..=log.chats).map(|chat| messages_path(&app_token, chat)).collect();
        let system = Self { server, app_token, paths, folder };
        system.wait_until_live().await?;
        system.wait_until_idle().await?;
        Ok(system)
    }

    /// Restarts the chat API, and waits until its projections are live.
    pub async fn restart(self, config: &RunConfig) -> io::Result<Self> {
        let Self { server, app_token, paths, folder } = self;
        server.stop().await?;
        let server = ServerProcess::start_chat_api(&config.program, folder.path(), &[]).await?;
        let system = Self { server, app_token, paths, folder };
        system.wait_until_live().await?;
        Ok(system)
    }

    /// Restarts the chat API, and waits until its projections are live. Returns the time from the start of the new
    /// process to the 201 of a message.
    pub async fn time_restart(self, config: &RunConfig) -> io::Result<(Self, Duration)> {
        let Self { server, app_token, paths, folder } = self;
        server.stop().await?;
        let (server, duration) =
            ServerProcess::time_first_post(&config.program, folder.path(), &paths[0], r#"{"body":"first"}"#)
                .await?;
        let system = Self { server, app_token, paths, folder };
        system.wait_until_live().await?;
        Ok((system, duration))
    }

    /// Waits until the projections are live and have no lag.
    async fn wait_until_live(&self) -> io::Result<()> {
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            let projections = self.projections().await?;
            let is_live =
                |projection: &Projection| projection.state == "live" && projection.lag_events == Some(0);
            if !projections.is_empty() && projections.iter().all(is_live) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the projections do not catch up with the log"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the position up to which the projections have folded the log.
    pub async fn position(&self) -> io::Result<u64> {
        let projections = self.projections().await?;
        projections
            .iter()
            .map(|projection| projection.position)
            .min()
            .ok_or_else(|| io::Error::other("no projections"))
    }

    async fn projections(&self) -> io::Result<Vec<Projection>> {
        let response = send(&mut connect(&self.server)?, &ApiRequest::get("/readyz".to_owned())).await?;
        let ready: Ready = response.json().map_err(io::Error::other)?;
        Ok(ready.parts.into_iter().filter_map(|part| part.projection).collect())
    }

    /// Waits until the projections have applied all messages: posts one more message and queries with the token of its
    /// response.
    pub async fn catch_up(&self) -> io::Result<()> {
        let mut connection = connect(&self.server)?;
        let request = ApiRequest::post(self.paths[0].clone(), &json!({ "body": "catch up" }));
        let response = send(&mut connection, &request).await?;
        let token = response.headers.get(CONSISTENCY_TOKEN).cloned();
        let token = token.ok_or_else(|| io::Error::other("no Consistency-Token"))?;
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        let path = &self.paths[0];
        for path in [format!("{path}?limit=1"), format!("{path}/search?query=catch&limit=1")] {
            let wait = HeaderValue::from_static("wait=10");
            let query =
                ApiRequest::get(path).with_header(CONSISTENCY_TOKEN, token.clone()).with_header(PREFER, wait);
            loop {
                let response = send(&mut connection, &query).await?;
                match response.status {
                    StatusCode::OK => break,
                    // The projection has not caught up in ten seconds.
                    StatusCode::SERVICE_UNAVAILABLE if Instant::now() < deadline => {}
                    _ => return Err(io::Error::other(response.status_and_code())),
                }
            }
        }
        Ok(())
    }

    /// Waits until the projections have applied all messages, and then until the server is idle.
    pub async fn settle(&self) -> io::Result<()> {
        self.catch_up().await?;
        self.wait_until_idle().await
    }

    /// Waits until the server has nothing left to do in the background, such as merging segments of the search index,
    /// but at most for [`IDLE_TIMEOUT`]. If the server is still busy then, says so on stderr.
    async fn wait_until_idle(&self) -> io::Result<()> {
        let deadline = Instant::now() + IDLE_TIMEOUT;
        loop {
            let before = self.server.cpu_time()?;
            tokio::time::sleep(IDLE_INTERVAL).await;
            let used = self.server.cpu_time()?.saturating_sub(before);
            if used <= MAX_IDLE_CPU_TIME {
                return Ok(());
            }
            if Instant::now() > deadline {
                // A closed stderr does not stop the run.
                let _ = writeln!(
                    io::stderr(),
                    "The server is not idle after {} s: it used {} ms of CPU time in the last second. The figure is \
                     measured nevertheless.",
                    IDLE_TIMEOUT.as_secs(),
                    used.as_millis()
                );
                return Ok(());
            }
        }
    }

    /// Sends a GET request and returns the body. Any status other than 200 is an error.
    pub async fn get(&self, path: &str) -> io::Result<bytes::Bytes> {
        let response = send(&mut connect(&self.server)?, &ApiRequest::get(path.to_owned())).await?;
        if response.status == StatusCode::OK {
            Ok(response.body)
        } else {
            Err(io::Error::other(response.status_and_code()))
        }
    }

    /// Returns the data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Shuts the chat API down, and returns the disk space of its data folder.
    pub async fn stop(self) -> io::Result<DiskUsage> {
        DiskUsage::of_data_folder(self.stop_and_keep().await?.path())
    }

    /// Shuts the chat API down, and returns its data folder.
    pub async fn stop_and_keep(self) -> io::Result<TempDir> {
        self.server.stop().await?;
        Ok(self.folder)
    }
}

fn connect(server: &ServerProcess) -> io::Result<Connection> {
    let server = Server::parse(&format!("http://{}", server.address)).map_err(io::Error::other)?;
    Ok(Connection::new(Arc::new(server)))
}

async fn send(connection: &mut Connection, request: &ApiRequest) -> io::Result<ApiResponse> {
    connection.send(request).await.map_err(io::Error::other)
}

async fn send_for_json<T: for<'a> Deserialize<'a>>(
    connection: &mut Connection,
    request: &ApiRequest,
) -> io::Result<T> {
    let response = send(connection, request).await?;
    if !response.status.is_success() {
        return Err(io::Error::other(response.status_and_code()));
    }
    response.json().map_err(io::Error::other)
}
