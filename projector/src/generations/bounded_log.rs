//! A log with a movable head: for folding up to a position, and for pausing a projector there.

use std::mem;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use chat_domain::Position;
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventBatch, EventLookup, EventStore, EventStoreError, Incarnation, LogId,
    LogLineage, LogReplaced, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription,
    TruncatedStream,
};
use tokio::sync::watch;

/// An event store that hides the events after a limit. The limit can be moved. It applies to the reads of a projector:
/// subscriptions, `head` and `read_all`. All other calls ignore the limit.
///
/// The visible head is never before the last event that a subscription has returned: a projector would take an earlier
/// head for a truncated log.
pub struct BoundedLog {
    event_store: Arc<dyn EventStore>,
    gate: Arc<watch::Sender<Gate>>,
}

/// The positions up to which events may be returned, and were returned.
#[derive(Clone, Copy, Debug)]
struct Gate {
    limit: Position,
    returned_up_to: Position,
}

impl Gate {
    fn visible_head(self) -> Position {
        self.limit.max(self.returned_up_to)
    }
}

impl BoundedLog {
    /// Wraps an event store, without a limit, for a reader that has folded everything up to `folded_up_to`.
    pub fn new(event_store: Arc<dyn EventStore>, folded_up_to: Position) -> Self {
        let gate = Gate { limit: Position::new(u64::MAX), returned_up_to: folded_up_to };
        Self { event_store, gate: Arc::new(watch::Sender::new(gate)) }
    }

    /// Limits the head to a position, or to the last returned event if that is later.
    pub fn set_limit(&self, limit: Position) {
        self.gate.send_modify(|gate| gate.limit = limit);
    }

    /// Limits the head to the last returned position, and returns this position.
    pub fn pause(&self) -> Position {
        self.gate.send_modify(|gate| gate.limit = gate.returned_up_to);
        self.gate.borrow().returned_up_to
    }

    /// Removes the limit.
    pub fn remove_limit(&self) {
        self.set_limit(Position::new(u64::MAX));
    }

    fn visible_head(&self) -> Position {
        self.gate.borrow().visible_head()
    }
}

#[async_trait]
impl EventStore for BoundedLog {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.event_store.log_id().await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.event_store.lineage().await
    }

    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.event_store.begin_incarnation(incarnation).await
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        self.event_store.verify_identity().await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        self.event_store.append(appends).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.event_store.read_stream(read).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        let mut events = self.event_store.read_all(after, limit).await?;
        let head = self.visible_head();
        events.retain(|event| event.position <= head);
        Ok(events)
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.event_store.read_all_backwards(before, limit).await
    }

    async fn event_at(&self, position: Position) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.event_store.event_at(position).await
    }

    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.event_store.find_event(lookup).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        Ok(self.event_store.head().await?.min(self.visible_head()))
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.gate.send_modify(|gate| gate.returned_up_to = gate.returned_up_to.max(after));
        Ok(Box::new(BoundedSubscription {
            inner: self.event_store.subscribe(after).await?,
            limit_changes: self.gate.subscribe(),
            gate: Arc::downgrade(&self.gate),
            buffered: EventBatch { events: Vec::new(), up_to: after },
            returned_up_to: after,
        }))
    }

    fn truncated_streams(&self) -> Vec<TruncatedStream> {
        self.event_store.truncated_streams()
    }

    fn has_contiguous_positions(&self) -> bool {
        self.event_store.has_contiguous_positions()
    }
}

struct BoundedSubscription {
    inner: Box<dyn Subscription>,
    limit_changes: watch::Receiver<Gate>,
    /// Weak, so that the subscription ends with its log.
    gate: Weak<watch::Sender<Gate>>,
    /// Events that were received from `inner` and are not returned yet.
    buffered: EventBatch,
    returned_up_to: Position,
}

impl BoundedSubscription {
    /// Takes the buffered events that may be returned; `None` if there are none and the position would not move. Fails
    /// if the log was dropped.
    fn take_allowed(&mut self, max: usize) -> Result<Option<EventBatch>, EventStoreError> {
        self.limit_changes.mark_unchanged();
        let gate = self.gate.upgrade().ok_or_else(log_dropped)?;
        let mut allowed = None;
        // The events are taken under the lock of the gate, so that `pause` sees everything that was returned before.
        gate.send_if_modified(|gate| {
            allowed = self.take_within(max, gate.limit);
            if let Some(batch) = &allowed {
                gate.returned_up_to = gate.returned_up_to.max(batch.up_to);
            }
            // Wakes no subscription, because the limit has not changed.
            false
        });
        Ok(allowed)
    }

