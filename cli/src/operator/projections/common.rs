//! Arguments and helpers that the projections commands share.

use chat_domain::projection::ProjectionName;
use chat_operations::projections::{Projections, ProjectionsError};
use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::operator::common_args::{ActionArgs, CommonArgs};
use crate::operator::context::CommandContext;

/// Name of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::operator) enum ProjectionNameArg {
    /// Apps, chats and messages as rows
    #[value(alias = "read_model")]
    ReadModel,
    /// The full-text index
    #[value(aliases = ["search_index", "search"])]
    SearchIndex,
}

impl From<ProjectionNameArg> for ProjectionName {
    fn from(name: ProjectionNameArg) -> Self {
        match name {
            ProjectionNameArg::ReadModel => Self::ReadModel,
            ProjectionNameArg::SearchIndex => Self::SearchIndex,
        }
    }
}

/// Arguments that select one projection or all.
#[derive(Args)]
pub(super) struct ProjectionSelection {
    /// Projection [default: all]
    name: Option<ProjectionNameArg>,
    /// All projections
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl ProjectionSelection {
    pub(super) fn names(&self) -> Vec<ProjectionName> {
        match self.name {
            Some(name) if !self.all => vec![name.into()],
            _ => ProjectionName::ALL.to_vec(),
        }
    }
}

/// Arguments of commands that are dry runs without `--execute`.
#[derive(Args)]
pub(super) struct ExecutionArgs {
    /// Execute the action; without this, only print what would be done
    #[arg(long)]
    pub(super) execute: bool,
    #[command(flatten)]
    pub(super) action: ActionArgs,
}

pub(in crate::operator) async fn open_projections(common: &CommonArgs) -> Result<Projections, Failure> {
    let context = CommandContext::open(common).await?;
    Ok(Projections { locations: context.locations.projection_locations(), log: context.event_store })
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
pub(in crate::operator) fn projections_failure(error: ProjectionsError) -> Failure {
    match std::error::Error::source(&error) {
        Some(source) => Failure::because(&error, source),
        None => Failure::new(error.to_string()),
    }
}

/// Returns a receiver that becomes `true` at Ctrl-C or SIGTERM.
pub(super) fn cancel_on_signal() -> Result<tokio::sync::watch::Receiver<bool>, Failure> {
    let stop = crate::signals::shutdown_signal()?;
    let (cancel, cancelled) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        stop.await;
        cancel.send_replace(true);
        // The sender is kept alive: a receiver would treat its drop as a cancellation.
        cancel.closed().await;
    });
    Ok(cancelled)
}
