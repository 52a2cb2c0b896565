//! Arguments and helpers that the projections commands share.

use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_operations::projections::{Projections, ProjectionsError};
use clap::Args;

use crate::data_owner::run_command_as_owner;
use crate::engines::{EngineOptions, StorageLocations};
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};
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

/// Arguments that select the projections of a switch-over, or of a comparison before it.
#[derive(Args)]
pub(super) struct SwitchOverSelection {
    /// Projection [default: `promote` takes those that are being built, or else those that the last rollback changed;
    /// `rollback` takes those that the last promotion changed; `diff` takes those that are being built, or else all]
    name: Option<ProjectionNameArg>,
    /// All projections
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl SwitchOverSelection {
    /// Returns the selected projections; `None` if the arguments select none, so that the defaults of `name` apply.
    pub(super) fn names(&self) -> Option<Vec<ProjectionName>> {
        if self.all {
            return Some(ProjectionName::ALL.to_vec());
        }
        self.name.map(|name| vec![name.into()])
    }
}

/// Opens the projections as [`open_projections`] does, for a command that builds, removes or compares generations of the
/// projections `names`. Fails as [`ensure_located`] does.
pub(super) async fn open_projections_for_changes(
    common: &CommonArgs,
    names: &[ProjectionName],
) -> Result<Projections, Failure> {
    let projections = open_projections(common).await?;
    ensure_located(common, &projections, names).await?;
    Ok(projections)
}

/// Fails if a projection has no generation at its default location, no option gives its location, and the log has
/// events: the generations are probably elsewhere, and the command lacks the options that the processes of the system
/// have.
pub(super) async fn ensure_located(
    common: &CommonArgs,
    projections: &Projections,
    names: &[ProjectionName],
) -> Result<(), Failure> {
    for name in names {
        if is_location_given(&common.engines, *name) {
            continue;
        }
        let stored = projections.locations.stored_generations(*name).await;
        // The command itself reports a folder that can't be read.
        if stored.is_ok_and(|stored| stored.is_empty())
            && projections.log.head().await.map_err(event_store_failure)? > Position::START
        {
            return Err(no_generation(&StorageLocations::from_options(&common.engines, None)?, *name));
        }
    }
    Ok(())
}

/// Whether an option or a variable gives the location of a projection.
pub(in crate::operator) fn is_location_given(engines: &EngineOptions, name: ProjectionName) -> bool {
    match name {
        ProjectionName::ReadModel => engines.database_url.is_some(),
        ProjectionName::SearchIndex => engines.search_index_dir.is_some(),
    }
}

/// Advises to give the location of a projection.
pub(in crate::operator) fn location_advice(name: ProjectionName) -> &'static str {
    match name {
        ProjectionName::ReadModel => "set DATABASE_URL as the processes have it",
        ProjectionName::SearchIndex => "set SEARCH_INDEX_DIR as the processes have it",
    }
}

fn no_generation(locations: &StorageLocations, name: ProjectionName) -> Failure {
    let StorageLocations { read_model, search_index, .. } = locations;
    let (location, option) = match name {
        ProjectionName::ReadModel => {
            (read_model.to_string(), format!("--database-url sqlite://{read_model}"))
        }
        ProjectionName::SearchIndex => {
            let folder = search_index.display().to_string();
            (folder.clone(), format!("--search-index-dir {folder}"))
        }
    };
    Failure::new(format!(
        "the log has events, but no generation of {} is stored at {location}: {}. To begin there nevertheless, give the \
         location: {option}",
        name.as_str(),
        location_advice(name)
    ))
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
