//! The gateway: HAProxy with the configuration that is deployed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::hosts::Host;
use crate::install::{Program, find_or_install};
use crate::supervised_server::{Server, SupervisedServer};

const HAPROXY: Program = Program {
    name: "haproxy",
    title: "HAProxy",
    debian_package: "haproxy",
    homebrew_package: "haproxy",
    search_folders: &["/usr/sbin", "/usr/local/sbin"],
};

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/deploy/gateway/haproxy.cfg");

/// The addresses of the gateway, and of the processes behind it.
#[derive(Clone, Copy, Debug)]
pub struct GatewayAddresses {
    /// The address for clients.
    pub clients: SocketAddr,
    /// The address of the gateway's metrics.
    pub metrics: SocketAddr,
    /// The addresses of the command APIs.
    pub command_apis: [SocketAddr; 2],
    /// The addresses of the query APIs.
    pub query_apis: [SocketAddr; 2],
}

/// Starts the gateway, on a host if one is given. The gateway writes its log to the file `log`.
pub fn start(addresses: &GatewayAddresses, host: Option<&Host>, log: &Path) -> io::Result<SupervisedServer> {
    let GatewayAddresses { clients, metrics, command_apis, query_apis } = addresses;
    let command = [
        "env".to_owned(),
        format!("GATEWAY_ADDR={clients}"),
        format!("GATEWAY_METRICS_ADDR={metrics}"),
        format!("COMMAND_API_1={}", command_apis[0]),
        format!("COMMAND_API_2={}", command_apis[1]),
        format!("QUERY_API_1={}", query_apis[0]),
        format!("QUERY_API_2={}", query_apis[1]),
        find_or_install(&HAPROXY).display().to_string(),
        "-db".to_owned(),
        "-f".to_owned(),
        CONFIGURATION.to_owned(),
    ];
    SupervisedServer::start(&Server {
        command: command.into(),
        user: None,
        host: host.cloned(),
        log: log.to_owned(),
        stop_signal: "TERM",
        remove_on_exit: None,
    })
}
