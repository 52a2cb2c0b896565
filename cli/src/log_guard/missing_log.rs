//! The event store of a process whose log is missing: its reads and appends fail.

use async_trait::async_trait;
use chat_domain::Position;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription,
};

use super::evidence::LogProblem;

/// Stands in for a missing log: reads and appends fail with the problem.
pub(crate) struct MissingLog(pub(crate) LogProblem);

impl MissingLog {
    fn fail<T>(&self) -> Result<T, EventStoreError> {
        Err(EventStoreError::Unavailable(self.0.clone().into()))
    }
}

#[async_trait]
impl EventStore for MissingLog {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.fail()
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.fail()
    }

    async fn begin_incarnation(&self, _: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.fail()
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        Err(LogReplaced(self.0.to_string()))
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        appends.iter().map(|_| Err(AppendError::Unavailable(self.0.clone().into()))).collect()
    }

    async fn read_stream(&self, _: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.fail()
    }

    async fn read_all(&self, _: Position, _: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.fail()
    }

    async fn read_all_backwards(
        &self,
        _: Option<Position>,
        _: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.fail()
    }

    async fn find_event(&self, _: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.fail()
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.fail()
    }

    async fn subscribe(&self, _: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.fail()
    }
}
