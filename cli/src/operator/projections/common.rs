//! Arguments and helpers that the projections commands share.

use chat_domain::projection::ProjectionName;
use chat_operations::projections::{Projections, ProjectionsError};
use clap::Args;

use crate::data_owner::run_command_as_owner;
use crate::engines::StorageLocations;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::CommandContext;
use crate::projection_name::ProjectionNameArg;
use crate::signals::{COMMAND_GRACE_PERIOD, ShutdownSignal};

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

/// Opens the log, and finds the locations of its projections, as the owner of the data: see [`run_command_as_owner`].
/// Fails if the log is in a backup.
pub(in crate::operator) async fn open_projections(common: &CommonArgs) -> Result<Projections, Failure> {
    run_command_as_owner(&StorageLocations::from_options(&common.engines, None)?)?;
    let context = CommandContext::open_unless_backup(common).await?;
    Ok(Projections { locations: context.locations.projection_locations(), log: context.event_store })
}

#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value")]
pub(in crate::operator) fn projections_failure(error: ProjectionsError) -> Failure {
    if matches!(error, ProjectionsError::Interrupted) {
        return Failure::interrupted(error.to_string());
    }
    match std::error::Error::source(&error) {
        Some(source) => Failure::because(&error, source),
        None => Failure::new(error.to_string()),
    }
}

/// Returns a receiver that becomes `true` at Ctrl-C or SIGTERM.
pub(super) fn cancel_on_signal() -> Result<tokio::sync::watch::Receiver<bool>, Failure> {
    Ok(ShutdownSignal::listen(COMMAND_GRACE_PERIOD)?.receiver())
}
