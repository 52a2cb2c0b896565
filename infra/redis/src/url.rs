//! Redis URLs, parsed into the kind of deployment and its addresses.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionInfo, IntoConnectionInfo};
use thiserror::Error;

/// A Redis URL.
///
/// - One server: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`
/// - A cluster, given by some of its servers: `redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]…`
/// - A server monitored by sentinels: `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DATABASE]`, where the
///   hosts are the sentinels, and user and password are those of the servers
///
/// `rediss` is Redis over TLS; `valkey` and `valkeys` mean the same as `redis` and `rediss`. User and password must be
/// percent-encoded. `Display` and `Debug` omit them.
#[derive(Clone)]
pub struct RedisUrl {
    redacted: String,
    pub(super) topology: RedisTopology,
}

/// The kind of deployment, with its addresses.
#[derive(Clone)]
pub(super) enum RedisTopology {
    Single(ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
    Sentinels { sentinels: Vec<ConnectionInfo>, master: String },
}

/// An error of parsing a Redis URL. Does not repeat the text, which may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidRedisUrl {
    /// The scheme is not a Redis scheme.
    #[error(
        "a Redis URL starts with redis://, rediss://, valkey:// or valkeys://, or has +cluster or +sentinel before ://"
    )]
    Scheme,
    /// A host, port or database is invalid, or the user or password is not percent-encoded.
    #[error(
        "a Redis URL has HOST or HOST:PORT, a number as the database, and a percent-encoded user and password"
    )]
    Server,
    /// Several servers without `+cluster` or `+sentinel`.
    #[error("several Redis servers need a redis+cluster:// or redis+sentinel:// URL")]
    SeveralServers,
    /// The name of the master is missing.
    #[error(
        "a redis+sentinel:// URL ends with the name of the master, as in redis+sentinel://HOST:PORT/NAME"
    )]
    NoMaster,
    /// A cluster URL has a database, which Redis Cluster does not support.
    #[error("a redis+cluster:// URL has no database: it ends with the last server")]
    ClusterDatabase,
    /// The URL contains a `?` or `#`.
    #[error("a Redis URL has no query (?) and no fragment (#)")]
    Options,
}

/// The default port of sentinels.
const SENTINEL_PORT: u16 = 26_379;

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRedisUrl::Scheme)?;
        let (transport, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !matches!(transport, "redis" | "rediss" | "valkey" | "valkeys") {
            return Err(InvalidRedisUrl::Scheme);
        }
        if rest.contains(['?', '#']) {
            return Err(InvalidRedisUrl::Options);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let at_sign = if credentials.is_empty() { "" } else { "@" };
        let server = |host: &str, database: &str| {
            if host.is_empty() {
                return Err(InvalidRedisUrl::Server);
            }
            let url = format!("{transport}://{credentials}{at_sign}{host}/{database}");
            url.into_connection_info().map_err(|_| InvalidRedisUrl::Server)
        };
        let topology = match kind {
            "" if hosts.contains(',') => return Err(InvalidRedisUrl::SeveralServers),
            "" => RedisTopology::Single(server(hosts, path)?),
            "cluster" if !path.is_empty() => return Err(InvalidRedisUrl::ClusterDatabase),
            "cluster" => RedisTopology::Cluster(
                hosts.split(',').map(|host| server(host, "")).collect::<Result<_, _>>()?,
            ),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(InvalidRedisUrl::NoMaster);
                }
                let sentinel = |host: &str| server(&with_default_port(host, SENTINEL_PORT), database);
                let sentinels = hosts.split(',').map(sentinel).collect::<Result<_, _>>()?;
                RedisTopology::Sentinels { sentinels, master: master.to_owned() }
            }
            _ => return Err(InvalidRedisUrl::Scheme),
        };
        Ok(Self { redacted: format!("{scheme}://{hosts}"), topology })
    }
}

