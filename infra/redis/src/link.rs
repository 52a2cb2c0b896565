//! Links: connections to a server, a cluster or a sentinel-monitored server.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    TlsMode,
};

use super::pipeline::Reply;
use super::url::{RedisTopology, RedisUrl};

/// The time limit of connecting to one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit of connecting a link, including discovery.
const TOTAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Connects links to one Redis deployment.
pub(super) enum Connector {
    Single(Client),
    Cluster(ClusterClient),
    /// The client that is tried first, and the one that is tried if a sentinel demands a password or refuses the one
    /// that it got. If it can connect, they are swapped. The client without a password for the sentinels begins as the first, because
    /// a sentinel without a password refuses clients that give one.
    Sentinels([SentinelClient; 2]),
}

impl Connector {
    /// Creates the connector. `call_timeout` is the time after which callers give up on a pipeline.
    pub(super) fn new(url: &RedisUrl, call_timeout: Duration) -> RedisResult<Self> {
        // rustls needs one crypto provider for the whole process. An error means that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(match &url.topology {
            RedisTopology::Single(server) => {
                Self::Single(Client::open(server.clone().set_tcp_settings(tcp_settings()))?)
            }
            RedisTopology::Cluster(servers) => Self::Cluster(cluster_client(servers, call_timeout)?),
            RedisTopology::Sentinels { sentinels, master } => {
                let client = |password| sentinel_client(sentinels, master, password);
                Self::Sentinels([client(SentinelPassword::None)?, client(SentinelPassword::OfServers)?])
            }
        })
    }

    /// Connects a link. Fails if a single server is not ready to execute commands; does not check this in a cluster.
    pub(super) async fn connect(&mut self) -> RedisResult<Link> {
        with_timeout(TOTAL_CONNECT_TIMEOUT, self.connect_without_timeout()).await?
    }

    async fn connect_without_timeout(&mut self) -> RedisResult<Link> {
        // Callers have deadlines of their own, so there is no response timeout.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        let mut connection = match self {
            Self::Single(client) => client.get_multiplexed_async_connection_with_config(&config).await?,
            Self::Sentinels([first, second]) => match first.get_async_connection_with_config(&config).await {
                Err(error) if is_password_mismatch(&error) => {
                    match second.get_async_connection_with_config(&config).await {
                        Ok(connection) => {
                            std::mem::swap(first, second);
                            connection
                        }
                        // The error of the client that gave the password says what is wrong.
                        Err(other) => return Err(if is_password_missing(&error) { other } else { error }),
                    }
                }
                connected => connected?,
            },
            Self::Cluster(client) => return Ok(Link::Cluster(client.get_async_connection().await?)),
        };
        // A server that is still loading its data accepts connections but refuses commands.
        let ping = redis::cmd("PING");
        with_timeout(CONNECT_TIMEOUT, connection.req_packed_command(&ping)).await??.extract_error()?;
        Ok(Link::Single(connection))
    }
}

/// Whether a server demands a password that it did not get, or refuses the one that it got.
fn is_password_mismatch(error: &RedisError) -> bool {
    is_password_missing(error) || error.kind() == ErrorKind::AuthenticationFailed
}

/// Whether a server demands a password that it did not get.
fn is_password_missing(error: &RedisError) -> bool {
    error.code() == Some("NOAUTH")
}

/// The settings of TCP connections: Nagle's algorithm is off. It would hold a pipeline back until the one before is
/// acknowledged, and Linux delays an acknowledgement by up to 40 ms.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

async fn with_timeout<T>(limit: Duration, future: impl Future<Output = T>) -> RedisResult<T> {
    tokio::time::timeout(limit, future).await.map_err(|elapsed| io::Error::from(elapsed).into())
}

fn cluster_client(servers: &[redis::ConnectionInfo], call_timeout: Duration) -> RedisResult<ClusterClient> {
    /// Retries after a moved slot or a lost connection. They end at the deadline of the call.
    const RETRIES: u32 = 5;
    const MAX_RETRY_WAIT_MILLIS: u64 = 50;
    ClusterClientBuilder::new(servers.to_vec())
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(call_timeout.max(CONNECT_TIMEOUT))
        .retries(RETRIES)
        .min_retry_wait(1)
        .tcp_settings(tcp_settings())
        .max_retry_wait(MAX_RETRY_WAIT_MILLIS)
        .build()
}

/// Whether a client gives the sentinels the password of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentinelPassword {
    None,
    OfServers,
}

fn sentinel_client(
    sentinels: &[redis::ConnectionInfo],
    master: &str,
    password_at_sentinels: SentinelPassword,
) -> RedisResult<SentinelClient> {
    let addresses: Vec<ConnectionAddr> = sentinels.iter().map(|sentinel| sentinel.addr().clone()).collect();
    let tls = addresses.iter().any(|address| matches!(address, ConnectionAddr::TcpTls { .. }));
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    builder = builder
        .set_client_to_redis_tcp_settings(tcp_settings())
        .set_client_to_sentinel_tcp_settings(tcp_settings());
    if tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(settings) = sentinels.first().map(redis::ConnectionInfo::redis_settings) {
        builder = builder.set_client_to_redis_db(settings.db());
        let at_sentinels = password_at_sentinels == SentinelPassword::OfServers;
        if let Some(user) = settings.username() {
            builder = builder.set_client_to_redis_username(user);
            if at_sentinels {
                builder = builder.set_client_to_sentinel_username(user);
            }
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_redis_password(password);
            if at_sentinels {
                builder = builder.set_client_to_sentinel_password(password);
            }
        }
    }
    builder.build()
}

/// A connected link.
#[derive(Clone)]
pub(super) enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Sends commands together and returns their replies, in order. An error means that some commands have no reply, or
    /// that the server executes no commands at the moment.
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
            // Each command goes to the server of its key; the client follows redirects of moved keys.
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

/// Whether an error is caused by the server or the connection and not by the command.
fn is_server_failure(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        // Error codes for which the library has no kind.
        ErrorKind::Extension => false,
        _ => true,
    }
}
