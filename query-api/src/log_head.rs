//! The head of the log, and the check that the log has reached the position that a client requires.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_web::{ErrorCode, Problem};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use crate::monotonic_reads::NewestPosition;

/// How long [`LogHead::require`] waits for the head, before the event store counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the head from the event store.
type HeadReader = Box<dyn Fn() -> HeadRead + Send + Sync>;
type HeadRead = Pin<Box<dyn Future<Output = Result<Position, EventStoreError>> + Send>>;

/// The head of the log. [`Self::require`] does one read at a time, however many queries call it: all queries that call
/// it during a read share the next read.
pub(crate) struct LogHead {
    read_head: HeadReader,
    /// The newest head that any read has returned.
    newest: NewestPosition,
    reads_begun: AtomicU64,
    /// Held by the query that reads. Other queries wait for the result.
    last_read: AsyncMutex<CompletedRead>,
}

/// The last read for [`LogHead::require`] that was completed.
#[derive(Default)]
struct CompletedRead {
    /// The number of the read, counted from 1.
    number: u64,
    is_failed: bool,
}

impl LogHead {
    pub(crate) fn new(event_store: Arc<dyn EventStore>) -> Self {
        Self::with_reader(Box::new(move || {
            let event_store = Arc::clone(&event_store);
            Box::pin(async move { event_store.head().await })
        }))
    }

    fn with_reader(read_head: HeadReader) -> Self {
        Self {
            read_head,
            newest: NewestPosition::default(),
            reads_begun: AtomicU64::new(0),
            last_read: AsyncMutex::default(),
        }
    }

    /// Reads the head from the event store.
    pub(crate) async fn read(&self) -> Result<Position, EventStoreError> {
        let head = (self.read_head)().await?;
        self.newest.raise(head);
        Ok(head)
    }

    /// Rejects a position beyond the head. Reads the head if the position is beyond the newest head read so far.
    pub(crate) async fn require(&self, position: Position) -> Result<(), Problem> {
        if position <= self.newest.get() {
            return Ok(());
        }
        // A read that is in flight may have begun before the event at this position was appended. A read that begins
        // from now on returns a head at or after every position that a client has been given by now.
        match timeout(READ_TIMEOUT, self.read_after(self.reads_begun.load(Ordering::SeqCst))).await {
            Ok(read) => read?,
            Err(elapsed) => {
                return Err(Problem::from_code(ErrorCode::EventStoreUnavailable).caused_by(elapsed));
            }
        }
        if position <= self.newest.get() { Ok(()) } else { Err(ErrorCode::ConsistencyTokenUnknown.into()) }
    }

    /// Waits for a read that begins after the first `earlier_reads` reads. Does this read itself, unless another query
    /// has done it.
    async fn read_after(&self, earlier_reads: u64) -> Result<(), Problem> {
        let mut last_read = self.last_read.lock().await;
        if last_read.number > earlier_reads {
            return if last_read.is_failed { Err(ErrorCode::EventStoreUnavailable.into()) } else { Ok(()) };
        }
        let number = self.reads_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let read = self.read().await;
        *last_read = CompletedRead { number, is_failed: read.is_err() };
        read?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures::future::join_all;

    use super::*;

    /// A head that can change during reads and be unavailable.
    #[derive(Default)]
    struct ControlledHead {
        head: AtomicU64,
        reads: AtomicU64,
        is_unavailable: AtomicBool,
    }

    impl ControlledHead {
        async fn read(&self) -> Result<Position, EventStoreError> {
            let head = Position::new(self.head.load(Ordering::SeqCst));
            self.reads.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if self.is_unavailable.load(Ordering::SeqCst) {
                return Err(EventStoreError::Unavailable("away".into()));
            }
            Ok(head)
        }
    }

    fn log_with_head(head: u64) -> (Arc<ControlledHead>, LogHead) {
        let log = Arc::new(ControlledHead { head: AtomicU64::new(head), ..ControlledHead::default() });
        let reader = Arc::clone(&log);
        let head = LogHead::with_reader(Box::new(move || {
            let log = Arc::clone(&reader);
            Box::pin(async move { log.read().await })
        }));
        (log, head)
    }

    fn code(result: Result<(), Problem>) -> Option<ErrorCode> {
        result.err().map(|problem| problem.code())
    }

    #[tokio::test(start_paused = true)]
    async fn many_unknown_positions_cost_at_most_two_reads_of_the_head() {
        let (log, head) = log_with_head(7);
        let unknown = (0..512).map(|number| head.require(Position::new(8 + number)));
        for result in join_all(unknown).await {
            assert_eq!(code(result), Some(ErrorCode::ConsistencyTokenUnknown));
        }
        // One read for the queries that came before it had begun, and one for the queries that came during the first.
        assert!(log.reads.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn a_position_up_to_the_known_head_needs_no_read() {
        let (log, head) = log_with_head(7);
        for position in [7, 3, 7] {
            assert_eq!(code(head.require(Position::new(position)).await), None);
        }
        assert_eq!(log.reads.load(Ordering::SeqCst), 1, "only the first position, when no head is known");
    }

    #[tokio::test]
    async fn a_position_that_was_appended_during_a_read_is_looked_up_in_the_next_one() {
        let (log, head) = log_with_head(7);
        let early = std::pin::pin!(head.require(Position::new(8)));
        let mut early = early;
        assert!(futures::poll!(early.as_mut()).is_pending(), "reading");
        log.head.store(9, Ordering::SeqCst);
        let (early, late) = tokio::join!(early, head.require(Position::new(9)));
        assert_eq!(code(early), Some(ErrorCode::ConsistencyTokenUnknown));
        assert_eq!(code(late), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unavailable_event_store_is_read_at_most_twice_for_many_queries() {
        let (log, head) = log_with_head(7);
        log.is_unavailable.store(true, Ordering::SeqCst);
        for result in join_all((0..512).map(|_| head.require(Position::new(5)))).await {
            assert_eq!(code(result), Some(ErrorCode::EventStoreUnavailable));
        }
        assert!(log.reads.load(Ordering::SeqCst) <= 2);
        log.is_unavailable.store(false, Ordering::SeqCst);
        assert_eq!(code(head.require(Position::new(5)).await), None);
    }

    #[tokio::test]
    async fn a_cancelled_read_is_begun_again_by_the_next_query() {
        let (_, head) = log_with_head(7);
        {
            let mut cancelled = std::pin::pin!(head.require(Position::new(5)));
            assert!(futures::poll!(cancelled.as_mut()).is_pending());
        }
        assert_eq!(code(head.require(Position::new(5)).await), None);
    }
}
