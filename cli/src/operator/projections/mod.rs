//! `chat-api projections`: what is folded from the log, and folding it anew while the system runs.

mod list;
mod progress;
mod rebuild;
pub(super) mod shown;
mod steps;
mod verify;

use std::process::ExitCode;

use chat_domain::operator_action::ProjectionName;
use chat_operations::projections::{Projections, ProjectionsError};
use clap::{Args, Subcommand, ValueEnum};

use super::answer;
use super::{Common, Deed, Stage};
use crate::failure::Failure;

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
    Diff(steps::Plain),
    /// Let readers see the generations that were built, from here on
    #[command(
        after_help = "Example:\n  chat-api projections promote --execute --reason 'differs as it should'"
    )]
    Promote(steps::Options),
    /// Let readers see the generations before again
    #[command(after_help = "Example:\n  chat-api projections rollback --execute --reason 'hits are missing'")]
    Rollback(steps::Options),
    /// Remove generations that readers don't see, and nothing goes back to
    #[command(
        after_help = "Example:\n  chat-api projections drop --execute --reason 'the new ones have proved good'"
    )]
    Drop(steps::DropOptions),
    /// Fold the log again off to one side, and compare that with what readers are shown
    #[command(after_help = "Example:\n  chat-api projections verify read-model --sample 50")]
    Verify(verify::Options),
}

/// A projection's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Name {
    /// Apps, chats and messages as rows
    #[value(alias = "read_model")]
    ReadModel,
    /// The full-text index
    #[value(aliases = ["search_index", "search"])]
    SearchIndex,
}

impl From<Name> for ProjectionName {
    fn from(name: Name) -> Self {
        match name {
            Name::ReadModel => Self::ReadModel,
            Name::SearchIndex => Self::SearchIndex,
        }
    }
}

/// One projection, or all of them.
#[derive(Args)]
struct Which {
    /// Which projection [default: all]
    name: Option<Name>,
    /// All of them
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl Which {
    fn names(&self) -> Vec<ProjectionName> {
        match self.name {
            Some(name) if !self.all => vec![name.into()],
            _ => ProjectionName::ALL.to_vec(),
        }
    }
}

/// Doing it, rather than saying what would be done.
#[derive(Args)]
struct Execution {
    /// Do it; without this, only say what would be done
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    deed: Deed,
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::List(options) => list::run(&options).await,
        Command::Rebuild(options) => answer::print(options.common.output, rebuild::run(&options).await),
        Command::Diff(options) => answer::print(options.common.output, steps::diff(&options).await),
        Command::Promote(options) => answer::print(options.common.output, steps::promote(&options).await),
        Command::Rollback(options) => answer::print(options.common.output, steps::roll_back(&options).await),
        Command::Drop(options) => answer::print(options.common.output, steps::remove(&options).await),
        Command::Verify(options) => answer::print(options.common.output, verify::run(&options).await),
    }
}

pub(super) async fn open(common: &Common) -> Result<Projections, Failure> {
    let stage = Stage::open(common).await?;
    Ok(Projections { places: stage.places.projections(), log: stage.log })
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
pub(super) fn failure(error: ProjectionsError) -> Failure {
    match std::error::Error::source(&error) {
        Some(source) => Failure::because(&error, source),
        None => Failure::new(error.to_string()),
    }
}

/// A way to ask what is at work to stop, which Ctrl-C and SIGTERM do.
fn cancel() -> Result<tokio::sync::watch::Receiver<bool>, Failure> {
    let stop = crate::signals::stop()?;
    let (cancel, cancelled) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        stop.await;
        cancel.send_replace(true);
        // Held: who waits for it must not take its end for an answer.
        cancel.closed().await;
    });
    Ok(cancelled)
}
