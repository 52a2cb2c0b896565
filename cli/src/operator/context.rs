//! The storage that an operator command works on.

use std::sync::Arc;

use chat_domain::projection::ProjectionName;
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_ports::read_model::ReadModel;
use chat_projector::generations::Generations;
use chat_projector::generations::ReadModelLocation;

use super::common_args::CommonArgs;
use crate::engines::{StorageLocations, open_existing_event_store};
use crate::failure::Failure;

/// The storage locations, and the opened event store.
pub(super) struct CommandContext {
    pub(super) locations: StorageLocations,
    pub(super) event_store: Arc<dyn EventStore>,
}

impl CommandContext {
    pub(super) async fn open(common: &CommonArgs) -> Result<Self, Failure> {
        let locations = StorageLocations::from_options(&common.engines, None)?;
        let event_store = open_existing_event_store(&locations.event_store).await?;
        Ok(Self { locations, event_store })
    }

    /// Opens the live generation of the read model, and returns its location with it.
    pub(super) async fn read_model(&self) -> Result<(Arc<dyn ReadModel>, ReadModelLocation), Failure> {
        let generations = Generations::load(&*self.event_store).await;
        let generations =
            generations.map_err(|error| Failure::because("the operators' actions can't be read", &error))?;
        let live = generations.for_projection(ProjectionName::ReadModel).live;
        let location = self.locations.projection_locations().read_model(live);
        if let ReadModelLocation::Sqlite(path) = &location
            && !path.exists()
        {
            return Err(Failure::new(format!(
                "there is no read model at {location}; set --data-dir or --database-url to where it is"
            )));
        }
        Ok((location.reader(), location))
    }
}

/// Converts an error of the event store into a failure.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn event_store_failure(error: EventStoreError) -> Failure {
    Failure::because("the event log can't be read", &error)
}
