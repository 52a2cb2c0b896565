//! Shared state of the query routes: ports, live projections, consistency waits.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use axum::extract::FromRef;
use chat_domain::{AppToken, Position};
use chat_ports::event_store::{EventStore, LogLineage};
use chat_ports::read_model::{Missing, ReadModel, ReadModelError, Snapshot};
use chat_ports::search_index::SearchIndex;
use chat_web::Problem;
use chat_web::admin_auth::AdminAccess;
use chat_web::consistency::{Freshness, LogTag};
use tokio::sync::watch;

use crate::consistency_wait::ConsistencyWaiter;
use crate::fair_share::Tenant;
use crate::lag::LagMeter;
use crate::live_feed::{LiveFeed, LiveFeedOptions};
use crate::log_head::LogHead;
use crate::monotonic_reads::{AnsweredPositions, MinimumPositions, NewestPosition, raise_freshness};
use crate::search::SearchExecutor;

/// The ports of the query API.
#[derive(Clone)]
pub struct QueryPorts {
    /// The read model of apps, chats and messages.
    pub read_model: Arc<dyn ReadModel>,
    /// The search index.
    pub search: Arc<dyn SearchIndex>,
    /// The event store, for histories, the live feed, the head of the log, and lags.
    pub event_store: Arc<dyn EventStore>,
    /// The incarnations of the event store's log.
    pub lineage: LogLineage,
}

/// Positions published in the same process: by the projector of the read model and by the tail of the search index.
/// A query that waits for a position is woken as soon as the position is published, before the next poll of the query.
#[derive(Clone, Debug, Default)]
pub struct ProjectionProgress {
    /// The read model's position.
    pub read_model: Option<watch::Receiver<Position>>,
    /// The search index's position.
    pub search: Option<watch::Receiver<Position>>,
}

/// Newly promoted projections, for [`QueryApi::switch_over`].
pub struct PromotedProjections {
    /// The read model of apps, chats and messages.
    pub read_model: Arc<dyn ReadModel>,
    /// The search index.
    pub search: Arc<dyn SearchIndex>,
    /// Positions published in the same process.
    pub progress: ProjectionProgress,
    /// Positions that the projections have reached: of the read model and of the search index.
    pub positions: (Position, Position),
}

/// The query API. Cheap to clone.
///
/// Its projections can be replaced while it serves requests ([`QueryApi::switch_over`]).
#[derive(Clone)]
pub struct QueryApi {
    live: Arc<RwLock<Arc<LiveProjections>>>,
    shared: Arc<SharedState>,
}

/// State that stays the same across switch-overs.
pub(crate) struct SharedState {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) log_tag: LogTag,
    lineage: Arc<LogLineage>,
    pub(crate) log_head: Arc<LogHead>,
    pub(crate) lag_meter: LagMeter,
    pub(crate) consistency_waiter: ConsistencyWaiter,
    pub(crate) live_feed: LiveFeed,
    /// The newest positions of any response so far, from any generation.
    answered_positions: AnsweredPositions,
    admin: AdminAccess,
}

/// The projections that queries are answered from. They are replaced together.
pub(crate) struct LiveProjections {
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) search: SearchExecutor,
    pub(crate) progress: ProjectionProgress,
    /// The newest positions of any response so far from these projections. After a switch-over, they begin with the
    /// positions that the projections had reached.
    answered_positions: AnsweredPositions,
    /// The projections that these have replaced. They exist as long as requests are in flight on them.
    previous: Vec<Weak<LiveProjections>>,
}

/// The query API as one request sees it, from its start to its end.
#[derive(Clone)]
pub(crate) struct QueryContext {
    pub(crate) projections: Arc<LiveProjections>,
    pub(crate) minimum_positions: MinimumPositions,
    pub(crate) shared: Arc<SharedState>,
}

impl QueryApi {
    /// Creates the query API from its ports.
    pub fn new(
        ports: QueryPorts,
        progress: ProjectionProgress,
        admin: AdminAccess,
        live_feed: LiveFeedOptions,
    ) -> Self {
        let QueryPorts { read_model, search, event_store, lineage } = ports;
        let log_head = Arc::new(LogHead::new(Arc::clone(&event_store)));
        let projections = LiveProjections {
            read_model,
            search: SearchExecutor::new(search),
            progress,
            answered_positions: AnsweredPositions::default(),
            previous: Vec::new(),
        };
        let shared = SharedState {
            lag_meter: LagMeter::new(Arc::clone(&event_store), Arc::clone(&log_head)),
            live_feed: LiveFeed::new(Arc::clone(&event_store), lineage.current().into(), live_feed),
            event_store,
            log_tag: lineage.current().into(),
            lineage: Arc::new(lineage),
            consistency_waiter: ConsistencyWaiter::new(Arc::clone(&log_head)),
            log_head,
            answered_positions: AnsweredPositions::default(),
            admin,
        };
        Self { live: Arc::new(RwLock::new(Arc::new(projections))), shared: Arc::new(shared) }
    }

