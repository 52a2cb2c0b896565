//! Options of the commands that serve, and the roles that a process can have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chat_domain::projection::ProjectionName;
use chat_query_api::LiveFeedOptions;
use chat_web::access_log::AccessLog;
use chat_web::admin_auth::{AdminAccess, AdminToken};
use chat_web::client_address::TrustedProxies;
use chat_web::cors::CorsOrigins;
use chat_web::host_policy::{AllowedHosts, HostPolicy};
use chat_web::rate_limit::RateLimit;
use chat_web::server::ConnectionLimits;
use clap::{Args, ValueEnum};

use crate::engines::EngineOptions;
use crate::listen_address::ListenAddress;
use crate::open_files;

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Pretty,
    /// One JSON object a line
    Json,
}

/// Requests that are logged at level info.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoggedRequests {
    /// Those answered with 4xx and 5xx, up to 100 a second
    Errors,
    /// All
    All,
    /// None
    Off,
}

/// Who may create apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AppCreation {
    /// Everyone who reaches the server
    Open,
    /// Holders of the admin token, and operators who may act
    Admin,
}

/// Options of a serving process. Not `Debug`: they contain secrets, in URLs and as the admin token.
#[derive(Clone, Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    pub(crate) engines: EngineOptions,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:8000, 8001 for command-api, 8002 for
    /// query-api, 8003 for projector]
    #[arg(long, env = "LISTEN_ADDR", value_name = "HOST:PORT", value_parser = ListenAddress::parse)]
    pub(crate) listen_addr: Option<ListenAddress>,
    /// Address for admin routes, metrics and health, with connections of its own; --listen-addr then serves no admin
    /// routes and no metrics [default: none]
    #[arg(long, env = "ADMIN_LISTEN_ADDR", value_name = "HOST:PORT", value_parser = ListenAddress::parse)]
    pub(crate) admin_listen_addr: Option<ListenAddress>,
    /// Token that admin routes require (`Authorization: Bearer`); without one and
    /// without operators they are open, and the process only listens on loopback addresses
    #[arg(long, env = "ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = AdminToken::parse)]
    pub(crate) admin_token: Option<AdminToken>,
    /// File with operators: the names, scopes (read, act) and hashed tokens of those who may use admin routes, besides
    /// the holder of the admin token; `chat-api operators add` writes it [default: none]
    #[arg(long, env = "OPERATORS_FILE", value_name = "FILE")]
    pub(crate) operators: Option<PathBuf>,
    /// Private key, from `chat-api audit keygen`, with which operators sign checkpoints of the log over HTTP
    /// [default: none]
    #[arg(long, env = "AUDIT_KEY_FILE", value_name = "FILE")]
    pub(crate) audit_key: Option<PathBuf>,
    /// Host names and addresses that the server answers for besides loopback ones, as chat.example,10.0.0.7; only
    /// without an admin token and operators: with one of them it answers for any host [default: none]
    #[arg(long, env = "ALLOWED_HOSTS", value_name = "HOSTS", conflicts_with_all = ["admin_token", "operators"])]
    pub(crate) allowed_hosts: Option<AllowedHosts>,
    /// Origins whose web pages may use the API.
    #[arg(
        long,
        env = "CORS_ORIGINS",
        value_name = "ORIGINS",
        help = "Origins whose web pages may use the API (CORS), as https://chat.example,http://localhost:3000, or * for \
                all, which requires an admin token or operators [default: none]"
    )]
    pub(crate) cors_origins: Option<CorsOrigins>,
    /// Who may create apps: everyone, or only holders of the admin token and operators who may act
    #[arg(long, env = "APP_CREATION", value_name = "WHO", default_value = "open")]
    pub(crate) app_creation: AppCreation,
    /// Requests that one app may send: 100/s, 600/m or 10000/h [default: no limit]
    #[arg(long, env = "RATE_LIMIT", value_name = "LIMIT")]
    pub(crate) rate_limit: Option<RateLimit>,
    /// Proxies whose X-Forwarded-For header is trusted for the client addresses in events, as 10.0.0.7,192.168.0.0/16
    /// [default: none]
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "NETWORKS")]
    pub(crate) trusted_proxies: Option<TrustedProxies>,
    /// Redis for counters, idempotency keys and rate limits that processes share: redis://HOST:6379, redis+cluster://…
    /// or redis+sentinel://… [default: counters in the memory of each process, idempotency keys in the data directory]
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) redis_url: Option<String>,
    /// Log level (error, warn, info, debug, trace), or levels by module such as `info,chat_projector=debug`
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
    /// Format of the log
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "pretty")]
    pub(crate) log_format: LogFormat,
    /// Requests that are logged with route, status and time
    #[arg(long, env = "ACCESS_LOG", value_name = "REQUESTS", default_value = "errors")]
    pub(crate) access_log: LoggedRequests,
    /// Connections at a time; if more come, those that have been idle for the longest time are closed. The limit of
    /// open files may allow fewer
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "CONNECTIONS", default_value_t = ConnectionLimits::DEFAULT_CONNECTIONS, value_parser = parse_connections)]
    pub(crate) max_connections: usize,
    /// Connections of one client address at a time, except those in TRUSTED_PROXIES [default: half of all]
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", value_name = "CONNECTIONS", value_parser = parse_connections)]
    pub(crate) max_connections_per_address: Option<usize>,
    /// API requests in flight at a time; more are answered 503 `overloaded` at once
    #[arg(long, env = "MAX_IN_FLIGHT", value_name = "REQUESTS", default_value_t = 4_096)]
    pub(crate) max_in_flight: usize,
    /// Clients that may follow events at a time, one app at most half of them; more are answered 503 `overloaded`
    #[arg(long, env = "MAX_FOLLOWERS", value_name = "CLIENTS", default_value_t = LiveFeedOptions::DEFAULT_FOLLOWERS)]
    pub(crate) max_followers: usize,
    /// MiB of memory for request bodies and for responses that clients have not read, one half each; requests that need
    /// more are answered 503 `overloaded`
    #[arg(long, env = "HTTP_MEMORY", value_name = "MIB", default_value_t = 256, value_parser = parse_http_memory)]
    pub(crate) http_memory: usize,
    /// Seconds that an API request may take; a command that takes longer is answered 503 `outcome_unknown`
    #[arg(long, env = "REQUEST_TIMEOUT", value_name = "SECONDS", default_value_t = 30)]
    pub(crate) request_timeout: u64,
    /// Seconds for which the previous generation of a projection is kept up to date after a switch-over: longer than
    /// query hosts need to build search folders of their own [default: 900; 12 for `serve`]
    #[arg(long, env = "KEEP_PREVIOUS", value_name = "SECONDS")]
    pub(crate) keep_previous: Option<u64>,
    /// Seconds between two checks of the whole event log for damage, by processes that take commands; the first is at
    /// start
    #[arg(long, env = "LOG_CHECK_INTERVAL", value_name = "SECONDS", default_value_t = 86_400,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) log_check_interval: u64,
    /// Seconds after SIGTERM or Ctrl-C for which requests are still served while `/readyz` is down, so that a gateway
    /// stops sending requests before the listener closes [default: 3 for command-api and query-api, 0 for others]
    #[arg(long, env = "SHUTDOWN_DELAY", value_name = "SECONDS")]
    pub(crate) shutdown_delay: Option<u64>,
    /// Seconds that requests in flight may take to finish after that
    #[arg(long, env = "DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 20)]
    pub(crate) drain_timeout: u64,
}

