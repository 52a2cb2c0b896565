//! Switches queries over to newly promoted generations.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_search::SearchIndexReader;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::locations::ProjectionLocations;
use super::projector_supervisor::ProjectorStatuses;
use super::registry::{GenerationSet, Generations};
use crate::search::{TailLimits, spawn_tail};
use crate::status::ProjectorStatus;

/// The interval at which the positions of new generations are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The time within which the new generations must reach the positions of the old ones. If the new ones take longer,
/// they are being built or their projectors have stopped, and a later attempt reads the old ones' positions again.
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(500);

/// The pause before the next attempt to switch over.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The query side of a process. It answers new queries from the readers of the last switch-over. Before the first
/// switch-over, it uses the readers that [`QuerySwitchOver::open`] opened.
pub trait QuerySide: Send + Sync + 'static {
    /// Returns the newest position of the answers so far, for each projection.
    fn answered_positions(&self) -> PositionSet;

    /// Answers later queries from `readers`, which have reached the positions `reached`. Called from one task.
    /// `reached` is not behind the result of the last call of [`answered_positions`](Self::answered_positions).
    fn switch_over(&self, readers: &ActiveReaders, reached: PositionSet);
}

/// A position of each projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionSet {
    /// The read model's position.
    pub read_model: Position,
    /// The search index's position.
    pub search_index: Position,
}

/// The readers that queries use.
#[derive(Clone)]
pub struct ActiveReaders {
    /// The generations that they read.
    pub generations: GenerationSet,
    /// The reader of the read model.
    pub read_model: Arc<dyn ReadModel>,
    /// The reader of the search index.
    pub search: Arc<SearchIndexReader>,
    /// The status of the read model's projector, if it runs in this process.
    pub read_model_status: Option<watch::Receiver<ProjectorStatus>>,
    /// The status of the search index's projector, if it runs in this process.
    pub search_status: Option<watch::Receiver<ProjectorStatus>>,
    /// The position up to which searches find events. It is the position of the tail, ahead of the index's commits.
    pub search_position: watch::Receiver<Position>,
}

/// Switches queries to the generations that operators have promoted.
///
/// The switch-over waits until the new generations have reached the positions that the old generations and the answers
/// to queries had when the wait began. It does not wait for other processes: each process follows the log by itself.
pub struct QuerySwitchOver {
    locations: ProjectionLocations,
    generations: watch::Receiver<Generations>,
    projector_statuses: ProjectorStatuses,
    event_store: Arc<dyn EventStore>,
    active: watch::Sender<ActiveReaders>,
}

impl QuerySwitchOver {
    /// Opens the live generation of each projection, or the previous one if the live one is behind it or can't be read.
    pub async fn open(
        locations: ProjectionLocations,
        generations: watch::Receiver<Generations>,
        projector_statuses: ProjectorStatuses,
        event_store: Arc<dyn EventStore>,
    ) -> Self {
        let recorded = generations.borrow().clone();
        let head = event_store.head().await.ok();
        // The generation is selected for each projection separately: if one projection uses its previous generation,
        // the previous generation of the other may have no projector any more, and be days behind.
        let initial = async |projection| {
            locations.initial_generation(projection, recorded.for_projection(projection), head).await
        };
        let generation_set = GenerationSet {
            read_model: initial(ProjectionName::ReadModel).await,
            search_index: initial(ProjectionName::SearchIndex).await,
        };
        let readers = open_readers(&locations, &projector_statuses, &event_store, generation_set, &[]);
        let active = watch::Sender::new(readers);
        Self { locations, generations, projector_statuses, event_store, active }
    }

    /// Returns a channel with the readers that queries use.
    pub fn active(&self) -> watch::Receiver<ActiveReaders> {
        self.active.subscribe()
    }

