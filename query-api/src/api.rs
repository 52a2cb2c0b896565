//! What the routes answer from.

use std::sync::Arc;

use axum::extract::FromRef;
use chat_domain::Position;
use chat_infra::event_store::EventStore;
use chat_infra::read_model::ReadModel;
use chat_web::admin::AdminAccess;
use tokio::sync::watch;

use crate::freshness::Waiting;
use crate::lag::Log;
use crate::search::{Search, SearchGate};

/// The ports that queries read.
#[derive(Clone)]
pub struct QueryPorts {
    /// Apps, chats and messages.
    pub read_model: Arc<dyn ReadModel>,
    /// What messages say.
    pub search: Arc<dyn Search>,
    /// Histories, and where the log ends.
    pub event_store: Arc<dyn EventStore>,
}

/// How far the projections are, where a projector of the same process tells. A query that waits for a position wakes as
/// soon as it is reached, rather than at its next look.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The read model's position.
    pub read_model: Option<watch::Receiver<Position>>,
    /// The search index's position.
    pub search: Option<watch::Receiver<Position>>,
}

/// The query side. Cheap to clone.
#[derive(Clone)]
pub struct QueryApi {
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) search: Arc<SearchGate>,
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) log: Arc<Log>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) progress: Arc<Progress>,
    admin: AdminAccess,
}

impl QueryApi {
    /// The query side over these ports.
    pub fn new(ports: QueryPorts, progress: Progress, admin: AdminAccess) -> Self {
        Self {
            read_model: ports.read_model,
            search: Arc::new(SearchGate::new(ports.search)),
            log: Arc::new(Log::new(Arc::clone(&ports.event_store))),
            event_store: ports.event_store,
            waiting: Arc::new(Waiting::new()),
            progress: Arc::new(progress),
            admin,
        }
    }
}

impl FromRef<QueryApi> for AdminAccess {
    fn from_ref(api: &QueryApi) -> Self {
        api.admin.clone()
    }
}