/// Parses a number of connections.
fn parse_connections(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number of connections, from 1".to_owned())
}

/// Parses `--http-memory`. One half must hold the largest request body, the other the largest page.
fn parse_http_memory(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|mib| (64..=1024 * 1024).contains(mib))
        .ok_or_else(|| "the memory for bodies is a number of MiB, from 64 to 1048576".to_owned())
}

/// Role of a serving process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Serve,
    CommandApi,
    QueryApi,
    /// Runs the projector of one projection, or with `None` those of all.
    Projector(Option<ProjectionName>),
}

impl ServeOptions {
    /// Whether admin routes require a token.
    pub(crate) fn requires_token(&self) -> bool {
        self.admin_token.is_some() || self.operators.is_some()
    }

    /// Who may create apps, given who may use admin routes.
    pub(crate) fn app_creation_access(&self, admin: &AdminAccess) -> AdminAccess {
        match self.app_creation {
            // With open access, apps are created by an anonymous actor: no operator's name is recorded.
            AppCreation::Open => AdminAccess::Open("".into()),
            AppCreation::Admin => admin.clone(),
        }
    }

    /// The hosts that requests may be for.
    pub(crate) fn host_policy(&self) -> HostPolicy {
        if self.requires_token() {
            HostPolicy::Any
        } else {
            HostPolicy::LoopbackAnd(self.allowed_hosts.clone().unwrap_or_default())
        }
    }

