//! What operators ask and do at the command line. Each noun has a module; what they do is in `chat-operations`.
//!
//! Answers go to standard output, everything else to standard error. The process exits with 0 where all is well, 1 where
//! something was found that somebody should look at, 2 where the command or its surroundings were wrong.

mod answer;
mod audit;
mod dead_letters;
mod events;
mod filter;
mod generated;
mod progress;
mod projections;
mod replay;
mod stage;
mod table;
mod text;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::EngineOptions;
use crate::failure::Failure;
use stage::Stage;

/// The commands of operators.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Look at what happened, and prove it
    #[command(subcommand)]
    Audit(audit::Command),
    /// Look at the projections, and fold them anew while the system runs
    #[command(subcommand)]
    Projections(projections::Command),
    /// Deal with events that a projection could not apply
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Look at the events of the log as they are stored
    #[command(subcommand)]
    Events(events::Command),
    /// Feed another system with the log's events: a program, a file, or an HTTP endpoint
    #[command(after_help = replay::EXAMPLES)]
    Replay(Box<replay::Command>),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  chat-api completions bash > /etc/bash_completion.d/chat-api")]
    Completions(generated::Completions),
    /// Print the man page, or write those of all commands
    #[command(after_help = "Example:\n  chat-api man --out /usr/local/share/man/man1")]
    Man(generated::Man),
}

/// What every command takes.
#[derive(Args)]
pub(crate) struct Common {
    #[command(flatten)]
    engines: EngineOptions,
    /// How to answer
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// How a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// One JSON object: `version`, `status`, `data`, `diagnostics`
    Json,
}

/// What every command takes that changes something.
#[derive(Args)]
struct Deed {
    /// Who does it; the user and the machine unless given, as in `alice@ops-1`
    #[arg(long, env = "CHAT_OPERATOR", value_name = "NAME")]
    operator: Option<String>,
    /// Why; it is recorded with the name
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Carries out a command and prints its answer.
pub(crate) fn run(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::because("the runtime could not be started", &error).report(),
    };
    runtime.block_on(async {
        match command {
            Command::Audit(command) => audit::run(command).await,
            Command::Projections(command) => projections::run(command).await,
            Command::DeadLetters(command) => dead_letters::run(command).await,
            Command::Events(command) => events::run(command).await,
            Command::Replay(command) => replay::run(*command).await,
            Command::Completions(arguments) => generated::completions(&arguments),
            Command::Man(arguments) => generated::man(&arguments),
        }
    })
}
