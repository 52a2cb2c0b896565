//! What the routes answer from.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRef;
use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_web::admin::AdminAccess;
use tokio::sync::watch;

use crate::floor::{Floor, Settling, Shown};
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

/// Projections to answer from instead of those before.
pub struct Projections {
    /// Apps, chats and messages.
    pub read_model: Arc<dyn ReadModel>,
    /// What messages say.
    pub search: Arc<dyn Search>,
    /// How far both are, where a projector of this process tells.
    pub progress: Progress,
    /// The positions that they were seen at: of the read model, and of the search index.
    pub reached: (Position, Position),
}

/// The query side. Cheap to clone.
///
/// What it answers from can be replaced while it does ([`QueryApi::switch`]).
#[derive(Clone)]
pub struct QueryApi {
    current: Arc<RwLock<Current>>,
    fixed: Arc<Fixed>,
}

/// What stays as long as the process.
pub(crate) struct Fixed {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) log: Log,
    pub(crate) waiting: Waiting,
    shown: Shown,
    admin: AdminAccess,
}

struct Current {
    sources: Arc<Sources>,
    settling: Option<Settling>,
}

/// The projections that queries are answered from: replaced together, and never one without the other.
pub(crate) struct Sources {
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) search: SearchGate,
    pub(crate) progress: Progress,
    /// The newest positions that answers from these have shown.
    pub(crate) answered: Shown,
}

/// The query side as one request sees it, from its start to its end.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) sources: Arc<Sources>,
    /// What the answer must hold whatever the client asks for.
    pub(crate) floor: Floor,
    pub(crate) fixed: Arc<Fixed>,
}

impl QueryApi {
    /// The query side over these ports.
    pub fn new(ports: QueryPorts, progress: Progress, admin: AdminAccess) -> Self {
        let QueryPorts { read_model, search, event_store } = ports;
        let sources = Arc::new(Sources {
            read_model,
            search: SearchGate::new(search),
            progress,
            answered: Shown::default(),
        });
        let fixed = Fixed {
            log: Log::new(Arc::clone(&event_store)),
            event_store,
            waiting: Waiting::new(),
            shown: Shown::default(),
            admin,
        };
        Self { current: Arc::new(RwLock::new(Current { sources, settling: None })), fixed: Arc::new(fixed) }
    }

    /// Answers from other projections from here on. Requests that have begun end on those that they began with; answers
    /// to later ones are as of no earlier position than any that was given before, by whichever.
    pub fn switch(&self, to: Projections) {
        let Projections { read_model, search, progress, reached } = to;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let search = current.sources.search.over(search);
        let sources = Sources { read_model, search, progress, answered: Shown::at(reached) };
        let before = std::mem::replace(&mut current.sources, Arc::new(sources));
        let settling = Settling::after(&before, current.settling.take());
        current.settling = Some(settling);
    }

    /// The newest positions that answers have shown: of the read model, and of the search index.
    pub fn shown(&self) -> (Position, Position) {
        self.fixed.shown.newest()
    }

    fn view(&self) -> View {
        let (sources, floor) = self.sources();
        View { sources, floor, fixed: Arc::clone(&self.fixed) }
    }

    fn sources(&self) -> (Arc<Sources>, Floor) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let sources = Arc::clone(&current.sources);
        let Some(settling) = &current.settling else { return (sources, Floor::default()) };
        let floor = settling.floor(&self.fixed.shown, &sources.answered);
        drop(current);
        if floor.is_none() {
            self.settle(&sources);
        }
        (sources, floor)
    }

    /// The switch is over: nothing is asked of answers any more but what clients ask.
    fn settle(&self, sources: &Arc<Sources>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current.sources, sources) {
            current.settling = None;
        }
    }
}

impl View {
    /// An answer from the read model is about to be given.
    pub(crate) fn showing_rows(&self, position: Position) {
        self.sources.answered.rows(position);
        self.fixed.shown.rows(position);
    }

    /// An answer from the search index is about to be given.
    pub(crate) fn showing_documents(&self, position: Position) {
        self.sources.answered.documents(position);
        self.fixed.shown.documents(position);
    }
}

impl FromRef<QueryApi> for View {
    fn from_ref(api: &QueryApi) -> Self {
        api.view()
    }
}

impl FromRef<QueryApi> for AdminAccess {
    fn from_ref(api: &QueryApi) -> Self {
        api.fixed.admin.clone()
    }
}