    /// The limits of connections, given the limit of open files.
    pub(crate) fn connection_limits(&self, open_files: usize) -> ConnectionLimits {
        let allowed = open_files::max_connections(open_files);
        if allowed < self.max_connections {
            tracing::warn!(
                open_files,
                connections = allowed,
                "the limit of open files allows fewer connections than --max-connections"
            );
        }
        let limits = ConnectionLimits::new(self.max_connections.min(allowed));
        ConnectionLimits {
            max_per_address: self.max_connections_per_address.unwrap_or(limits.max_per_address),
            trusted_proxies: self.trusted_proxies.clone().unwrap_or_default(),
            ..limits
        }
    }

    /// How long a role still serves after a signal to stop; by default 0 for roles that usually have no gateway.
    pub(crate) fn shutdown_delay_for(&self, role: Role) -> Duration {
        let seconds = match role {
            Role::CommandApi | Role::QueryApi => 3,
            Role::Serve | Role::Projector(_) => 0,
        };
        Duration::from_secs(self.shutdown_delay.unwrap_or(seconds))
    }

    /// How long a role runs the projector of a superseded generation. By default shorter for `serve`: only
    /// queries of the same process may still need that generation.
    pub(crate) fn keep_previous_for(&self, role: Role) -> Duration {
        let seconds = match role {
            Role::Serve => 12,
            Role::CommandApi | Role::QueryApi | Role::Projector(_) => 900,
        };
        Duration::from_secs(self.keep_previous.unwrap_or(seconds))
    }
}

impl From<LoggedRequests> for AccessLog {
    fn from(requests: LoggedRequests) -> Self {
        match requests {
            LoggedRequests::Errors => Self::Errors,
            LoggedRequests::All => Self::All,
            LoggedRequests::Off => Self::Off,
        }
    }
}

impl Role {
    /// The role's name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projector(_) => "projector",
        }
    }

    /// The default address, different for each role, so that all roles can run on one machine.
    pub(crate) fn default_address(self) -> SocketAddr {
        let port = match self {
            Self::Serve => 8000,
            Self::CommandApi => 8001,
            Self::QueryApi => 8002,
            Self::Projector(_) => 8003,
        };
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    pub(crate) fn takes_commands(self) -> bool {
        matches!(self, Self::Serve | Self::CommandApi)
    }

    pub(crate) fn answers_queries(self) -> bool {
        matches!(self, Self::Serve | Self::QueryApi)
    }

    pub(crate) fn runs_projector_of(self, projection: ProjectionName) -> bool {
        match self {
            Self::Serve => true,
            Self::Projector(only) => only.is_none_or(|only| only == projection),
            Self::CommandApi | Self::QueryApi => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: ServeOptions,
    }

    #[test]
    fn a_gateway_notices_a_stop_within_the_default_shutdown_delay() {
        let mut options = Arguments::parse_from(["chat-api"]).options;
        options.shutdown_delay = None;
        let configuration = include_str!("../../infra/deploy/gateway/haproxy.cfg");
        let checks: Vec<&str> =
            configuration.lines().filter(|line| line.contains("default-server check")).collect();
        assert_eq!(checks.len(), 2, "not one line of checks for command APIs and one for query APIs");
        for check in checks {
            let value = |name: &str| {
                let mut words = check.split_whitespace().skip_while(|word| *word != name);
                words.nth(1).unwrap_or_else(|| panic!("no {name} in {check}"))
            };
            let duration = |name: &str| {
                let (number, unit) =
                    value(name).split_at(value(name).trim_end_matches(char::is_alphabetic).len());
                let number: u64 = number.parse().unwrap();
                match unit {
                    "ms" => Duration::from_millis(number),
                    "s" => Duration::from_secs(number),
                    _ => panic!("an unknown unit in {check}"),
                }
            };
            // The process answers each check at once. After the first failure, the interval is shorter.
            let further_failures = value("fall").parse::<u32>().unwrap() - 1;
            let noticed_after = duration("inter") + further_failures * duration("fastinter");
            for role in [Role::CommandApi, Role::QueryApi] {
                assert!(noticed_after < options.shutdown_delay_for(role), "{role:?}: {noticed_after:?}");
            }
        }
    }
}
