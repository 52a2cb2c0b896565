//! Runs searches on blocking threads, a bounded number at a time.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use chat_ports::read_model::Snapshot;
use chat_ports::search_index::{SearchIndex, SearchPage, SearchRequest};
use chat_web::{ErrorCode, Problem};
use tokio::time::timeout;

use crate::fair_share::FairTurns;

/// The maximum time that a search waits for its turn.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of searches of one app that may wait for their turns.
const MAX_QUEUED_SEARCHES: usize = 512;

/// Runs searches on blocking threads. The number of searches that run at once is bounded: more would only compete for
/// the same cores. Apps take turns, so that many searches of one app do not hold up those of another.
pub(crate) struct SearchExecutor {
    index: Arc<dyn SearchIndex>,
    turns: Arc<FairTurns>,
}

impl SearchExecutor {
    pub(crate) fn new(index: Arc<dyn SearchIndex>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { index, turns: Arc::new(FairTurns::new(2 * cores)) }
    }

    /// Creates an executor for another index. Both executors share their turns.
    pub(crate) fn with_index(&self, index: Arc<dyn SearchIndex>) -> Self {
        Self { index, turns: Arc::clone(&self.turns) }
    }

    /// Rejects a query that is too long for the index.
    pub(crate) fn check_query(&self, query: &str) -> Result<(), Problem> {
        self.index.check_query(query).map_err(|_| ErrorCode::QueryTooLong.into())
    }

    pub(crate) async fn search(&self, request: &SearchRequest) -> Result<Snapshot<SearchPage>, Problem> {
        let turn = timeout(QUEUE_TIMEOUT, self.turns.wait(request.scope.app(), MAX_QUEUED_SEARCHES)).await;
        let Ok(Ok(turn)) = turn else { return Err(ErrorCode::Overloaded.into()) };
        let (index, request) = (Arc::clone(&self.index), request.clone());
        let search = tokio::task::spawn_blocking(move || {
            // Held here, because the search runs to its end even if the client disconnects.
            let _turn = turn;
            index.search(&request)
        });
        let page = search.await.map_err(Problem::internal)??;
        Ok(Snapshot { position: page.position, value: page })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use chat_domain::{AppToken, Position};
    use chat_ports::search_index::{QueryTooLong, Scope, SearchError};
    use futures::future::join_all;

    use super::*;

    /// An index that waits for permission to answer, and records the queries.
    struct GatedIndex {
        gate: Mutex<Receiver<()>>,
        queries: Mutex<Vec<String>>,
    }

    impl SearchIndex for GatedIndex {
        fn check_query(&self, _: &str) -> Result<(), QueryTooLong> {
            Ok(())
        }

        fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
            self.queries.lock().unwrap().push(request.query.clone());
            self.gate.lock().unwrap().recv().unwrap();
            Ok(SearchPage::empty(Position::START))
        }
    }

    fn request(app: &str, query: &str) -> SearchRequest {
        SearchRequest::new(Scope::App(AppToken::parse(&app.repeat(AppToken::LENGTH)).unwrap()), query)
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_does_not_wait_for_all_earlier_searches_of_another_app() {
        let (open, gate) = channel();
        let index = Arc::new(GatedIndex { gate: Mutex::new(gate), queries: Mutex::default() });
        let turns = Arc::new(FairTurns::new(1));
        let executor = SearchExecutor { index: Arc::clone(&index) as Arc<dyn SearchIndex>, turns };
        let mut requests: Vec<_> = (1..=5).map(|number| request("a", &format!("a{number}"))).collect();
        requests.push(request("b", "b1"));
        let searches = join_all(requests.iter().map(|request| executor.search(request)));
        let (pages, ()) = tokio::join!(searches, async {
            for _ in 0..6 {
                open.send(()).unwrap();
            }
        });
        assert!(pages.iter().all(Result::is_ok));
        assert_eq!(*index.queries.lock().unwrap(), ["a1", "a2", "b1", "a3", "a4", "a5"]);
    }
}
