//! What the routes answer from.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRef;
use chat_operations::envelope::{Envelope, Report};
use chat_operations::projections::Projections;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_web::Problem;
use chat_web::admin_auth::AdminAccess;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Reads of long stretches of the log at a time; more wait their turn.
const MAX_CONCURRENT_SCANS: usize = 4;

/// Tails at a time; more are refused.
const MAX_CONCURRENT_TAILS: usize = 64;

/// The read model that readers see at the moment: another one once an operator has promoted it.
pub type LiveReadModel = Arc<dyn Fn() -> Arc<dyn ReadModel> + Send + Sync>;

/// What operators' questions are answered from.
#[derive(Clone)]
pub struct AdminPorts {
    /// The log.
    pub event_store: Arc<dyn EventStore>,
    /// What readers see.
    pub read_model: LiveReadModel,
    /// The projections and their generations.
    pub projections: Arc<Projections>,
}

/// The operators' side. Cheap to clone.
#[derive(Clone)]
pub struct AdminApi {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) read_model: LiveReadModel,
    pub(crate) projections: Arc<Projections>,
    pub(crate) tail_permits: Arc<Semaphore>,
    /// Whether the process is ending: whatever goes on for ever ends then.
    pub(crate) shutdown: watch::Receiver<bool>,
    scan_permits: Arc<Semaphore>,
    access: AdminAccess,
}

impl AdminApi {
    /// The operators' side over these ports, for who has access, until the process stops.
    pub fn new(ports: AdminPorts, access: AdminAccess, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            event_store: ports.event_store,
            read_model: ports.read_model,
            projections: ports.projections,
            tail_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_TAILS)),
            shutdown,
            scan_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_SCANS)),
            access,
        }
    }

    /// Waits for the turn to read a long stretch of the log.
    pub(crate) async fn acquire_scan_permit(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.scan_permits.acquire().await.map_err(Problem::internal)
    }
}

impl FromRef<AdminApi> for AdminAccess {
    fn from_ref(api: &AdminApi) -> Self {
        api.access.clone()
    }
}

/// An answer in its frame.
pub(crate) type EnvelopeResult<T> = Result<Json<Envelope<T>>, Problem>;

/// Frames an answer.
pub(crate) fn envelope<T: Report>(data: T) -> Json<Envelope<T>> {
    Json(Envelope::for_report(data))
}
