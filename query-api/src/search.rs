//! Runs searches on blocking threads, a bounded number at a time.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use chat_ports::read_model::Snapshot;
use chat_ports::search_index::{SearchIndex, SearchPage, SearchRequest};
use chat_web::{ErrorCode, Problem};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The time that a search waits for a permit.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs searches on blocking threads. The number that run at once is bounded: more would only compete for the same
/// cores.
pub(crate) struct SearchExecutor {
    index: Arc<dyn SearchIndex>,
    permits: Arc<Semaphore>,
}

impl SearchExecutor {
    pub(crate) fn new(index: Arc<dyn SearchIndex>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { index, permits: Arc::new(Semaphore::new(2 * cores)) }
    }

    /// An executor of another index that shares the permits.
    pub(crate) fn with_index(&self, index: Arc<dyn SearchIndex>) -> Self {
        Self { index, permits: Arc::clone(&self.permits) }
    }

    /// Rejects a query that the index would not read to its end.
    pub(crate) fn check_query(&self, query: &str) -> Result<(), Problem> {
        self.index.check_query(query).map_err(|_| ErrorCode::QueryTooLong.into())
    }

    pub(crate) async fn search(&self, request: &SearchRequest) -> Result<Snapshot<SearchPage>, Problem> {
        let permit = timeout(QUEUE_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(ErrorCode::Overloaded.into()) };
        let (index, request) = (Arc::clone(&self.index), request.clone());
        let search = tokio::task::spawn_blocking(move || {
            // Held here, because the search runs to its end even if the client disconnects.
            let _permit = permit;
            index.search(&request)
        });
        let page = search.await.map_err(Problem::internal)??;
        Ok(Snapshot { position: page.position, value: page })
    }
}
