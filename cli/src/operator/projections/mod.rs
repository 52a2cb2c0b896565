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

/// The projections commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the generations of the projections, with position, lag and rate
    #[command(after_help = "Example:\n  chat-api projections list --watch")]
    List(list::Options),
    /// Build new generations from the log beside the live ones, compare them, and promote them
    #[command(after_help = "\
Examples:
  chat-api projections rebuild --all
  chat-api projections rebuild --all --execute --reason 'missing fields'
  chat-api projections rebuild read-model --until 2026-11-24T12:00:00Z")]
    Rebuild(rebuild::Options),
    /// Compare the newly built generations, or else the previous or left-over ones, with the live ones
    #[command(after_help = "Example:\n  chat-api projections diff search-index -o json")]
    Diff(generation_commands::DiffOptions),
    /// Make the newly built generations live, or else the left-over ones
    #[command(
        after_help = "Example:\n  chat-api projections promote --execute --reason 'differs as it should'"
    )]
    Promote(generation_commands::SwitchOverOptions),
    /// Make the previous generations live again
    #[command(after_help = "Example:\n  chat-api projections rollback --execute --reason 'hits are missing'")]
    Rollback(generation_commands::SwitchOverOptions),
    /// Remove left-over generations, or with --generation another one that is not live
    #[command(
        after_help = "Example:\n  chat-api projections drop --execute --reason 'the new ones have proved good'"
    )]
    Drop(generation_commands::DropOptions),
    /// Compare live generations with a scratch build from the log
    #[command(after_help = "Examples:\n  chat-api projections verify read-model --sample 50\n  \
            chat-api projections verify --all --full")]
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
        Command::Verify(options) => answer::print(options.output, verify::run(&options).await),
    }
}
