//! The gateway's configuration with real processes: command APIs that are stopped behind HAProxy while clients send
//! commands.
//!
//! `GATEWAY_STOPS` sets the number of stops, for a longer run.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use chat_testing::install::{Program, find_or_install};
use chat_testing::port;
use chat_testing::supervised_server::{Server, SupervisedServer};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use harness::api::{API, app_path, number};
use harness::client::Client;
use harness::deadline::eventually;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions};

const HAPROXY: Program = Program {
    name: "haproxy",
    title: "HAProxy",
    debian_package: "haproxy",
    homebrew_package: "haproxy",
    search_folders: &["/usr/sbin", "/usr/local/sbin"],
};

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/deploy/gateway/haproxy.cfg");

/// Stops without `GATEWAY_STOPS`.
const STOPS: usize = 4;

/// Clients that send commands. Each has an app of its own.
const WRITERS: usize = 6;

/// Two command APIs on one log, and the gateway in front of them.
struct Deployment {
    command_apis: [ProcessOptions; 2],
    gateway_port: u16,
    metrics: Client,
    _gateway: SupervisedServer,
}

impl Deployment {
    fn new(folder: &Path) -> Self {
        let ports: Vec<u16> = (0..6).map(|_| port::find_free_for_restarts().expect("a free port")).collect();
        let names = [
            "GATEWAY_ADDR",
            "GATEWAY_METRICS_ADDR",
            "COMMAND_API_1",
            "COMMAND_API_2",
            "QUERY_API_1",
            "QUERY_API_2",
        ];
        let addresses = names.iter().zip(&ports).map(|(name, port)| format!("{name}=127.0.0.1:{port}"));
        let haproxy = find_or_install(&HAPROXY).display().to_string();
        let program = [haproxy, "-db".to_owned(), "-f".to_owned(), CONFIGURATION.to_owned()];
        let gateway = Server {
            command: std::iter::once("env".to_owned()).chain(addresses).chain(program).collect(),
            user: None,
            host: None,
            log: folder.join("gateway.log"),
            stop_signal: "TERM",
            remove_on_exit: None,
        };
        let command_api = |port: u16| {
            ProcessOptions::new("command-api", folder)
                .with("--listen-addr", &format!("127.0.0.1:{port}"))
                // The default of the program; the harness sets another one.
                .with("--shutdown-delay", "3")
        };
        Self {
            command_apis: [command_api(ports[2]), command_api(ports[3])],
            gateway_port: ports[0],
            metrics: Client::new(&format!("http://127.0.0.1:{}", ports[1])),
            _gateway: SupervisedServer::start(&gateway).expect("HAProxy starts"),
        }
    }

    /// Starts a command API and waits until the gateway sends it requests.
    async fn start(&self, index: usize) -> Process {
        let process = self.command_apis[index].start().await;
        let line = format!(r#"{{proxy="commands",server="command-api-{}",state="UP"}} 1"#, index + 1);
        eventually(&format!("in the metrics of the gateway: {line}"), async || {
            let metrics = self.metrics.get("/metrics").try_send().await.ok()?;
            String::from_utf8_lossy(&metrics.body).contains(&line).then_some(())
        })
        .await;
        process
    }
}

/// A client that sends one command after the other through the gateway, and never sends one twice.
struct Writer {
    gateway_port: u16,
    /// Commands on a connection; then the client opens another one.
    commands_per_connection: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
    sent_on_connection: usize,
}

impl Writer {
    async fn post(&mut self, path: &str, body: &Value) -> Result<Value, String> {
        if self.sent_on_connection >= self.commands_per_connection {
            self.connection = None;
        }
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.connect().await.map_err(|error| format!("not connected: {error}"))?,
        };
        self.sent_on_connection += 1;
        let request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))
            .expect("a request");
        let response = connection.send_request(request).await.map_err(|error| format!("lost: {error}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("lost: {error}"))?.to_bytes();
        if connection.ready().await.is_ok() {
            self.connection = Some(connection);
        }
        if head.status != 201 {
            return Err(format!("{}: {}", head.status, String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, hyper::Error> {
        let stream = TcpStream::connect(("127.0.0.1", self.gateway_port)).await.expect("the gateway listens");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        self.sent_on_connection = 0;
        Ok(sender)
    }

    /// Creates chats until the end. Returns their number.
    async fn run(mut self, stopped: Arc<AtomicBool>, sent: Arc<AtomicUsize>) -> Result<u64, String> {
        let app = self.post(&format!("{API}/apps"), &json!({"name": "writer"})).await?;
        let token = app["data"]["app_token"].as_str().expect("a token").to_owned();
        let path = format!("{}/chats", app_path(&token));
        let mut created = 0;
        while !stopped.load(Ordering::Relaxed) {
            let chat = number(&self.post(&path, &json!({})).await?, "chat_number");
            if chat != created + 1 {
                return Err(format!("chat {chat} follows chat {created}"));
            }
            created = chat;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(created)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_behind_the_gateway_costs_no_command() {
    let stops =
        std::env::var("GATEWAY_STOPS").map_or(STOPS, |stops| stops.parse().expect("a number of stops"));
    let folder = folder();
    let deployment = Deployment::new(folder.path());
    let mut processes = [Some(deployment.start(0).await), Some(deployment.start(1).await)];
    let (stopped, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|index| {
            let writer = Writer {
                gateway_port: deployment.gateway_port,
                commands_per_connection: if index % 2 == 0 { usize::MAX } else { 5 },
                connection: None,
                sent_on_connection: 0,
            };
            tokio::spawn(writer.run(Arc::clone(&stopped), Arc::clone(&sent)))
        })
        .collect();
    for stop in 0..stops {
        let before = sent.load(Ordering::Relaxed);
        eventually("commands of every writer", async || {
            (sent.load(Ordering::Relaxed) >= before + 5 * WRITERS).then_some(())
        })
        .await;
        let index = stop % 2;
        let process = processes[index].take().expect("a running process");
        process.terminate();
        let (status, output) = process.wait_for_exit().await;
        assert!(status.success(), "{output}");
        if writers.iter().any(tokio::task::JoinHandle::is_finished) {
            // A command has failed. The result of its writer says why.
            break;
        }
        processes[index] = Some(deployment.start(index).await);
    }
    stopped.store(true, Ordering::Relaxed);
    for writer in writers {
        let created = writer.await.expect("no panic").unwrap_or_else(|failure| panic!("{failure}"));
        assert!(created > 0);
    }
}
