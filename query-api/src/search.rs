//! The search index as queries see it.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use chat_ports::read_model::Snapshot;
use chat_ports::search_index::{SearchError, SearchPage, SearchRequest};
use chat_search::{MAX_QUERY_BYTES, MAX_QUERY_WORDS, count_query_words};
use chat_web::{ErrorCode, Problem};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What answers searches. Its methods block.
pub trait MessageSearch: Send + Sync + 'static {
    /// Finds messages.
    fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError>;
}

/// How long a search waits for its turn.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs searches on threads made for blocking, a few at a time: more would only take turns on the same cores.
pub(crate) struct SearchExecutor {
    index: Arc<dyn MessageSearch>,
    permits: Arc<Semaphore>,
}

impl SearchExecutor {
    pub(crate) fn new(index: Arc<dyn MessageSearch>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { index, permits: Arc::new(Semaphore::new(2 * cores)) }
    }

    /// The same turns, for searches of another index.
    pub(crate) fn with_index(&self, index: Arc<dyn MessageSearch>) -> Self {
        Self { index, permits: Arc::clone(&self.permits) }
    }

    pub(crate) async fn search(&self, request: &SearchRequest) -> Result<Snapshot<SearchPage>, Problem> {
        let turn = timeout(QUEUE_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(ErrorCode::Overloaded.into()) };
        let (index, request) = (Arc::clone(&self.index), request.clone());
        let searched = tokio::task::spawn_blocking(move || {
            // A search whose client has gone still takes its turn to the end.
            let _turn = turn;
            index.search(&request)
        });
        let page = searched.await.map_err(Problem::internal)??;
        Ok(Snapshot { position: page.position, value: page })
    }
}

/// Refuses queries that the index would not read to their end: what it ignored would seem to have matched.
pub(crate) fn check_length(query: &str) -> Result<(), Problem> {
    if query.len() > MAX_QUERY_BYTES || count_query_words(query) > MAX_QUERY_WORDS {
        return Err(ErrorCode::QueryTooLong.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_as_the_index_reads_them_and_not_by_the_spaces_between() {
        let listed = |last: u32| (1..=last).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
        assert!(check_length(&listed(32)).is_ok());
        assert_eq!(check_length(&listed(40)).unwrap_err().code(), ErrorCode::QueryTooLong);
    }

    #[test]
    fn scripts_without_spaces_are_bounded_too() {
        for sign in ["ก", "漢"] {
            assert!(check_length(&sign.repeat(20)).is_ok(), "{sign}");
            let long = sign.repeat(300);
            assert!(long.len() < MAX_QUERY_BYTES);
            let refused = check_length(&long).is_err();
            assert_eq!(refused, count_query_words(&long) > MAX_QUERY_WORDS, "{sign}");
            assert!(check_length(&sign.repeat(342)).is_err(), "{sign}");
        }
    }
}
