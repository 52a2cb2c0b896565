//! Connections as they are made to the three kinds of servers, and what goes over them.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    TlsMode,
};

use super::pipeline::Reply;
use super::url::{RedisTopology, RedisUrl};

/// How long making a connection to one server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long all that is asked on the way to a connection may take.
const TOTAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Makes connections.
pub(super) enum Connector {
    Single(Client),
    Cluster(ClusterClient),
    Sentinels(SentinelClient),
}

impl Connector {
    pub(super) fn new(url: &RedisUrl) -> RedisResult<Self> {
        // Several libraries bring cryptography of their own: rustls asks that one be chosen for the process. Whoever
        // chose before keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(match &url.topology {
            RedisTopology::Single(server) => Self::Single(Client::open(server.clone())?),
            RedisTopology::Cluster(servers) => Self::Cluster(cluster_client(servers)?),
            RedisTopology::Sentinels { sentinels, master } => {
                Self::Sentinels(sentinel_client(sentinels, master)?)
            }
        })
    }

    /// Makes a connection to a server that is ready to answer.
    pub(super) async fn connect(&mut self) -> RedisResult<Link> {
        with_timeout(TOTAL_CONNECT_TIMEOUT, self.connect_without_timeout()).await?
    }

    async fn connect_without_timeout(&mut self) -> RedisResult<Link> {
        // Answers are waited for by whoever asks.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        let mut connection = match self {
            Self::Single(client) => client.get_multiplexed_async_connection_with_config(&config).await?,
            Self::Sentinels(client) => client.get_async_connection_with_config(&config).await?,
            Self::Cluster(client) => return Ok(Link::Cluster(client.get_async_connection().await?)),
        };
        // A server that still reads its files accepts connections, and refuses commands.
        let ping = redis::cmd("PING");
        with_timeout(CONNECT_TIMEOUT, connection.req_packed_command(&ping)).await??.extract_error()?;
        Ok(Link::Single(connection))
    }
}

async fn with_timeout<T>(limit: Duration, what: impl Future<Output = T>) -> RedisResult<T> {
    tokio::time::timeout(limit, what).await.map_err(|elapsed| io::Error::from(elapsed).into())
}

fn cluster_client(servers: &[redis::ConnectionInfo]) -> RedisResult<ClusterClient> {
    /// Moved slots and lost connections are followed this often, within the time of whoever asks.
    const RETRIES: u32 = 5;
    const MAX_RETRY_WAIT_MILLIS: u64 = 50;
    ClusterClientBuilder::new(servers.to_vec())
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(CONNECT_TIMEOUT)
        .retries(RETRIES)
        .min_retry_wait(1)
        .max_retry_wait(MAX_RETRY_WAIT_MILLIS)
        .build()
}

fn sentinel_client(sentinels: &[redis::ConnectionInfo], master: &str) -> RedisResult<SentinelClient> {
    let addresses: Vec<ConnectionAddr> = sentinels.iter().map(|sentinel| sentinel.addr().clone()).collect();
    let tls = addresses.iter().any(|address| matches!(address, ConnectionAddr::TcpTls { .. }));
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(settings) = sentinels.first().map(redis::ConnectionInfo::redis_settings) {
        builder = builder.set_client_to_redis_db(settings.db());
        if let Some(user) = settings.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_redis_password(password);
        }
    }
    builder.build()
}

/// A connection.
#[derive(Clone)]
pub(super) enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Sends commands together; their answers, in order. An error means that some were not answered, or that they went
    /// to a server that carries out none.
    pub(super) async fn send(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Reply>> {
        let replies: Vec<Reply> = match self {
            Self::Single(connection) => {
                let mut pipeline = redis::Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                let values = connection.send_packed_commands(&pipeline, 0, commands.len()).await?;
                values.into_iter().map(redis::Value::extract_error).collect()
            }
            // Each goes to the server of its key, and follows it by itself where the key has moved.
            Self::Cluster(connection) => {
                let send = |command| {
                    let mut connection = connection.clone();
                    async move { connection.req_packed_command(command).await?.extract_error() }
                };
                join_all(commands.iter().map(send)).await
            }
        };
        for reply in &replies {
            if let Err(error) = reply
                && is_server_failure(error)
            {
                return Err(error.clone());
            }
        }
        Ok(replies)
    }
}

/// Whether an error says that the server or the way to it, not the command, is the reason.
fn is_server_failure(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        // Words of Redis that the library does not know.
        ErrorKind::Extension => false,
        _ => true,
    }
}
