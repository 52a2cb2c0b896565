//! What the routes answer from.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRef;
use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_ports::search_index::SearchIndex;
use chat_web::admin_auth::AdminAccess;
use tokio::sync::watch;

use crate::consistency_wait::ConsistencyWaiter;
use crate::lag::LagMeter;
use crate::monotonic_reads::{AnsweredPositions, MinimumPositions, MonotonicReadGuard};
use crate::search::SearchExecutor;

/// The ports that queries read.
#[derive(Clone)]
pub struct QueryPorts {
    /// Apps, chats and messages.
    pub read_model: Arc<dyn ReadModel>,
    /// What messages say.
    pub search: Arc<dyn SearchIndex>,
    /// Histories, and where the log ends.
    pub event_store: Arc<dyn EventStore>,
}

/// How far the projections are, where a projector of the same process tells. A query that waits for a position wakes as
/// soon as it is reached, rather than at its next look.
#[derive(Clone, Debug, Default)]
pub struct ProjectionProgress {
    /// The read model's position.
    pub read_model: Option<watch::Receiver<Position>>,
    /// The search index's position.
    pub search: Option<watch::Receiver<Position>>,
}

/// Projections to answer from instead of those before.
pub struct PromotedProjections {
    /// Apps, chats and messages.
    pub read_model: Arc<dyn ReadModel>,
    /// What messages say.
    pub search: Arc<dyn SearchIndex>,
    /// How far both are, where a projector of this process tells.
    pub progress: ProjectionProgress,
    /// The positions that they were seen at: of the read model, and of the search index.
    pub positions: (Position, Position),
}

/// The query side. Cheap to clone.
///
/// What it answers from can be replaced while it does ([`QueryApi::switch`]).
#[derive(Clone)]
pub struct QueryApi {
    live: Arc<RwLock<LiveState>>,
    shared: Arc<SharedState>,
}

/// What stays as long as the process.
pub(crate) struct SharedState {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) lag_meter: LagMeter,
    pub(crate) consistency_waiter: ConsistencyWaiter,
    answered_positions: AnsweredPositions,
    admin: AdminAccess,
}

struct LiveState {
    projections: Arc<LiveProjections>,
    monotonic_guard: Option<MonotonicReadGuard>,
}

/// The projections that queries are answered from: replaced together, and never one without the other.
pub(crate) struct LiveProjections {
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) search: SearchExecutor,
    pub(crate) progress: ProjectionProgress,
    /// The newest positions that answers from these have shown.
    pub(crate) answered_positions: AnsweredPositions,
}

/// The query side as one request sees it, from its start to its end.
#[derive(Clone)]
pub(crate) struct QueryContext {
    pub(crate) projections: Arc<LiveProjections>,
    /// What the answer must hold whatever the client asks for.
    pub(crate) minimum_positions: MinimumPositions,
    pub(crate) shared: Arc<SharedState>,
}

impl QueryApi {
    /// The query side over these ports.
    pub fn new(ports: QueryPorts, progress: ProjectionProgress, admin: AdminAccess) -> Self {
        let QueryPorts { read_model, search, event_store } = ports;
        let sources = Arc::new(LiveProjections {
            read_model,
            search: SearchExecutor::new(search),
            progress,
            answered_positions: AnsweredPositions::default(),
        });
        let fixed = SharedState {
            lag_meter: LagMeter::new(Arc::clone(&event_store)),
            event_store,
            consistency_waiter: ConsistencyWaiter::new(),
            answered_positions: AnsweredPositions::default(),
            admin,
        };
        Self {
            live: Arc::new(RwLock::new(LiveState { projections: sources, monotonic_guard: None })),
            shared: Arc::new(fixed),
        }
    }

    /// Answers from other projections from here on. Requests that have begun end on those that they began with; answers
    /// to later ones are as of no earlier position than any that was given before, by whichever.
    pub fn switch_over(&self, to: PromotedProjections) {
        let PromotedProjections { read_model, search, progress, positions: reached } = to;
        let mut current = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let search = current.projections.search.with_index(search);
        let sources = LiveProjections {
            read_model,
            search,
            progress,
            answered_positions: AnsweredPositions::from_positions(reached),
        };
        let before = std::mem::replace(&mut current.projections, Arc::new(sources));
        let settling = MonotonicReadGuard::after_switch_over(&before, current.monotonic_guard.take());
        current.monotonic_guard = Some(settling);
    }

    /// The newest positions that answers have shown: of the read model, and of the search index.
    pub fn answered_positions(&self) -> (Position, Position) {
        self.shared.answered_positions.newest()
    }

    fn context(&self) -> QueryContext {
        let (sources, floor) = self.live_projections();
        QueryContext { projections: sources, minimum_positions: floor, shared: Arc::clone(&self.shared) }
    }

    fn live_projections(&self) -> (Arc<LiveProjections>, MinimumPositions) {
        let current = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let sources = Arc::clone(&current.projections);
        let Some(settling) = &current.monotonic_guard else { return (sources, MinimumPositions::default()) };
        let floor = settling.minimum_positions(&self.shared.answered_positions, &sources.answered_positions);
        drop(current);
        if floor.is_unconstrained() {
            self.end_switch_over(&sources);
        }
        (sources, floor)
    }

    /// The switch is over: nothing is asked of answers any more but what clients ask.
    fn end_switch_over(&self, sources: &Arc<LiveProjections>) {
        let mut current = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current.projections, sources) {
            current.monotonic_guard = None;
        }
    }
}

impl QueryContext {
    /// An answer from the read model is about to be given.
    pub(crate) fn record_read_model_answer(&self, position: Position) {
        self.projections.answered_positions.record_read_model(position);
        self.shared.answered_positions.record_read_model(position);
    }

    /// An answer from the search index is about to be given.
    pub(crate) fn record_search_answer(&self, position: Position) {
        self.projections.answered_positions.record_search_index(position);
        self.shared.answered_positions.record_search_index(position);
    }
}

impl FromRef<QueryApi> for QueryContext {
    fn from_ref(api: &QueryApi) -> Self {
        api.context()
    }
}

impl FromRef<QueryApi> for AdminAccess {
    fn from_ref(api: &QueryApi) -> Self {
        api.shared.admin.clone()
    }
}
