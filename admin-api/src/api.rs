//! What the routes answer from.

use std::sync::Arc;

use axum::extract::FromRef;
use chat_infra::event_store::EventStore;
use chat_infra::read_model::ReadModel;
use chat_operations::projections::Projections;
use chat_web::admin::AdminAccess;
use chat_web::{ErrorCode, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Tails that are followed at a time: each reads the whole log as it grows.
const MAX_TAILS: usize = 64;

/// The ports that operators' questions are answered from.
#[derive(Clone)]
pub struct AdminPorts {
    /// The log.
    pub event_store: Arc<dyn EventStore>,
    /// The read model that readers see now.
    pub read_model: Arc<dyn Fn() -> Arc<dyn ReadModel> + Send + Sync>,
    /// The projections and their generations.
    pub projections: Arc<Projections>,
    /// Becomes true when the process is about to stop: tails end then, which would not by themselves.
    pub stopping: watch::Receiver<bool>,
}

/// The admin side. Cheap to clone.
#[derive(Clone)]
pub struct AdminApi {
    pub(crate) ports: AdminPorts,
    tails: Arc<Semaphore>,
    admin: AdminAccess,
}

impl AdminApi {
    /// The admin side over these ports.
    pub fn new(ports: AdminPorts, admin: AdminAccess) -> Self {
        Self { ports, tails: Arc::new(Semaphore::new(MAX_TAILS)), admin }
    }

    /// A place among those who follow the log.
    pub(crate) fn follow(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.tails).try_acquire_owned();
        place.map_err(|_| Problem::new(ErrorCode::Overloaded, "too many tails are followed already"))
    }
}

impl FromRef<AdminApi> for AdminAccess {
    fn from_ref(api: &AdminApi) -> Self {
        api.admin.clone()
    }
}
