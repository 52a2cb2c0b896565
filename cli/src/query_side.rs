//! Connects the query API to the projections: passes it the positions of the projections that it reads, and the readers
//! of another generation at a switch-over.

use chat_domain::Position;
use chat_projector::ProjectorStatus;
use chat_projector::generations::{ActiveReaders, PositionSet, QuerySide};
use chat_query_api::{ProjectionProgress, PromotedProjections, QueryApi};
use tokio::sync::watch;

/// The query API as the participant of a switch-over: reports the positions of its answers and takes new readers.
pub(crate) struct ApiQuerySide(pub(crate) QueryApi);

impl QuerySide for ApiQuerySide {
    fn answered_positions(&self) -> PositionSet {
        let (read_model, search_index) = self.0.answered_positions();
        PositionSet { read_model, search_index }
    }

    fn switch_over(&self, readers: &ActiveReaders, reached: PositionSet) {
        self.0.switch_over(PromotedProjections {
            read_model: readers.read_model.clone(),
            search: readers.search.clone(),
            progress: projection_progress(readers),
            positions: (reached.read_model, reached.search_index),
        });
    }
}

/// Returns the positions of the projections that `readers` read. The position of the read model is absent if the read
/// model's projector runs in another process.
pub(crate) fn projection_progress(readers: &ActiveReaders) -> ProjectionProgress {
    ProjectionProgress {
        read_model: readers.read_model_status.clone().map(map_to_positions),
        search: Some(readers.search_position.clone()),
    }
}

/// Returns a channel of the positions in a projector's status.
fn map_to_positions(mut status: watch::Receiver<ProjectorStatus>) -> watch::Receiver<Position> {
    let (positions, receiver) = watch::channel(status.borrow().position);
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let position = status.borrow_and_update().position;
            positions.send_if_modified(|last| std::mem::replace(last, position) != position);
        }
    });
    receiver
}
