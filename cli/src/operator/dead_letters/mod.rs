//! `chat-api dead-letters`: events that a projection could not apply, and what is to become of them.

mod acknowledge;
mod decide;
mod list;
mod show;
mod shown;

use std::process::ExitCode;

use chat_domain::Position;
use chat_domain::operator_action::ProjectionName;
use chat_operations::dead_letters::list::{ListOptions, ProjectionDeadLetters};
use chat_operations::projections::Projections;
use clap::{Args, Subcommand};

use super::answer::{self, Answer, Severity};
use super::projections::{Name, failure, open};
use super::{Common, Deed};
use crate::failure::Failure;

/// The verbs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the events that could not be applied
    #[command(after_help = "\
Examples:
  chat-api dead-letters list
  chat-api dead-letters list --projection read-model --all -o json")]
    List(list::Options),
    /// Show one of them whole: what is stored, why it could not be applied, what a retry would come to
    #[command(after_help = "Example:\n  chat-api dead-letters show 4711")]
    Show(show::Options),
    /// Read parked events again, through this program; without --execute, only try it out
    #[command(after_help = "\
Examples:
  chat-api dead-letters retry 4711
  chat-api dead-letters retry --all --execute --reason 'version 1.4 knows MessagePinned'")]
    Retry(decide::RetryOptions),
    /// Give a parked event up, and go on with its stream behind it; without --execute, only try it out
    #[command(after_help = "\
Example:
  chat-api dead-letters discard 4711 --execute --reason 'written by a broken import, the sender knows'")]
    Discard(decide::DiscardOptions),
    /// Take note of discarded events: health reports show them no more
    #[command(after_help = "\
Example:
  chat-api dead-letters acknowledge 4711 --execute --reason 'the app was told'")]
    Acknowledge(acknowledge::Options),
}

/// In which projection.
#[derive(Args)]
struct Where {
    /// Only this projection [default: both]
    #[arg(long, value_name = "PROJECTION")]
    projection: Option<Name>,
    #[command(flatten)]
    common: Common,
}

/// Doing it, rather than saying what would be done.
#[derive(Args)]
struct Execution {
    /// Do it; without this, only say what would be done
    #[arg(long)]
    execute: bool,
    /// Only say what would be done (the default)
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// How long to wait until the projections have come to it, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    #[command(flatten)]
    deed: Deed,
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::List(options) => answer::print(options.place.common.output, list::run(&options).await),
        Command::Show(options) => answer::print(options.place.common.output, show::run(&options).await),
        Command::Retry(options) => answer::print(options.place.common.output, decide::retry(&options).await),
        Command::Discard(options) => {
            answer::print(options.place.common.output, decide::discard(&options).await)
        }
        Command::Acknowledge(options) => {
            answer::print(options.place.common.output, acknowledge::run(&options).await)
        }
    }
}

/// The projections that are meant and can be read from here.
struct Meant {
    projections: Projections,
    names: Vec<ProjectionName>,
    /// Those that can't be, unless it was asked for them.
    unreadable: Vec<ProjectionDeadLetters>,
}

impl Where {
    fn names(&self) -> Vec<ProjectionName> {
        self.projection.map_or_else(|| ProjectionName::ALL.to_vec(), |name| vec![name.into()])
    }

    async fn open(&self) -> Result<Meant, Failure> {
        let projections = open(&self.common).await?;
        let asked =
            ListOptions { projections: self.names(), stream: None, all: false, after: Position::START, limit: 0 };
        let listing =
            chat_operations::dead_letters::list::list(&projections, &asked).await.map_err(failure)?;
        let (unreadable, readable): (Vec<_>, Vec<_>) =
            listing.projections.into_iter().partition(|counted| counted.unreadable.is_some());
        let names = readable.into_iter().map(|counted| counted.name).collect();
        Ok(Meant { projections, names, unreadable })
    }
}

/// Says which projections were left out.
fn note_unreadable(mut answer: Answer, unreadable: &[ProjectionDeadLetters]) -> Answer {
    for ProjectionDeadLetters { name, unreadable, .. } in unreadable {
        let why = unreadable.as_deref().unwrap_or_default();
        answer = answer.note(Severity::Warning, format!("{} is left out: {why}", name.as_str()));
    }
    answer
}
