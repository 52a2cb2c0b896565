//! A handle on a log, with a unique prefix for the names of a test's streams.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::event_store::{
    AppendError, AppendReceipt, EventStore, EventTypeFilter, NewEvent, ReadStart, RecordedEvent,
    StreamAppend, StreamRead, Subscription,
};
use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Timestamp};
use uuid::Uuid;

pub type Log = Arc<dyn EventStore>;

/// A handle on a log, with a unique prefix for stream names. The streams with this prefix are the scope.
///
/// Through `Deref`, it also has the methods of the log. These take full stream names, and also return events outside
/// the scope.
pub struct ScopedLog {
    log: Log,
    prefix: Arc<str>,
    /// The head of the log when the scope was created.
    pub start: Position,
}

impl Deref for ScopedLog {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl ScopedLog {
    pub async fn new(log: Log) -> Self {
        let start = log.head().await.unwrap();
        // In KurrentDB, reads of the whole log return only streams whose names begin with `app-` or `chat-`.
        Self { log, prefix: format!("app-{}-", Uuid::new_v4().simple()).into(), start }
    }

    /// Returns the same scope with another handle on the log.
    #[must_use]
    pub fn with_handle(&self, log: Log) -> Self {
        Self { log, prefix: Arc::clone(&self.prefix), start: self.start }
    }

    /// Returns the full name of a stream: the prefix and `stream`.
    pub fn name(&self, stream: &str) -> String {
        format!("{}{stream}", self.prefix)
    }

    pub fn stream_append(
        &self,
        stream: &str,
        expected: ExpectedRevision,
        events: Vec<NewEvent>,
    ) -> StreamAppend {
        StreamAppend { stream: self.name(stream).into(), expected_revision: expected, events }
    }

    /// Appends events to one stream, in one append.
    pub async fn append_to(
        &self,
        stream: &str,
        expected: ExpectedRevision,
        events: Vec<NewEvent>,
    ) -> Result<AppendReceipt, AppendError> {
        self.send(self.stream_append(stream, expected, events)).await
    }

    pub async fn send(&self, append: StreamAppend) -> Result<AppendReceipt, AppendError> {
        self.log.append(vec![append]).await.pop().unwrap()
    }

    /// Creates a stream with one event for each of `types`, each event in an append of its own.
    pub async fn fill(&self, stream: &str, types: &[&'static str]) {
        let mut expected = ExpectedRevision::NoStream;
        for event_type in types {
            let appended = self.append_to(stream, expected, vec![event(event_type)]).await.unwrap();
            expected = ExpectedRevision::Exact(appended.revision);
        }
    }

    pub fn stream_read(
        &self,
        stream: &str,
        from: ReadStart,
        filter: EventTypeFilter,
        limit: usize,
    ) -> StreamRead {
        StreamRead { stream: self.name(stream).into(), start: from, filter, limit }
    }

    /// Reads a stream, and returns the revisions of the events.
    pub async fn read_revisions(
        &self,
        stream: &str,
        from: ReadStart,
        filter: EventTypeFilter,
        limit: usize,
    ) -> Vec<u64> {
        let events = self.log.read_stream(self.stream_read(stream, from, filter, limit)).await.unwrap();
        events.iter().map(|event| event.revision.get()).collect()
    }

    /// Reads all events in the scope.
    pub async fn all(&self) -> Vec<RecordedEvent> {
        self.all_after(self.start).await
    }

    /// Reads the events in the scope after a position.
    pub async fn all_after(&self, mut after: Position) -> Vec<RecordedEvent> {
        let mut events = Vec::new();
        loop {
            let batch = self.log.read_all(after, 100).await.unwrap();
            let Some(last) = batch.last() else { return events };
            after = last.position;
            events.extend(batch.into_iter().filter(|event| self.owns(event)));
        }
    }

    /// Waits for at least the next `count` events in the scope.
    pub async fn receive(
        &self,
        subscription: &mut Box<dyn Subscription>,
        count: usize,
    ) -> Vec<RecordedEvent> {
        let mut received = Vec::new();
        while received.len() < count {
            let batch = within_deadline(subscription.next(7)).await.unwrap();
            assert!(batch.events.len() <= 7);
            let last = batch.events.last().map_or(self.start, |event| event.position);
            assert!(
                batch.up_to >= last,
                "the last event is at {last}, after the end of the batch at {}",
                batch.up_to
            );
            received.extend(batch.events.into_iter().filter(|event| self.owns(event)));
        }
        received
    }

    pub fn owns(&self, event: &RecordedEvent) -> bool {
        event.stream.starts_with(&*self.prefix)
    }
}

pub fn event(event_type: &'static str) -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type,
        schema_version: SchemaVersion(3),
        recorded_at: Timestamp::from_millis(1_790_000_000_007),
        data: r#"{"body":"Grüße 🦊 \u0001"}"#.to_owned(),
        metadata: r#"{"command":"Test"}"#.into(),
    }
}

pub async fn within_deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("the future did not complete in time")
}
