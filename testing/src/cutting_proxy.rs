//! A TCP proxy that can cut its clients off from its server, as a network partition does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The state of the network between clients and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Connections work.
    Open,
    /// Open connections are closed. New ones are accepted and closed at once.
    Refusing,
    /// Clients can connect, their connections stay open, and nothing arrives on them. These connections are closed when
    /// the network changes again. The proxy's connections to the server are closed at once.
    Silent,
}

/// A proxy in front of one server. Dropping it closes its connections.
#[derive(Debug)]
pub struct CuttingProxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    accept_task: JoinHandle<()>,
}

impl CuttingProxy {
    /// Starts a proxy on a free port of 127.0.0.1, in front of the server at this port of 127.0.0.1.
    pub async fn start(server_port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (network, state) = watch::channel(Network::Open);
        let accept_task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server_port, state.clone()));
            }
        });
        Ok(Self { address, network, accept_task })
    }

    /// The port of 127.0.0.1 for clients.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the state of the network.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accept_task.abort();
        // Connections end when the sender of the state is dropped.
    }
}

/// Forwards one connection while the network is open.
async fn forward(mut client: TcpStream, server_port: u16, mut network: watch::Receiver<Network>) {
    let at_start = *network.borrow_and_update();
    let forwarding = async {
        if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await {
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    };
    if at_start == Network::Open {
        tokio::select! {
            () = forwarding => return,
            changed = network.changed() => if changed.is_err() { return },
        }
    }
    // The client's end stays open here while the network is silent.
    while *network.borrow_and_update() == Network::Silent {
        if network.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    /// A server that sends back what it receives.
    async fn echo_server() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        port
    }

    async fn echo(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_u8(7).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn forwards_until_the_network_is_cut_and_again_after_it_is_restored() {
        let proxy = CuttingProxy::start(echo_server().await).await.expect("a proxy");
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()));
        let mut before = connect().await.expect("a connection");
        assert_eq!(echo(&mut before).await.expect("an echo"), 7);
        proxy.set(Network::Refusing);
        assert!(echo(&mut before).await.is_err());
        assert!(echo(&mut connect().await.expect("a connection")).await.is_err());
        proxy.set(Network::Open);
        assert_eq!(echo(&mut connect().await.expect("a connection")).await.expect("an echo"), 7);
    }

    #[tokio::test]
    async fn a_silent_network_keeps_connections_open_without_answers() {
        let proxy = CuttingProxy::start(echo_server().await).await.expect("a proxy");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.expect("a connection");
        assert_eq!(echo(&mut stream).await.expect("an echo"), 7);
        proxy.set(Network::Silent);
        // Longer than an echo takes, and short enough to wait for.
        let answer = timeout(Duration::from_millis(100), echo(&mut stream)).await;
        assert!(answer.is_err(), "an answer arrived: {answer:?}");
        proxy.set(Network::Open);
        assert!(echo(&mut stream).await.is_err(), "the connection is still open after the network changed");
    }
}
