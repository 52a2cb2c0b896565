//! `chat-api dead-letters`: commands on events that a projection could not apply.

mod acknowledge;
mod list;
mod render;
mod retry_or_discard;
mod scope;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use super::answer;

/// The dead-letter commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the events that could not be applied
    #[command(after_help = "\
Examples:
  chat-api dead-letters list
  chat-api dead-letters list --projection read-model --all -o json")]
    List(list::Options),
    /// Show one event: the stored payload, the reason it could not be applied, and what a retry would do
    #[command(after_help = "Example:\n  chat-api dead-letters show 4711")]
    Show(show::Options),
    /// Retry dead letters; a dry run without --execute
    #[command(after_help = "\
Examples:
  chat-api dead-letters retry 4711
  chat-api dead-letters retry --all --execute --reason 'upgraded to 1.4'")]
    Retry(retry_or_discard::RetryOptions),
    /// Discard a dead letter and apply the rest of its stream; a dry run without --execute
    #[command(after_help = "\
Example:
  chat-api dead-letters discard 4711 --execute --reason 'a broken import'")]
    Discard(retry_or_discard::DiscardOptions),
    /// Acknowledge discarded events, so that health reports no longer show them
    #[command(after_help = "\
Example:
  chat-api dead-letters acknowledge 4711 --execute --reason 'the app was told'")]
    Acknowledge(acknowledge::Options),
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::List(options) => answer::print(options.scope.common.output, list::run(&options).await),
        Command::Show(options) => answer::print(options.scope.common.output, show::run(&options).await),
        Command::Retry(options) => {
            answer::print(options.scope.common.output, retry_or_discard::retry(&options).await)
        }
        Command::Discard(options) => {
            answer::print(options.scope.common.output, retry_or_discard::discard(&options).await)
        }
        Command::Acknowledge(options) => {
            answer::print(options.scope.common.output, acknowledge::run(&options).await)
        }
    }
}
