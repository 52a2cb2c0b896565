//! `chat-api projections`: lists, compares, rebuilds and promotes generations of the projections.

pub(super) mod common;
mod generation_commands;
mod list;
mod progress;
mod rebuild;
pub(super) mod render;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use super::answer;

/// The verbs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the generations of the projections, and how they are getting on
    #[command(after_help = "Example:\n  chat-api projections list --watch")]
    List(list::Options),
    /// Fold the log into new generations beside those that readers see, compare, and promote them
    #[command(after_help = "\
Examples:
  chat-api projections rebuild --all
  chat-api projections rebuild --all --execute --reason 'fields that were missing'
  chat-api projections rebuild read-model --until 2026-11-24T12:00:00Z --execute --reason 'what was it then'")]
    Rebuild(rebuild::Options),
    /// Compare the generations that are not live with those that are
    #[command(after_help = "Example:\n  chat-api projections diff search-index -o json")]
    Diff(generation_commands::DiffOptions),
    /// Let readers see the generations that were built, from here on
    #[command(
        after_help = "Example:\n  chat-api projections promote --execute --reason 'differs as it should'"
    )]
    Promote(generation_commands::SwitchOverOptions),
    /// Let readers see the generations before again
    #[command(after_help = "Example:\n  chat-api projections rollback --execute --reason 'hits are missing'")]
    Rollback(generation_commands::SwitchOverOptions),
    /// Remove generations that readers don't see, and nothing goes back to
    #[command(
        after_help = "Example:\n  chat-api projections drop --execute --reason 'the new ones have proved good'"
    )]
    Drop(generation_commands::DropOptions),
    /// Fold the log again off to one side, and compare that with what readers are shown
    #[command(after_help = "Example:\n  chat-api projections verify read-model --sample 50")]
    Verify(verify::Options),
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::List(options) => list::run(&options).await,
        Command::Rebuild(options) => answer::print(options.common.output, rebuild::run(&options).await),
        Command::Diff(options) => {
            answer::print(options.common.output, generation_commands::diff(&options).await)
        }
        Command::Promote(options) => {
            answer::print(options.common.output, generation_commands::promote(&options).await)
        }
        Command::Rollback(options) => {
            answer::print(options.common.output, generation_commands::roll_back(&options).await)
        }
        Command::Drop(options) => {
            answer::print(options.common.output, generation_commands::remove(&options).await)
        }
        Command::Verify(options) => answer::print(options.common.output, verify::run(&options).await),
    }
}
