//! The command line: options, roles and operator commands.

use clap::{Parser, Subcommand};

use crate::operator;
use crate::projection_name::ProjectionNameArg;
use crate::serve_options::{Role, ServeOptions};

const EXAMPLES: &str = "\
Examples:
  chat-api                      everything in one process, data in ./data
  chat-api --data-dir /var/lib/chat --listen-addr 0.0.0.0:8000
                                the same for other machines; needs ADMIN_TOKEN
                                or OPERATORS_FILE
  chat-api command-api & chat-api projector & chat-api query-api
                                one process a role, sharing ./data
  chat-api command-api --event-store-url kurrentdb://db --redis-url redis://kv

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
    serve: ServeOptions,
}

#[derive(Subcommand)]
#[expect(clippy::enum_variant_names, reason = "the command API is a role, not a kind of Command")]
enum Command {
    /// Serve everything in one process (the default)
    #[command(after_help = "Example:\n  chat-api serve --data-dir ./data --listen-addr 127.0.0.1:8000")]
    Serve(ServeOptions),
    /// Take commands only: POST, PUT and DELETE, except search
    #[command(after_help = "Example:\n  chat-api command-api --data-dir ./data --listen-addr 127.0.0.1:8001")]
    CommandApi(ServeOptions),
    /// Answer queries (GET, and search), and serve operators
    #[command(after_help = "Example:\n  chat-api query-api --data-dir ./data --listen-addr 127.0.0.1:8002")]
    QueryApi(ServeOptions),
    /// Project the log into the read model and the search index
    #[command(after_help = "Example:\n  chat-api projector --data-dir ./data --only search-index")]
    Projector {
        /// Run only this projection
        #[arg(long, value_name = "PROJECTION")]
        only: Option<ProjectionNameArg>,
        #[command(flatten)]
        options: ServeOptions,
    },
    #[command(flatten)]
    Operator(operator::Command),
}

/// The task that the command line selects.
pub(crate) enum Task {
    /// Serve until a signal stops the process.
    Run(Role, Box<ServeOptions>),
    /// Run an operator command.
    Operator(Box<operator::Command>),
}

impl Arguments {
    pub(crate) fn task(self) -> Task {
        let (role, options) = match self.command {
            None => (Role::Serve, self.serve),
            Some(Command::Serve(options)) => (Role::Serve, options),
            Some(Command::CommandApi(options)) => (Role::CommandApi, options),
            Some(Command::QueryApi(options)) => (Role::QueryApi, options),
            Some(Command::Projector { only, options }) => (Role::Projector(only.map(Into::into)), options),
            Some(Command::Operator(command)) => return Task::Operator(Box::new(command)),
        };
        Task::Run(role, Box::new(options))
    }
}