    /// Switches over to the promoted projections: answers later requests from them. Requests that have begun end on the
    /// projections that they began with. No later response is older than an earlier one.
    pub fn switch_over(&self, promoted: PromotedProjections) {
        let PromotedProjections { read_model, search, progress, positions } = promoted;
        let (read_model_position, search_position) = positions;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let mut previous = live.previous.clone();
        previous.push(Arc::downgrade(&live));
        previous.retain(|projections| projections.strong_count() > 0);
        *live = Arc::new(LiveProjections {
            read_model,
            search: live.search.with_index(search),
            progress,
            answered_positions: AnsweredPositions {
                read_model: NewestPosition::new(read_model_position),
                search_index: NewestPosition::new(search_position),
            },
            previous,
        });
    }

    /// Returns the newest positions of any response so far: of the read model and of the search index.
    pub fn answered_positions(&self) -> (Position, Position) {
        let AnsweredPositions { read_model, search_index } = &self.shared.answered_positions;
        (read_model.get(), search_index.get())
    }
}

impl QueryContext {
    /// Queries the read model for a resource of an app, in a snapshot that is fresh enough.
    pub(crate) async fn query_app<T, F>(
        &self,
        app: AppToken,
        freshness: Freshness,
        query: impl Fn() -> F,
    ) -> Result<Snapshot<Result<T, Missing>>, Problem>
    where
        F: Future<Output = Result<Snapshot<Result<T, Missing>>, ReadModelError>>,
    {
        self.query_read_model(freshness, |found| Tenant::from_query(app, found), query).await
    }

    /// Queries the read model for a snapshot that is fresh enough. A wait for it counts against the share of the
    /// [`Tenant`] that `tenant_of` returns.
    pub(crate) async fn query_read_model<T, F>(
        &self,
        freshness: Freshness,
        tenant_of: impl FnOnce(&T) -> Tenant,
        query: impl Fn() -> F,
    ) -> Result<Snapshot<T>, Problem>
    where
        F: Future<Output = Result<Snapshot<T>, ReadModelError>>,
    {
        let freshness = raise_freshness(freshness, self.minimum_positions.read_model);
        let snapshot = self
            .shared
            .consistency_waiter
            .query_when_fresh(freshness, self.projections.progress.read_model.as_ref(), tenant_of, query)
            .await?;
        self.record_read_model_answer(snapshot.position);
        Ok(snapshot)
    }

    /// Records the position of a response from the read model, before it is sent.
    pub(crate) fn record_read_model_answer(&self, position: Position) {
        self.projections.answered_positions.read_model.raise(position);
        self.shared.answered_positions.read_model.raise(position);
    }

    /// Records the position of a response from the search index, before it is sent.
    pub(crate) fn record_search_answer(&self, position: Position) {
        self.projections.answered_positions.search_index.raise(position);
        self.shared.answered_positions.search_index.raise(position);
    }
}

impl FromRef<QueryApi> for QueryContext {
    fn from_ref(api: &QueryApi) -> Self {
        // The lock is held to the end of the function, so that no switch-over happens meanwhile.
        let live = api.live.read().unwrap_or_else(PoisonError::into_inner);
        let previous_in_use = live.previous.iter().any(|projections| projections.strong_count() > 0);
        let minimum_positions =
            MinimumPositions::new(&api.shared.answered_positions, &live.answered_positions, previous_in_use);
        Self { projections: Arc::clone(&live), minimum_positions, shared: Arc::clone(&api.shared) }
    }
}

impl FromRef<QueryApi> for Arc<LogLineage> {
    fn from_ref(api: &QueryApi) -> Self {
        Self::clone(&api.shared.lineage)
    }
}

impl FromRef<QueryApi> for AdminAccess {
    fn from_ref(api: &QueryApi) -> Self {
        api.shared.admin.clone()
    }
}