    /// Switches queries over after promotions and rollbacks. Ends when the sender of the generations is dropped and the
    /// last switch-over is complete.
    pub async fn run(mut self, query_side: impl QuerySide) {
        // The readers of the last attempt are kept, because their tail needs a moment to reach the head of the log.
        let mut attempted = None;
        loop {
            let promoted = self.generations.borrow_and_update().live();
            let current = self.active.borrow().clone();
            if promoted == current.generations {
                // A promotion may have been rolled back before its readers had caught up.
                attempted = None;
                if self.generations.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let opened: Vec<_> = [&current].into_iter().chain(&attempted).collect();
            let next =
                open_readers(&self.locations, &self.projector_statuses, &self.event_store, promoted, &opened);
            let Some(reached) = self.wait_until_caught_up(&query_side, &current, &next).await else {
                attempted = Some(next);
                sleep(RETRY_INTERVAL).await;
                continue;
            };
            attempted = None;
            query_side.switch_over(&next, reached);
            self.active.send_replace(next);
            tracing::info!(
                read_model = promoted.read_model.0,
                search_index = promoted.search_index.0,
                "queries are answered from these generations now"
            );
        }
    }

    /// Waits until the next generations have reached the positions of the current ones and of the answers to queries
    /// so far. Returns `None` if this takes longer than the timeout, or if the next generations can't be read.
    /// Also returns `None` if this process runs the projectors of a projection, and the projector of its next
    /// generation has not started.
    async fn wait_until_caught_up(
        &self,
        query_side: &impl QuerySide,
        current: &ActiveReaders,
        next: &ActiveReaders,
    ) -> Option<PositionSet> {
        for (projection, status) in [
            (ProjectionName::ReadModel, &next.read_model_status),
            (ProjectionName::SearchIndex, &next.search_status),
        ] {
            if self.projector_statuses.supervises(projection) && status.is_none() {
                return None;
            }
        }
        let answered = query_side.answered_positions();
        // An unreadable old generation does not block the switch-over.
        let read_model_target =
            current.read_model.position().await.unwrap_or_default().max(answered.read_model);
        let search_index_target =
            read_search_position(&current.search).await.unwrap_or_default().max(answered.search_index);
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            let reached = PositionSet {
                read_model: next.read_model.position().await.ok()?,
                search_index: read_search_position(&next.search).await?,
            };
            if reached.read_model >= read_model_target && reached.search_index >= search_index_target {
                return Some(reached);
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// Opens the readers of a set of generations. Reuses readers that are opened already.
fn open_readers(
    locations: &ProjectionLocations,
    projector_statuses: &ProjectorStatuses,
    event_store: &Arc<dyn EventStore>,
    generations: GenerationSet,
    opened: &[&ActiveReaders],
) -> ActiveReaders {
    let same_read_model =
        opened.iter().find(|readers| readers.generations.read_model == generations.read_model);
    let same_index =
        opened.iter().find(|readers| readers.generations.search_index == generations.search_index);
    let status = |projection| {
        let generation = generations.for_projection(projection);
        projector_statuses.status(ProjectionGeneration { projection, generation })
    };
    let open_search = || {
        let search = Arc::new(SearchIndexReader::new(locations.search_index(generations.search_index)));
        let position = spawn_tail(&search, Arc::clone(event_store), TailLimits::default());
        (search, position)
    };
    let (search, search_position) = same_index
        .map_or_else(open_search, |readers| (Arc::clone(&readers.search), readers.search_position.clone()));
    ActiveReaders {
        generations,
        read_model: same_read_model.map_or_else(
            || locations.read_model(generations.read_model).reader(),
            |readers| Arc::clone(&readers.read_model),
        ),
        search,
        read_model_status: status(ProjectionName::ReadModel),
        search_status: status(ProjectionName::SearchIndex),
        search_position,
    }
}

async fn read_search_position(reader: &Arc<SearchIndexReader>) -> Option<Position> {
    let reader = Arc::clone(reader);
    tokio::task::spawn_blocking(move || reader.position()).await.ok()?.ok()
}
