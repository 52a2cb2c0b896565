//! The state of the console: the sources of its pages, who may open the pages, and limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRef;
use chat_domain::{AppToken, Position};
use chat_operations::jobs::Jobs;
use chat_operations::projections::Projections;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_ports::search_index::SearchIndex;
use chat_web::admin_auth::AdminAccess;
use chat_web::metrics::Metrics;
use chat_web::operators::SessionKey;
use chat_web::system_routes::Readiness;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

use crate::access::ConsoleAccess;
use crate::client_attempts::FailedAttempts;
use crate::page::ConsoleError;
use crate::samples::Samples;

/// The approximate maximum of events scanned for one page. A list of events then links to the page that continues the
/// scan.
pub(crate) const MAX_SCANNED_EVENTS: u64 = 50_000;

/// Concurrent scans of the log. Further requests wait for a permit.
const MAX_CONCURRENT_SCANS: usize = 2;

/// The longest wait for a permit to scan the log.
const MAX_SCAN_WAIT: Duration = Duration::from_secs(5);

/// Concurrent searches. Further requests wait for a permit.
const MAX_CONCURRENT_SEARCHES: usize = 2;

/// Concurrent live tails and followed jobs. Further ones are refused.
pub(crate) const MAX_CONCURRENT_TAILS: usize = 32;

/// The maximum number of remembered positions of apps. The map is emptied when it is full.
const MAX_REMEMBERED_APPS: usize = 10_000;

/// The readers of the live generations. They change when an operator promotes other generations.
pub struct LiveReaders {
    /// The read model.
    pub read_model: Arc<dyn ReadModel>,
    /// The search index.
    pub search: Arc<dyn SearchIndex>,
}

/// The sources of the console's pages.
pub struct ConsolePorts {
    /// The log.
    pub event_store: Arc<dyn EventStore>,
    /// Returns the live readers.
    pub readers: Box<dyn Fn() -> LiveReaders + Send + Sync>,
    /// The projections and their generations.
    pub projections: Arc<Projections>,
    /// The jobs of operators.
    pub jobs: Jobs,
    /// The readiness of this process, as at `/readyz`.
    pub readiness: Arc<dyn Readiness>,
    /// The metrics of this process.
    pub metrics: Metrics,
}

impl FromRef<Console> for ConsoleAccess {
    fn from_ref(console: &Console) -> Self {
        console.access.clone()
    }
}

/// The state that the pages share. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    pub(crate) ports: Arc<ConsolePorts>,
    pub(crate) access: ConsoleAccess,
    pub(crate) failed_sign_ins: Arc<FailedAttempts>,
    pub(crate) samples: Samples,
    pub(crate) tail_permits: Arc<Semaphore>,
    /// Set when the process is stopping. This ends all live tails and the following of jobs.
    pub(crate) shutdown: watch::Receiver<bool>,
    scan_permits: Arc<Semaphore>,
    search_permits: Arc<Semaphore>,
    app_positions: Arc<Mutex<HashMap<AppToken, Position>>>,
}

impl Console {
    /// A console over these ports. `shutdown` is set when the process is stopping.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn new(
        ports: ConsolePorts,
        access: AdminAccess,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            ports: Arc::new(ports),
            access: ConsoleAccess { policy: access, open_session_key: SessionKey::generate()? },
            failed_sign_ins: Arc::default(),
            samples: Samples::default(),
            tail_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_TAILS)),
            shutdown,
            scan_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_SCANS)),
            search_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_SEARCHES)),
            app_positions: Arc::default(),
        })
    }

    pub(crate) fn log(&self) -> &dyn EventStore {
        &*self.ports.event_store
    }

    pub(crate) fn read_model(&self) -> Arc<dyn ReadModel> {
        (self.ports.readers)().read_model
    }

    /// Waits a few seconds for a permit to scan the log.
    pub(crate) async fn acquire_scan_permit(&self) -> Result<SemaphorePermit<'_>, ConsoleError> {
        match timeout(MAX_SCAN_WAIT, self.scan_permits.acquire()).await {
            Ok(permit) => permit.map_err(|error| ConsoleError::unavailable(&error)),
            Err(_) => Err(ConsoleError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "The console is busy",
                "Other pages are reading the log. Reload this one in a few seconds.",
            )),
        }
    }

    /// Waits for a permit to search.
    pub(crate) async fn acquire_search_permit(&self) -> Result<OwnedSemaphorePermit, ConsoleError> {
        let permits = Arc::clone(&self.search_permits);
        permits.acquire_owned().await.map_err(|error| ConsoleError::unavailable(&error))
    }

    pub(crate) fn remembered_position(&self, app: AppToken) -> Option<Position> {
        self.app_positions.lock().unwrap_or_else(PoisonError::into_inner).get(&app).copied()
    }

    pub(crate) fn remember_position(&self, app: AppToken, position: Position) {
        let mut positions = self.app_positions.lock().unwrap_or_else(PoisonError::into_inner);
        if positions.len() >= MAX_REMEMBERED_APPS {
            positions.clear();
        }
        positions.insert(app, position);
    }
}
