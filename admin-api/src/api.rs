//! What the routes answer from.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRef;
use chat_operations::answer::{Envelope, Finding};
use chat_operations::projections::Projections;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_web::Problem;
use chat_web::admin::AdminAccess;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Reads of long stretches of the log at a time; more wait their turn.
const SCANS: usize = 4;

/// Tails at a time; more are refused.
const TAILS: usize = 64;

/// The read model that readers see at the moment: another one once an operator has promoted it.
pub type SeenReadModel = Arc<dyn Fn() -> Arc<dyn ReadModel> + Send + Sync>;

/// What operators' questions are answered from.
#[derive(Clone)]
pub struct AdminPorts {
    /// The log.
    pub event_store: Arc<dyn EventStore>,
    /// What readers see.
    pub read_model: SeenReadModel,
    /// The projections and their generations.
    pub projections: Arc<Projections>,
}

/// The operators' side. Cheap to clone.
#[derive(Clone)]
pub struct AdminApi {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) read_model: SeenReadModel,
    pub(crate) projections: Arc<Projections>,
    pub(crate) tails: Arc<Semaphore>,
    /// Whether the process is ending: whatever goes on for ever ends then.
    pub(crate) stopping: watch::Receiver<bool>,
    scans: Arc<Semaphore>,
    access: AdminAccess,
}

impl AdminApi {
    /// The operators' side over these ports, for who has access, until the process stops.
    pub fn new(ports: AdminPorts, access: AdminAccess, stopping: watch::Receiver<bool>) -> Self {
        Self {
            event_store: ports.event_store,
            read_model: ports.read_model,
            projections: ports.projections,
            tails: Arc::new(Semaphore::new(TAILS)),
            stopping,
            scans: Arc::new(Semaphore::new(SCANS)),
            access,
        }
    }

    /// Waits for the turn to read a long stretch of the log.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.scans.acquire().await.map_err(Problem::internal)
    }
}

impl FromRef<AdminApi> for AdminAccess {
    fn from_ref(api: &AdminApi) -> Self {
        api.access.clone()
    }
}

/// An answer in its frame.
pub(crate) type Answer<T> = Result<Json<Envelope<T>>, Problem>;

/// Frames an answer.
pub(crate) fn framed<T: Finding>(data: T) -> Json<Envelope<T>> {
    Json(Envelope::of(data))
}