fn with_default_port(host: &str, port: u16) -> String {
    // The colons of an IPv6 address are in brackets; a colon after the brackets begins a port.
    let has_port = host.rsplit(']').next().is_some_and(|after_address| after_address.contains(':'));
    if has_port || host.is_empty() { host.to_owned() } else { format!("{host}:{port}") }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.redacted)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use redis::ConnectionAddr;

    use super::*;

    fn parse(text: &str) -> Result<RedisUrl, InvalidRedisUrl> {
        text.parse()
    }

    fn parse_single(text: &str) -> ConnectionInfo {
        match parse(text).unwrap().topology {
            RedisTopology::Single(server) => server,
            _ => panic!("{text} is not one server"),
        }
    }

    fn address(server: &ConnectionInfo) -> String {
        match server.addr() {
            ConnectionAddr::Tcp(host, port) => format!("{host} {port}"),
            ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
                format!("{host} {port} verified TLS")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parses_a_single_server_with_user_password_and_database() {
        let server = parse_single("redis://chat:p%40ss@redis.example:6380/3");
        assert_eq!(address(&server), "redis.example 6380");
        let settings = server.redis_settings();
        assert_eq!(
            (settings.username(), settings.password(), settings.db()),
            (Some("chat"), Some("p@ss"), 3)
        );
        assert_eq!(address(&parse_single("redis://localhost")), "localhost 6379");
        assert_eq!(address(&parse_single("valkey://[::1]:7000")), "::1 7000");
        assert_eq!(parse_single("redis://:secret@localhost").redis_settings().password(), Some("secret"));
    }

    #[test]
    fn tls_verifies_the_certificate() {
        assert_eq!(address(&parse_single("rediss://redis.example")), "redis.example 6379 verified TLS");
        assert_eq!(address(&parse_single("valkeys://redis.example:1")), "redis.example 1 verified TLS");
    }

    #[test]
    fn parses_a_cluster_of_several_servers() {
        let RedisTopology::Cluster(servers) = parse("rediss+cluster://u:p@a:1,b,c:3").unwrap().topology
        else {
            panic!("not a cluster");
        };
        let addresses: Vec<String> = servers.iter().map(address).collect();
        assert_eq!(addresses, ["a 1 verified TLS", "b 6379 verified TLS", "c 3 verified TLS"]);
        assert!(servers.iter().all(|server| server.redis_settings().password() == Some("p")));
    }

    #[test]
    fn parses_sentinels_with_the_master_name() {
        let url = parse("valkey+sentinel://u:p@a,[::1],b:1/chat/2").unwrap();
        let RedisTopology::Sentinels { sentinels, master } = url.topology else { panic!("no sentinels") };
        let addresses: Vec<String> = sentinels.iter().map(address).collect();
        assert_eq!(addresses, ["a 26379", "::1 26379", "b 1"]);
        assert_eq!((master.as_str(), sentinels[0].redis_settings().db()), ("chat", 2));
    }

    #[test]
    fn never_displays_a_password() {
        for text in
            ["redis://u:secret@h:1/0", "redis+cluster://u:secret@a:1,b:2", "rediss+sentinel://:secret@h:1/m"]
        {
            let url = parse(text).unwrap();
            let shown = format!("{url} {url:?}");
            assert!(!shown.contains("secret") && !shown.contains("u:"), "{shown}");
        }
        assert_eq!(parse("redis+cluster://u:secret@a:1,b:2").unwrap().to_string(), "redis+cluster://a:1,b:2");
    }

    #[test]
    fn rejects_invalid_urls_with_a_reason() {
        for (text, reason) in [
            ("localhost:6379", InvalidRedisUrl::Scheme),
            ("http://localhost", InvalidRedisUrl::Scheme),
            ("redis+magic://localhost", InvalidRedisUrl::Scheme),
            ("redis://", InvalidRedisUrl::Server),
            ("redis://localhost:port", InvalidRedisUrl::Server),
            ("redis://localhost/db", InvalidRedisUrl::Server),
            ("redis+cluster://a,,b", InvalidRedisUrl::Server),
            ("redis://a:1,b:2", InvalidRedisUrl::SeveralServers),
            ("redis+sentinel://a:1", InvalidRedisUrl::NoMaster),
            ("redis+cluster://a:1/2", InvalidRedisUrl::ClusterDatabase),
            ("redis://localhost?protocol=resp3", InvalidRedisUrl::Options),
        ] {
            assert_eq!(parse(text).map(|url| url.to_string()), Err(reason), "{text}");
        }
    }
}
