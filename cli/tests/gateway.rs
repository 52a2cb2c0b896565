//! The gateway's configuration with real processes: command APIs that are stopped behind HAProxy while clients send
//! commands, and machines that lose their network while they execute requests.
//!
//! `GATEWAY_STOPS` sets the number of stops, for a longer run.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use chat_testing::gateway::{self, GatewayAddresses};
use chat_testing::hosts::{HostNetwork, Link};
use chat_testing::port;
use chat_testing::supervised_server::SupervisedServer;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use harness::api::{API, app_path, create_app, number};
use harness::client::Client;
use harness::deadline::eventually;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions};

/// The number of stops if `GATEWAY_STOPS` is not set.
const STOPS: usize = 4;

/// The number of clients that send commands. Each has an app of its own.
const COMMAND_CLIENTS: usize = 6;

/// Two command APIs on one log, and the gateway in front of them.
struct Deployment {
    command_apis: [ProcessOptions; 2],
    gateway: SocketAddr,
    /// A client of the metrics of the gateway.
    metrics: Client,
    _gateway: SupervisedServer,
}

impl Deployment {
    fn new(folder: &Path) -> Self {
        let addresses: [SocketAddr; 6] = std::array::from_fn(|_| {
            (Ipv4Addr::LOCALHOST, port::find_free_for_restarts().expect("a free port")).into()
        });
        let [clients, metrics, command_1, command_2, query_1, query_2] = addresses;
        let command_apis = [command_1, command_2];
        let addresses = GatewayAddresses { clients, metrics, command_apis, query_apis: [query_1, query_2] };
        let command_api = |address: SocketAddr| {
            ProcessOptions::new("command-api", folder)
                .with("--listen-addr", &address.to_string())
                // Twice the default of the program: on a busy machine, the gateway notices later that the process is
                // not ready. A unit test compares the default with the configuration of the gateway.
                .with("--shutdown-delay", "6")
        };
        Self {
            command_apis: command_apis.map(command_api),
            gateway: clients,
            metrics: Client::new(&format!("http://{metrics}")),
            _gateway: gateway::start(&addresses, None, &folder.join("gateway.log")).expect("HAProxy starts"),
        }
    }

