//! Shared state of the admin routes: ports, access, and concurrency limits.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRef;
use chat_operations::envelope::{Envelope, Report};
use chat_operations::jobs::Jobs;
use chat_operations::projections::Projections;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_web::Problem;
use chat_web::admin_auth::{AdminAccess, AuthorizedOperator};
use chat_web::operators::CredentialId;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// The approximate maximum of events in one scan of the log.
pub(crate) const MAX_SCANNED_EVENTS: u64 = 200_000;

/// Concurrent scans of the log and dry runs of actions. Further requests wait for a permit.
const MAX_CONCURRENT_SCANS: usize = 4;

/// Concurrent responses that follow the log or a job. Further requests are rejected.
const MAX_CONCURRENT_TAILS: usize = 64;

/// Returns the live read model, which changes when an operator promotes another generation.
pub type LiveReadModel = Arc<dyn Fn() -> Arc<dyn ReadModel> + Send + Sync>;

/// The ports of the admin routes.
#[derive(Clone)]
pub struct AdminPorts {
    /// The log.
    pub event_store: Arc<dyn EventStore>,
    /// The live read model.
    pub read_model: LiveReadModel,
    /// The projections and their generations.
    pub projections: Arc<Projections>,
    /// The jobs.
    pub jobs: Jobs,
}

/// The shared state of the admin routes. Cheap to clone.
#[derive(Clone)]
pub struct AdminApi {
    pub(crate) event_store: Arc<dyn EventStore>,
    pub(crate) read_model: LiveReadModel,
    pub(crate) projections: Arc<Projections>,
    pub(crate) jobs: Jobs,
    pub(crate) tail_permits: Arc<Semaphore>,
    /// Set when the process is stopping, which ends all responses that follow the log or a job.
    pub(crate) shutdown: watch::Receiver<bool>,
    scan_permits: Arc<Semaphore>,
    access: AdminAccess,
}

impl AdminApi {
    /// Creates the state from the ports. `shutdown` is set when the process is stopping.
    pub fn new(ports: AdminPorts, access: AdminAccess, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            event_store: ports.event_store,
            read_model: ports.read_model,
            projections: ports.projections,
            jobs: ports.jobs,
            tail_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_TAILS)),
            shutdown,
            scan_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_SCANS)),
            access,
        }
    }

    /// Returns the access of an operator to a response that follows the log or a job. Such a response goes on
    /// after the request was authorized, so it checks the access again while it is sent.
    pub(crate) fn stream_access(&self, operator: AuthorizedOperator) -> StreamAccess {
        StreamAccess {
            access: self.access.clone(),
            credential: operator.credential.map(|credential| credential.id),
        }
    }

    /// Waits for a permit to scan the log, or for a dry run.
    pub(crate) async fn acquire_scan_permit(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.scan_permits.acquire().await.map_err(Problem::internal)
    }
}

/// The access of an operator to a response that follows the log or a job. The access ends when the operator's
/// credential is withdrawn.
pub(crate) struct StreamAccess {
    access: AdminAccess,
    /// `None` if the server requires no credential.
    credential: Option<CredentialId>,
}

impl StreamAccess {
    /// Whether the operator has lost the access.
    pub(crate) fn is_withdrawn(&self) -> bool {
        let credential = self.credential.as_ref();
        credential.is_some_and(|credential| self.access.operator_with_credential(credential).is_none())
    }
}

impl FromRef<AdminApi> for AdminAccess {
    fn from_ref(api: &AdminApi) -> Self {
        api.access.clone()
    }
}

/// The result of a handler whose answer is an envelope.
pub(crate) type EnvelopeResult<T> = Result<Json<Envelope<T>>, Problem>;

/// Wraps a report in an envelope.
pub(crate) fn envelope<T: Report>(data: T) -> Json<Envelope<T>> {
    Json(Envelope::for_report(data))
}