    /// Takes up to `max` buffered events that are not after `limit`.
    fn take_within(&mut self, max: usize, limit: Position) -> Option<EventBatch> {
        let count = self.buffered.events.iter().take(max).take_while(|event| event.position <= limit).count();
        let rest = self.buffered.events.split_off(count);
        let events = mem::replace(&mut self.buffered.events, rest);
        let is_cut_short = count == max && !self.buffered.events.is_empty();
        let up_to = match events.last() {
            Some(last) if is_cut_short => last.position,
            _ => self.buffered.up_to.min(limit),
        };
        if events.is_empty() && up_to <= self.returned_up_to {
            return None;
        }
        self.returned_up_to = up_to;
        Some(EventBatch { events, up_to })
    }
}

fn log_dropped() -> EventStoreError {
    EventStoreError::Unavailable("the bounded log was dropped".into())
}

#[async_trait]
impl Subscription for BoundedSubscription {
    async fn next(&mut self, max: usize) -> Result<EventBatch, EventStoreError> {
        loop {
            if let Some(batch) = self.take_allowed(max)? {
                return Ok(batch);
            }
            let is_drained = self.buffered.events.is_empty() && self.buffered.up_to <= self.returned_up_to;
            tokio::select! {
                batch = self.inner.next(max), if is_drained => self.buffered = batch?,
                changed = self.limit_changes.changed() => if changed.is_err() {
                    return Err(log_dropped());
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chat_domain::event::AppCreated;
    use chat_domain::metadata::EventId;
    use chat_domain::{AppName, Event, ExpectedRevision};
    use chat_ports::event_store::NewEvent;
    use chat_sqlite::SqliteEventStore;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    async fn log_with_apps(apps: u32) -> (tempfile::TempDir, Arc<dyn EventStore>) {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        for app in 0..apps {
            let event: Event = AppCreated { name: AppName::parse("app".to_owned()).unwrap() }.into();
            let event = NewEvent {
                id: EventId::new(Uuid::new_v4()),
                event_type: event.event_type(),
                schema_version: event.schema_version(),
                recorded_at: chat_domain::Timestamp::from_millis(1),
                data: event.payload(),
                metadata: "{}".into(),
            };
            let append = StreamAppend {
                stream: format!("app-{app:036}").into(),
                expected_revision: ExpectedRevision::from_last_revision(None),
                events: vec![event],
            };
            log.append(vec![append]).await.remove(0).unwrap();
        }
        (folder, log)
    }

    async fn read_up_to(subscription: &mut Box<dyn Subscription>, up_to: u64) -> usize {
        let mut events = 0;
        loop {
            let batch = timeout(Duration::from_secs(10), subscription.next(3)).await.unwrap().unwrap();
            events += batch.events.len();
            if batch.up_to.get() >= up_to {
                assert_eq!(batch.up_to.get(), up_to);
                return events;
            }
        }
    }

    #[tokio::test]
    async fn the_head_is_at_the_limit_until_the_limit_moves() {
        let (_folder, log) = log_with_apps(10).await;
        let bounded = BoundedLog::new(log, Position::START);
        bounded.set_limit(Position::new(5));
        assert_eq!(bounded.head().await.unwrap(), Position::new(5));
        let mut subscription = bounded.subscribe(Position::START).await.unwrap();
        assert_eq!(read_up_to(&mut subscription, 5).await, 5);
        assert_eq!(bounded.pause(), Position::new(5));
        bounded.set_limit(Position::new(7));
        assert_eq!(read_up_to(&mut subscription, 7).await, 2);
        bounded.remove_limit();
        assert_eq!(read_up_to(&mut subscription, 10).await, 3);
    }

    #[tokio::test]
    async fn a_subscription_ends_when_its_log_is_dropped() {
        let (_folder, log) = log_with_apps(2).await;
        let bounded = BoundedLog::new(log, Position::START);
        let mut subscription = bounded.subscribe(Position::START).await.unwrap();
        assert_eq!(read_up_to(&mut subscription, 2).await, 2);
        let next = tokio::spawn(async move { subscription.next(3).await });
        tokio::task::yield_now().await;
        drop(bounded);
        let ended = timeout(Duration::from_secs(10), next).await.unwrap().unwrap();
        assert!(matches!(ended, Err(EventStoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn the_head_is_never_before_the_last_returned_event() {
        let (_folder, log) = log_with_apps(10).await;
        let bounded = BoundedLog::new(log, Position::new(6));
        bounded.set_limit(Position::new(2));
        assert_eq!(bounded.head().await.unwrap(), Position::new(6));
        assert_eq!(bounded.pause(), Position::new(6));
    }
}
