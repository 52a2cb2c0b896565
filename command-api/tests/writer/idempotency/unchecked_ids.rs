//! A log that does not look at ids elsewhere, as KurrentDB's does not: only the expected revision keeps an event out.

use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision};
use chat_infra::event_store::{
    AppendError, Appended, EventSearch, EventStore, EventStoreError, LogId, ReadFrom, RecordedEvent, Select,
    StreamAppend, StreamRead, Subscription,
};
use uuid::Uuid;

/// A real log in which an id counts at its place in its stream only.
pub struct UncheckedIds(pub Arc<dyn EventStore>);

/// An id that differs by where it stands, so that the log below takes the same one elsewhere too.
fn at(id: EventId, stream: &str, revision: Revision) -> EventId {
    let place = format!("{stream} {}", revision.get());
    EventId::new(Uuid::new_v5(&id.uuid(), place.as_bytes()))
}

#[async_trait]
impl EventStore for UncheckedIds {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.0.log_id().await
    }

    async fn append(&self, mut appends: Vec<StreamAppend>) -> Vec<Result<Appended, AppendError>> {
        for append in &mut appends {
            let mut revision = append.expected.next();
            for event in &mut append.events {
                event.id = at(event.id, &append.stream, revision);
                revision = revision.next();
            }
        }
        self.0.append(appends).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.0.read_stream(read).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.0.read_all(after, limit).await
    }

    async fn find(&self, wanted: EventSearch) -> Result<Option<RecordedEvent>, EventStoreError> {
        let (stream, select) = (wanted.stream, Select::All);
        let newest_first = StreamRead { stream, from: ReadFrom::End, select, limit: usize::MAX >> 1 };
        let events = self.0.read_stream(newest_first).await?;
        let mut recent = events.into_iter().take_while(|event| event.recorded_at >= wanted.since);
        Ok(recent.find(|event| event.id == at(wanted.id, &event.stream, event.revision)))
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.0.head().await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.0.subscribe(after).await
    }
}
