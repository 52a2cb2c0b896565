//! Switches queries over to newly promoted generations.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_domain::operator_action::{ProjectionGeneration, ProjectionName};
use chat_ports::read_model::ReadModel;
use chat_projector::ProjectorStatus;
use chat_projector::generations::{GenerationSet, Generations, ProjectionLocations};
use chat_query_api::{ProjectionProgress, PromotedProjections, QueryApi};
use chat_search::SearchIndexReader;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::projector_supervisor::ProjectorStatuses;
use super::{POLL_INTERVAL, initial_generation};

/// How long the new generations may take to reach the position of the old ones. If they take longer, they are being built
/// or have stopped, and the positions are compared anew.
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(500);

/// The pause before the next attempt to switch over.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The readers that queries use.
#[derive(Clone)]
pub(crate) struct ActiveReaders {
    pub(crate) generations: GenerationSet,
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) search: Arc<SearchIndexReader>,
}

/// Switches queries to the generations that operators have promoted.
pub(crate) struct QuerySwitchOver {
    locations: ProjectionLocations,
    generations: watch::Receiver<Generations>,
    projector_statuses: ProjectorStatuses,
    active: watch::Sender<ActiveReaders>,
}

impl QuerySwitchOver {
    /// Opens the live generations or, where one is not available yet, the one before it.
    pub(crate) async fn open(
        locations: ProjectionLocations,
        generations: watch::Receiver<Generations>,
        projector_statuses: ProjectorStatuses,
    ) -> Self {
        let known = generations.borrow().clone();
        // Each projection is decided by itself: an old generation without a projector may be days behind.
        let read_model = initial_generation(
            &locations,
            ProjectionName::ReadModel,
            known.for_projection(ProjectionName::ReadModel),
        )
        .await;
        let search_index = initial_generation(
            &locations,
            ProjectionName::SearchIndex,
            known.for_projection(ProjectionName::SearchIndex),
        )
        .await;
        let live = GenerationSet { read_model, search_index };
        let active = watch::Sender::new(open_readers(&locations, live, None));
        Self { locations, generations, projector_statuses, active }
    }

    /// What queries are answered from, now and later.
    pub(crate) fn active(&self) -> watch::Receiver<ActiveReaders> {
        self.active.subscribe()
    }

    /// How far the projections in use are.
    pub(crate) fn progress(&self) -> ProjectionProgress {
        self.progress_for(self.active.borrow().generations)
    }

    /// Switches queries over, again and again, for as long as the process answers any.
    pub(crate) async fn run(mut self, api: QueryApi) {
        loop {
            let wanted = self.generations.borrow_and_update().live();
            let now = self.active.borrow().clone();
            if wanted == now.generations {
                if self.generations.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let next = open_readers(&self.locations, wanted, Some(&now));
            let Some(reached) = self.wait_until_caught_up(&api, &now, &next).await else {
                sleep(RETRY_INTERVAL).await;
                continue;
            };
            let progress = self.progress_for(wanted);
            let (read_model, search) = (Arc::clone(&next.read_model), Arc::clone(&next.search));
            api.switch_over(PromotedProjections { read_model, search, progress, positions: reached });
            self.active.send_replace(next);
            tracing::info!(
                read_model = wanted.read_model.0,
                search_index = wanted.search_index.0,
                "queries are answered from these generations now"
            );
        }
    }

    /// Waits until the next generations have reached what the ones in use have; `None` where they are not close by.
    async fn wait_until_caught_up(
        &self,
        api: &QueryApi,
        now: &ActiveReaders,
        next: &ActiveReaders,
    ) -> Option<(Position, Position)> {
        for projection in ProjectionName::ALL {
            let id =
                ProjectionGeneration { projection, generation: next.generations.for_projection(projection) };
            if self.projector_statuses.supervises(projection) && self.projector_statuses.status(id).is_none()
            {
                return None;
            }
        }
        let (answered_rows, answered_documents) = api.answered_positions();
        // An unreadable old generation does not block the switch-over.
        let rows = now.read_model.position().await.unwrap_or_default().max(answered_rows);
        let documents = search_position(&now.search).await.unwrap_or_default().max(answered_documents);
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            let reached = (next.read_model.position().await.ok()?, search_position(&next.search).await?);
            if reached.0 >= rows && reached.1 >= documents {
                return Some(reached);
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The progress of these generations, as far as projectors of this process publish it.
    fn progress_for(&self, generations: GenerationSet) -> ProjectionProgress {
        let positions = |projection| {
            let status = self.projector_statuses.status(ProjectionGeneration {
                projection,
                generation: generations.for_projection(projection),
            })?;
            Some(map_to_positions(status))
        };
        ProjectionProgress {
            read_model: positions(ProjectionName::ReadModel),
            search: positions(ProjectionName::SearchIndex),
        }
    }
}

/// Opens the readers of a set of generations. A reader that is in use already is kept.
fn open_readers(
    locations: &ProjectionLocations,
    generations: GenerationSet,
    now: Option<&ActiveReaders>,
) -> ActiveReaders {
    let same_rows = now.filter(|now| now.generations.read_model == generations.read_model);
    let same_index = now.filter(|now| now.generations.search_index == generations.search_index);
    ActiveReaders {
        generations,
        read_model: same_rows.map_or_else(
            || locations.read_model(generations.read_model).reader(),
            |now| Arc::clone(&now.read_model),
        ),
        search: same_index.map_or_else(
            || Arc::new(SearchIndexReader::new(locations.search_index(generations.search_index))),
            |now| Arc::clone(&now.search),
        ),
    }
}

async fn search_position(reader: &Arc<SearchIndexReader>) -> Option<Position> {
    let reader = Arc::clone(reader);
    tokio::task::spawn_blocking(move || reader.position()).await.ok()?.ok()
}

/// The positions alone out of a projector's status.
fn map_to_positions(mut status: watch::Receiver<ProjectorStatus>) -> watch::Receiver<Position> {
    let (positions, receiver) = watch::channel(status.borrow().position);
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let position = status.borrow_and_update().position;
            positions.send_if_modified(|known| std::mem::replace(known, position) != position);
        }
    });
    receiver
}