    /// Starts a command API and waits until the gateway counts it as up.
    async fn start(&self, index: usize) -> Process {
        let process = self.command_apis[index].start().await;
        let server = format!(r#"{{proxy="commands",server="command-api-{}""#, index + 1);
        wait_for_metric(&self.metrics, &format!(r#"haproxy_server_status{server},state="UP"}} 1"#)).await;
        process
    }
}

/// Waits until the metrics of the gateway have this line.
async fn wait_for_metric(metrics: &Client, line: &str) {
    eventually(&format!("in the metrics of the gateway: {line}"), async || {
        let reply = metrics.get("/metrics").try_send().await.ok()?;
        String::from_utf8_lossy(&reply.body).contains(line).then_some(())
    })
    .await;
}

/// A client that sends one command after the other through the gateway, and never sends one twice.
struct CommandClient {
    gateway: SocketAddr,
    /// The number of commands after which the client opens another connection.
    commands_per_connection: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
    sent_on_connection: usize,
}

impl CommandClient {
    fn new(gateway: SocketAddr, commands_per_connection: usize) -> Self {
        Self { gateway, commands_per_connection, connection: None, sent_on_connection: 0 }
    }

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
        let stream = TcpStream::connect(self.gateway).await.expect("the gateway listens");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        self.sent_on_connection = 0;
        Ok(sender)
    }

    /// Creates chats until `is_over` is set, and counts each in `answered`, which all clients share. Returns the number
    /// of chats that this client created.
    async fn run(mut self, is_over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Result<u64, String> {
        let app = self.post(&format!("{API}/apps"), &json!({"name": "an app"})).await?;
        let token = app["data"]["app_token"].as_str().expect("a token").to_owned();
        let path = format!("{}/chats", app_path(&token));
        let mut created = 0;
        while !is_over.load(Ordering::Relaxed) {
            let chat = number(&self.post(&path, &json!({})).await?, "chat_number");
            if chat != created + 1 {
                return Err(format!("chat {chat} follows chat {created}"));
            }
            created = chat;
            answered.fetch_add(1, Ordering::Relaxed);
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
    let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..COMMAND_CLIENTS)
        .map(|index| {
            let commands_per_connection = if index % 2 == 0 { usize::MAX } else { 5 };
            let client = CommandClient::new(deployment.gateway, commands_per_connection);
            tokio::spawn(client.run(Arc::clone(&is_over), Arc::clone(&answered)))
        })
        .collect();
    for stop in 0..stops {
        let before = answered.load(Ordering::Relaxed);
        eventually("more commands of the clients are answered", async || {
            (answered.load(Ordering::Relaxed) >= before + 5 * COMMAND_CLIENTS).then_some(())
        })
        .await;
        let index = stop % 2;
        let process = processes[index].take().expect("a running process");
        process.terminate();
        let (status, output) = process.wait_for_exit().await;
        assert!(status.success(), "{output}");
        if clients.iter().any(tokio::task::JoinHandle::is_finished) {
            // A command has failed. The result of its client says why.
            break;
        }
        processes[index] = Some(deployment.start(index).await);
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        let created = client.await.expect("no panic").unwrap_or_else(|failure| panic!("{failure}"));
        assert!(created > 0, "a client created no chat");
    }
}

/// The gateway notices after six seconds that the machine is gone, and gives up the connection. Otherwise the gateway
/// would wait for its time limit of 40 seconds, and its answer would give another reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_loses_its_network_is_given_up_long_before_the_time_limit() {
    if let Some(reason) = HostNetwork::unavailable() {
        eprintln!("not tested: {reason}");
        return;
    }
    let network = HostNetwork::start(&["gateway", "command-1", "query-1", "query-2"]).expect("hosts");
    let address = |host: &str, port: u16| SocketAddr::from((network.host(host).address(), port));
    let addresses = GatewayAddresses {
        clients: address("gateway", 8_000),
        metrics: address("gateway", 8_404),
        // Nothing listens at the second address: a command has no other machine to go to.
        command_apis: [address("command-1", 8_000), address("gateway", 8_001)],
        query_apis: [address("query-1", 8_000), address("query-2", 8_000)],
    };
    let folder = folder();
    let log = folder.path().join("gateway.log");
    let _gateway = gateway::start(&addresses, Some(network.host("gateway")), &log).expect("HAProxy starts");
    let start = async |role: &'static str, host: &str, listen: SocketAddr| {
        let token = ("ADMIN_TOKEN", PathBuf::from("gateway-token"));
        let options = ProcessOptions::new(role, folder.path()).with_host(network.host(host));
        // Without a token, processes refuse to listen beyond loopback.
        options.with("--listen-addr", &listen.to_string()).with_variables([token]).start().await
    };
    let command_api = start("command-api", "command-1", addresses.command_apis[0]).await;
    let _projector = start("projector", "command-1", address("command-1", 8_001)).await;
    let query_api = start("query-api", "query-1", addresses.query_apis[0]).await;
    let _other_query_api = start("query-api", "query-2", addresses.query_apis[1]).await;
    let metrics = Client::new(&format!("http://{}", addresses.metrics));
    let servers = [("commands", "command-api-1"), ("queries", "query-api-1"), ("queries", "query-api-2")];
    let all_up = async || {
        for (proxy, server) in servers {
            let line = format!(r#"haproxy_server_status{{proxy="{proxy}",server="{server}",state="UP"}} 1"#);
            wait_for_metric(&metrics, &line).await;
        }
    };
    let paused_processes_have_requests = async || {
        for (proxy, server) in &servers[..2] {
            let line = format!(r#"haproxy_server_current_sessions{{proxy="{proxy}",server="{server}"}} 1"#);
            wait_for_metric(&metrics, &line).await;
        }
    };
    let set_links = |link: Link| ["command-1", "query-1"].map(|host| network.set_all(host, link));
    all_up().await;
    let client = Client::new(&format!("http://{}", addresses.clients));
    let app = create_app(&client, "an app").await;
    let path = format!("{}/chats", app_path(&app));
    eventually("the app can be read", async || {
        (client.get(app_path(&app)).send().await.status == 200).then_some(())
    })
    .await;
    // The gateway sends one of the two queries to each query API.
    let two_queries = async || {
        let without_keep_alive = client.without_keep_alive();
        let query = async || without_keep_alive.get(app_path(&app)).send().await.expect(200);
        tokio::join!(query(), query());
    };

    // First, the network fails while the machines have the requests and have not answered them: no packet is under way.
    command_api.pause();
    query_api.pause();
    let mut command_client = CommandClient::new(addresses.clients, usize::MAX);
    let body = json!({});
    let (created, (), ()) = tokio::join!(command_client.post(&path, &body), two_queries(), async {
        paused_processes_have_requests().await;
        set_links(Link::Dead);
    });
    let failure = created.expect_err("the answer was not lost");
    assert!(
        failure.contains("outcome_unknown") && failure.contains("answer of the server was lost"),
        "{failure}"
    );

    set_links(Link::Open);
    command_api.resume();
    query_api.resume();
    all_up().await;

    // Then the gateway sends requests on connections that it already has, before it notices that the machines are gone.
    two_queries().await;
    command_client.post(&path, &body).await.expect("a chat");
    set_links(Link::Dead);
    let (created, ()) = tokio::join!(command_client.post(&path, &body), two_queries());
    // If a client's connection has carried requests before, the gateway closes it instead of answering.
    let failure = created.expect_err("the answer was not lost");
    assert!(failure.starts_with("lost: "), "{failure}");
}
