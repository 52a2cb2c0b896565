//! Operator commands: their arguments and output, with a module for each noun. The crate `chat-operations` does most of
//! their work.
//!
//! Answers go to standard output, but to standard error if a command writes exported events to standard output.
//! Messages and progress go to standard error. The process exits with 0 on success, 1 with a finding that needs
//! attention, and 2 if the usage or the environment is wrong, or if an argument names something that does not exist. A
//! signal that stops a command before its end, and a closed standard output, have exit codes of their own.

mod answer;
mod audit;
mod backup;
mod common_args;
mod completions_and_man;
mod context;
mod dead_letters;
mod events;
mod filter;
mod interruption;
mod operators;
mod progress;
mod projections;
mod replay;
mod restore;
mod server;
mod stdout;
mod table;
mod terminal_text;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use crate::failure::Failure;

pub(crate) use answer::print_usage_error;
pub(crate) use common_args::{FULL_TEXT, user_at_host, user_name};
pub(crate) use stdout::write_failure;
pub(crate) use terminal_text::show_in_full;

/// The operator commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Read, explain and export the history of the log, and prove that it is unaltered
    #[command(subcommand)]
    Audit(audit::Command),
    /// List, compare and rebuild the projections while the system runs
    #[command(subcommand)]
    Projections(projections::Command),
    /// List, retry and discard events that a projection could not apply
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Check the events of the log as they are stored
    #[command(subcommand)]
    Events(events::Command),
    /// Copy the log into a folder while the system runs, and verify the copy
    #[command(after_help = backup::EXAMPLES)]
    Backup(Box<backup::BackupArgs>),
    /// Verify a backup, and put it in place where there is no log
    #[command(after_help = restore::EXAMPLES)]
    Restore(Box<restore::RestoreArgs>),
    /// Send the log's events to another system: a program, a file, or an HTTP endpoint
    #[command(after_help = replay::EXAMPLES)]
    Replay(Box<replay::ReplayArgs>),
    /// Name those who may use the admin routes of a server, and give each a token
    #[command(subcommand)]
    Operators(operators::Command),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  chat-api completions bash > /etc/bash_completion.d/chat-api")]
    Completions(completions_and_man::CompletionsArgs),
    /// Print the man page, or write those of all commands
    #[command(after_help = "Example:\n  chat-api man --out /usr/local/share/man/man1")]
    Man(completions_and_man::ManArgs),
}

/// The time limit of blocking work that an interrupted command leaves behind, such as the copy of a log.
const ABANDONED_WORK_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a command and prints its answer. `chat_api` is the definition of the whole command line.
pub(crate) fn run(command: Command, chat_api: clap::Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::because("the runtime could not be started", &error).report(),
    };
    let code = runtime.block_on(async {
        match command {
            Command::Audit(command) => audit::run(command).await,
            Command::Projections(command) => projections::run(command).await,
            Command::DeadLetters(command) => dead_letters::run(command).await,
            Command::Events(command) => events::run(command).await,
            Command::Backup(arguments) => backup::run(*arguments).await,
            Command::Restore(arguments) => restore::run(*arguments, chat_api).await,
            Command::Replay(command) => replay::run(*command).await,
            Command::Operators(command) => operators::run(&command),
            Command::Completions(arguments) => completions_and_man::completions(&arguments, chat_api),
            Command::Man(arguments) => completions_and_man::man(&arguments, chat_api),
        }
    });
    runtime.shutdown_timeout(ABANDONED_WORK_TIMEOUT);
    code
}
