//! The storage that an operator command works on.

use std::sync::Arc;

use chat_domain::projection::ProjectionName;
use chat_operations::operator_actions::closed_log_warning;
use chat_ports::event_store::{AppendGate, EventStore, EventStoreError, GatedEventStore};
use chat_ports::read_model::ReadModelStorage;
use chat_projector::generations::Generations;

use super::answer;
use super::common_args::{CommonArgs, OutputFormat};
use crate::engines::{ReadModelLocation, StorageLocations, open_backup, refuse_backup};
use crate::failure::Failure;
use crate::log_guard::{LogEvidence, LogProblem, MISSING_LOG_ADVICE, open_existing_log};

/// The storage locations, and the opened event store.
pub(super) struct CommandContext {
    pub(super) locations: StorageLocations,
    pub(super) event_store: Arc<dyn EventStore>,
    pub(super) is_backup: bool,
    /// What the evidence says against the log. `None` for a log in a backup.
    pub(super) problem: Option<LogProblem>,
}

impl CommandContext {
    /// Opens the log. A log in a backup can only be read: everything that would change it fails.
    pub(super) async fn open(common: &CommonArgs) -> Result<Self, Failure> {
        let locations = StorageLocations::from_options(&common.engines, None)?;
        let Some(backup) = open_backup(&locations.event_store).await? else {
            return Self::open_log_outside_backup(locations, common.output).await;
        };
        let event_store = read_only(backup, "it belongs to a backup");
        Ok(Self { locations, event_store, is_backup: true, problem: None })
    }

    /// Opens the log. Fails if the log is in a backup.
    pub(super) async fn open_unless_backup(common: &CommonArgs) -> Result<Self, Failure> {
        let locations = StorageLocations::from_options(&common.engines, None)?;
        refuse_backup(&locations.event_store)?;
        Self::open_log_outside_backup(locations, common.output).await
    }

    /// Opens a log that is not in a backup. If the evidence shows that the log has lost events or is another log
    /// than before, warns of that, and everything that would change the log fails.
    async fn open_log_outside_backup(
        locations: StorageLocations,
        output: OutputFormat,
    ) -> Result<Self, Failure> {
        let evidence = LogEvidence::read(&locations).await;
        if let Some(problem) = evidence.problem_of_missing_log(&locations.event_store) {
            return Err(Failure::new(format!("{problem}; {MISSING_LOG_ADVICE}")));
        }
        let event_store = open_existing_log(&locations.event_store, &evidence).await?;
        let problem = evidence.problem_of_log(&*event_store).await.map_err(event_store_failure)?;
        let Some(problem) = problem else {
            return Ok(Self { locations, event_store, is_backup: false, problem: None });
        };
        let event_store = read_only(event_store, problem.to_string());
        if let Some(warning) = closed_log_warning(&*event_store) {
            answer::warn_about_log(output, warning);
        }
        Ok(Self { locations, event_store, is_backup: false, problem: Some(problem) })
    }

    /// Returns the live generation of the read model.
    pub(super) async fn read_model(&self) -> Result<Arc<dyn ReadModelStorage>, Failure> {
        let generations = Generations::load(&*self.event_store).await;
        let generations =
            generations.map_err(|error| Failure::because("the operators' actions can't be read", &error))?;
        let live = generations.for_projection(ProjectionName::ReadModel).live;
        let storage = self.locations.projection_locations().read_model(live);
        if matches!(self.locations.read_model, ReadModelLocation::Sqlite(_))
            && storage.size_in_bytes().await.is_none()
        {
            return Err(Failure::new(format!(
                "there is no read model at {storage}; set --data-dir or --database-url to its location"
            )));
        }
        Ok(storage)
    }
}

/// Puts a closed gate before a log, so that every append fails with `reason`.
fn read_only(event_store: Arc<dyn EventStore>, reason: impl Into<String>) -> Arc<dyn EventStore> {
    let gate = AppendGate::default();
    gate.close(reason);
    Arc::new(GatedEventStore::new(event_store, gate))
}

/// Converts an error of the event store into a failure.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn event_store_failure(error: EventStoreError) -> Failure {
    Failure::because("the event log can't be read", &error)
}
