//! The listener for operators: `--admin-listen-addr`.

use std::net::TcpStream;

use crate::harness::api::{API, create_app};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions};

/// Starts a process with a listener for operators and few connections for clients. Returns the process, and a client of
/// the listener for operators.
async fn start(folder: &tempfile::TempDir) -> (Process, Client) {
    let options = ProcessOptions::new("serve", folder.path())
        .with("--admin-listen-addr", "127.0.0.1:0")
        .with("--max-connections", "64")
        .with("--max-connections-per-address", "64");
    let process = options.start().await;
    let url = eventually("the address for operators", async || {
        let stderr = process.stderr();
        let (lines, _) = stderr.rsplit_once('\n')?;
        let (_, rest) = lines.split_once("listening for operators on ")?;
        rest.split_whitespace().next().map(str::to_owned)
    })
    .await;
    (process, Client::new(&url))
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_admin_routes_are_only_at_the_address_for_operators() {
    let folder = folder();
    let (process, operators) = start(&folder).await;
    let clients = process.client();
    create_app(&clients, "an app").await;
    for path in ["/metrics", "/admin/v1/projections"] {
        assert_eq!(clients.get(path).send().await.expect(404).code(), "route_not_found", "{path}");
        operators.get(path).send().await.expect(200);
    }
    for client in [&clients, &operators] {
        for path in ["/livez", "/openapi.json", "/docs"] {
            client.get(path).send().await.expect(200);
        }
        client.get("/readyz").send_until(200).await;
    }
    let apps = format!("{API}/apps");
    clients.get(apps.clone()).send().await.expect(200);
    operators.get(apps).send().await.expect(404);
    assert_eq!(
        clients.get("/openapi.json").send().await.json(),
        operators.get("/openapi.json").send().await.json()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_answer_while_clients_hold_all_connections() {
    let folder = folder();
    let (process, operators) = start(&folder).await;
    let address = process.url().strip_prefix("http://").expect("a URL").to_owned();
    let idle: Vec<_> = (0..200).map(|_| TcpStream::connect(&address).expect("a connection")).collect();
    for client in [operators.without_keep_alive(), process.client().without_keep_alive()] {
        client.get("/livez").send().await.expect(200);
        client.get("/readyz").send_until(200).await;
    }
    let metrics = operators.get("/metrics").send().await.expect(200);
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("chat_http_connections_closed_idle_total{"), "{metrics}");
    drop(idle);
}
