//! What the command line and the environment say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chat_web::admin_auth::AdminToken;
use chat_web::client_address::TrustedProxies;
use chat_web::rate_limit::RateLimit;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::operator;

const EXAMPLES: &str = "\
Examples:
  chat-api                                       everything in one process, data in ./data
  chat-api --data-dir /var/lib/chat --listen-addr 0.0.0.0:8000 --admin-token \"$TOKEN\"
  chat-api command-api & chat-api projector & chat-api query-api     one process a role, sharing ./data
  chat-api command-api --event-store-url kurrentdb://db:2113 --redis-url redis://cache

Each option can also be set by the environment variable shown with it.";

/// A chat backend: apps hold numbered chats, chats hold numbered messages, and messages can be searched.
///
/// Without a command it serves the whole API on one address and keeps its data in one folder; nothing else needs to be
/// installed.
#[derive(Parser)]
#[command(name = "chat-api", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(subcommand_help_heading = "Commands")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Options,
}

#[derive(Subcommand)]
#[expect(clippy::enum_variant_names, reason = "the command API is a role, not a kind of Command")]
enum Command {
    /// Serve everything in one process (the default)
    #[command(after_help = "Example:\n  chat-api serve --data-dir ./data --listen-addr 127.0.0.1:8000")]
    Serve(Options),
    /// Take commands only: POST, PUT and DELETE, except search
    #[command(after_help = "Example:\n  chat-api command-api --data-dir ./data --listen-addr 127.0.0.1:8001")]
    CommandApi(Options),
    /// Answer queries only: GET, and search
    #[command(after_help = "Example:\n  chat-api query-api --data-dir ./data --listen-addr 127.0.0.1:8002")]
    QueryApi(Options),
    /// Keep the read model and the search index in step with the log
    #[command(after_help = "Example:\n  chat-api projector --data-dir ./data --only search")]
    Projector {
        /// Keep only this projection in step
        #[arg(long, value_name = "PROJECTION")]
        only: Option<Only>,
        #[command(flatten)]
        options: Options,
    },
    #[command(flatten)]
    Operate(operator::Command),
}

/// Which projection a projector keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// Apps, chats and messages as rows
    ReadModel,
    /// The full-text index
    Search,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Pretty,
    /// One JSON object a line
    Json,
}

/// Where everything is kept. Not `Debug`: URLs hold secrets.
#[derive(Clone, Args)]
pub(crate) struct EngineOptions {
    /// Folder that holds every embedded file; created where it does not exist
    #[arg(long, env = "DATA_DIR", value_name = "FOLDER", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// Where events are kept: sqlite://FILE, or a KurrentDB as kurrentdb://HOST:2113 or esdb://… [default:
    /// sqlite://DATA_DIR/events.db]
    #[arg(long, env = "EVENT_STORE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) event_store_url: Option<String>,
    /// Where apps, chats and messages are read from: sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE [default:
    /// sqlite://DATA_DIR/read-model.db]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Folder of the full-text index [default: DATA_DIR/search-index]
    #[arg(long, env = "SEARCH_INDEX_DIR", value_name = "FOLDER")]
    pub(crate) search_index_dir: Option<PathBuf>,
}

/// Not `Debug`: URLs and the admin token hold secrets.
#[derive(Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) engines: EngineOptions,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:8000, 8001 for command-api, 8002 for
    /// query-api, 8003 for projector]
    #[arg(long, env = "LISTEN_ADDR", value_name = "IP:PORT")]
    pub(crate) listen_addr: Option<SocketAddr>,
    /// Token that admin routes ask for (`Authorization: Bearer`); without one they are open, and then only loopback
    /// addresses are listened on
    #[arg(long, env = "ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = AdminToken::parse)]
    pub(crate) admin_token: Option<AdminToken>,
    /// Requests that one app may send: 100/s, 600/m or 10000/h [default: no limit]
    #[arg(long, env = "RATE_LIMIT", value_name = "LIMIT")]
    pub(crate) rate_limit: Option<RateLimit>,
    /// Proxies whose X-Forwarded-For tells the addresses that events are recorded under, as 10.0.0.7,192.168.0.0/16
    /// [default: none]
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "NETWORKS")]
    pub(crate) trusted_proxies: Option<TrustedProxies>,
    /// Who hands out numbers and keeps what processes share: redis://HOST:6379, redis+cluster://… or redis+sentinel://…
    /// [default: each process counts for itself, and the log decides]
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) redis_url: Option<String>,
    /// What to log: a level (error, warn, info, debug, trace), or levels by module as in `info,chat_projector=debug`
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
    /// How to write the log
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "pretty")]
    pub(crate) log_format: LogFormat,
    /// API requests in flight at a time; more are answered 503 `overloaded` at once
    #[arg(long, env = "MAX_IN_FLIGHT", value_name = "REQUESTS", default_value_t = 4_096)]
    pub(crate) max_in_flight: usize,
    /// Seconds that an API request may take; a command that takes longer is answered 503 `outcome_unknown`
    #[arg(long, env = "REQUEST_TIMEOUT", value_name = "SECONDS", default_value_t = 30)]
    pub(crate) request_timeout: u64,
    /// Seconds for which a generation of a projection goes on being kept after readers were given the next one: longer than
    /// query hosts need to fold search folders of their own [default: 900; 12 where one process is everything]
    #[arg(long, env = "KEEP_PREVIOUS", value_name = "SECONDS")]
    pub(crate) keep_previous: Option<u64>,
    /// Seconds that requests in flight may take to finish after SIGTERM or Ctrl-C
    #[arg(long, env = "DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 20)]
    pub(crate) drain_timeout: u64,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Serve,
    CommandApi,
    QueryApi,
    Projector(Option<Only>),
}

/// What the command line asks for.
pub(crate) enum Task {
    /// A process that runs until it is stopped.
    Run(Role, Box<Options>),
    /// Something an operator wants to know or to be done.
    Operate(Box<operator::Command>),
}

impl Arguments {
    pub(crate) fn task(self) -> Task {
        let (role, options) = match self.command {
            None => (Role::Serve, self.serve),
            Some(Command::Serve(options)) => (Role::Serve, options),
            Some(Command::CommandApi(options)) => (Role::CommandApi, options),
            Some(Command::QueryApi(options)) => (Role::QueryApi, options),
            Some(Command::Projector { only, options }) => (Role::Projector(only), options),
            Some(Command::Operate(command)) => return Task::Operate(Box::new(command)),
        };
        Task::Run(role, Box::new(options))
    }
}

impl Options {
    /// For how long a role keeps a generation that readers were taken off. Where one process is everything, its own queries
    /// are the only ones that may still need it.
    pub(crate) fn keep_previous_for(&self, role: Role) -> Duration {
        let seconds = match role {
            Role::Serve => 12,
            Role::CommandApi | Role::QueryApi | Role::Projector(_) => 900,
        };
        Duration::from_secs(self.keep_previous.unwrap_or(seconds))
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

    /// Where the role listens unless told otherwise: the roles of one machine don't get in each other's way.
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

    pub(crate) fn projects(self, projection: Only) -> bool {
        match self {
            Self::Serve => true,
            Self::Projector(only) => only.is_none_or(|only| only == projection),
            Self::CommandApi | Self::QueryApi => false,
        }
    }
}
