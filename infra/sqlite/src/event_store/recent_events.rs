//! An in-memory buffer of the latest events that this process committed.
//!
//! Every projection follows the log by itself, a moment behind the head. Reading those events back from the file would
//! cost more than appending them, so subscriptions read them from this buffer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_domain::{Position, Revision};

use chat_ports::event_store::{AppendError, AppendReceipt, NewEvent, RecordedEvent, StreamAppend};

/// The approximate size of the buffer.
const CAPACITY_BYTES: usize = 4 << 20;

/// The approximate size of an event without payload and metadata.
const EVENT_OVERHEAD_BYTES: usize = 192;

/// A buffer of contiguous events, all of which are also in the file.
#[derive(Debug, Default)]
pub(super) struct RecentEvents(Mutex<Buffer>);

#[derive(Debug, Default)]
struct Buffer {
    /// Committed transactions in order; none is empty.
    transactions: VecDeque<Arc<CommittedTransaction>>,
    bytes: usize,
}

/// The events of one transaction.
#[derive(Debug)]
struct CommittedTransaction {
    first_position: Position,
    events: Vec<BufferedEvent>,
    bytes: usize,
}

#[derive(Debug)]
struct BufferedEvent {
    stream: Arc<str>,
    revision: Revision,
    event: NewEvent,
}

impl BufferedEvent {
    fn to_recorded(&self, position: Position) -> RecordedEvent {
        let NewEvent { id, event_type, schema_version, recorded_at, data, metadata } = &self.event;
        RecordedEvent {
            position,
            stream: Arc::clone(&self.stream),
            revision: self.revision,
            id: *id,
            event_type: (*event_type).to_owned(),
            schema_version: *schema_version,
            recorded_at: *recorded_at,
            data: data.as_bytes().to_vec(),
            metadata: metadata.as_bytes().to_vec(),
        }
    }
}

impl CommittedTransaction {
    fn last_position(&self) -> Position {
        Position::new(self.first_position.get() + self.events.len() as u64 - 1)
    }
}

impl Buffer {
    fn last_position(&self) -> Option<Position> {
        self.transactions.back().map(|transaction| transaction.last_position())
    }

    fn clear(&mut self) {
        self.transactions.clear();
        self.bytes = 0;
    }
}

impl RecentEvents {
    fn lock_buffer(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the events of a committed transaction. `head_before` is the head of the log before the transaction.
    pub(super) fn record_commit(
        &self,
        head_before: Position,
        appends: &[&StreamAppend],
        outcomes: &[Result<AppendReceipt, AppendError>],
    ) {
        let mut events = Vec::with_capacity(appends.len());
        let mut bytes = 0;
        for (append, outcome) in appends.iter().zip(outcomes) {
            let Ok(AppendReceipt { position, revision }) = outcome else { continue };
            // An append that repeats one of an earlier transaction or of this one stored nothing.
            if position.get() <= head_before.get() + events.len() as u64 {
                continue;
            }
            let first_revision = revision.get() + 1 - append.events.len() as u64;
            for (revision, event) in (first_revision..).zip(&append.events) {
                bytes += EVENT_OVERHEAD_BYTES + event.data.len() + event.metadata.len();
                events.push(BufferedEvent {
                    stream: Arc::clone(&append.stream),
                    revision: Revision::new(revision),
                    event: event.clone(),
                });
            }
        }
        if events.is_empty() {
            return;
        }
        let mut buffer = self.lock_buffer();
        // The buffer must be contiguous. It does not end at `head_before` if another process appended after the
        // buffer's last event, or if the file lost its last events.
        if buffer.last_position() != Some(head_before) {
            buffer.clear();
        }
        let first_position = Position::new(head_before.get() + 1);
        buffer.transactions.push_back(Arc::new(CommittedTransaction { first_position, events, bytes }));
        buffer.bytes += bytes;
        while buffer.bytes > CAPACITY_BYTES
            && let Some(oldest) = buffer.transactions.pop_front()
        {
            buffer.bytes -= oldest.bytes;
        }
    }

    /// Returns up to `limit` events after position `after`. The list is empty if `after` is the position of the
    /// buffer's last event. Returns `None` if `after` is higher than that position, if the buffer is empty, or if it
    /// lacks the event that follows `after`; in each case, the event that follows may be in the file.
    pub(super) fn read_after(&self, after: Position, limit: usize) -> Option<Vec<RecordedEvent>> {
        let transactions = self.transactions_after(after, limit)?;
        let events = transactions.iter().flat_map(|transaction| {
            let positions = transaction.first_position.get()..;
            positions.zip(&transaction.events).skip_while(|(position, _)| *position <= after.get())
        });
        Some(events.take(limit).map(|(position, event)| event.to_recorded(Position::new(position))).collect())
    }

    /// Returns the transactions with the next `limit` events after a position. The caller copies the events after the
    /// lock is released, because the writer thread waits for the lock.
    fn transactions_after(&self, after: Position, limit: usize) -> Option<Vec<Arc<CommittedTransaction>>> {
        let buffer = self.lock_buffer();
        let last = buffer.last_position()?;
        if after >= last {
            return (after == last).then(Vec::new);
        }
        let start = buffer.transactions.partition_point(|transaction| transaction.last_position() <= after);
        if buffer.transactions.get(start)?.first_position.get() > after.get() + 1 {
            return None;
        }
        let last_needed = after.get().saturating_add(limit as u64);
        let transactions = buffer
            .transactions
            .range(start..)
            .take_while(|transaction| transaction.first_position.get() <= last_needed);
        Some(transactions.map(Arc::clone).collect())
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;
    use chat_domain::{ExpectedRevision, Timestamp};
    use uuid::Uuid;

    use super::*;

    /// Creates an append of `events` events, each with a payload of `bytes` bytes, after `last_revision`.
    fn new_append(stream: &str, last_revision: Option<u64>, events: usize, bytes: usize) -> StreamAppend {
        let event = |_| NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: "MessageCreated",
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(1),
            data: "x".repeat(bytes),
            metadata: "{}".into(),
        };
        StreamAppend {
            stream: stream.into(),
            expected_revision: ExpectedRevision::from_last_revision(last_revision.map(Revision::new)),
            events: (0..events).map(event).collect(),
        }
    }

    fn receipt(position: u64, revision: u64) -> AppendReceipt {
        AppendReceipt { position: Position::new(position), revision: Revision::new(revision) }
    }

    /// Records a commit of `events` events after `head`.
    fn record_commit(recent: &RecentEvents, head: u64, events: usize, bytes: usize) {
        let last = head + events as u64;
        recent.record_commit(
            Position::new(head),
            &[&new_append("a", head.checked_sub(1), events, bytes)],
            &[Ok(receipt(last, last - 1))],
        );
    }

    fn positions(recent: &RecentEvents, after: u64, limit: usize) -> Option<Vec<u64>> {
        let events = recent.read_after(Position::new(after), limit)?;
        Some(events.iter().map(|event| event.position.get()).collect())
    }

    #[test]
    fn returns_events_in_order_across_transactions() {
        let recent = RecentEvents::default();
        assert_eq!(positions(&recent, 0, 9), None);
        for (head, events) in [(0, 3), (3, 1), (4, 4)] {
            record_commit(&recent, head, events, 9);
        }
        assert_eq!(positions(&recent, 0, 99), Some((1..=8).collect()));
        assert_eq!(positions(&recent, 1, 3), Some(vec![2, 3, 4]));
        assert_eq!(positions(&recent, 3, 2), Some(vec![4, 5]));
        assert_eq!(positions(&recent, 8, 2), Some(vec![]));
        assert_eq!(positions(&recent, 9, 2), None);
    }

    #[test]
    fn events_are_as_they_were_appended() {
        let recent = RecentEvents::default();
        let (a, b, c) =
            (new_append("a", Some(4), 2, 3), new_append("b", None, 1, 5), new_append("c", None, 1, 7));
        let outcomes = [Ok(receipt(12, 6)), Err(AppendError::Conflict), Ok(receipt(13, 0))];
        recent.record_commit(Position::new(10), &[&a, &b, &c], &outcomes);
        let events = recent.read_after(Position::new(10), 9).unwrap();
        let locations: Vec<_> =
            events.iter().map(|event| (event.position.get(), &*event.stream, event.revision.get())).collect();
        assert_eq!(locations, [(11, "a", 5), (12, "a", 6), (13, "c", 0)]);
        assert_eq!((events[1].id, &events[1].event_type[..]), (a.events[1].id, "MessageCreated"));
        assert_eq!((&events[2].data[..], &events[2].metadata[..]), (&b"xxxxxxx"[..], &b"{}"[..]));
    }

    #[test]
    fn does_not_buffer_a_repeated_append() {
        let recent = RecentEvents::default();
        record_commit(&recent, 0, 2, 9);
        recent.record_commit(Position::new(2), &[&new_append("a", None, 1, 9)], &[Ok(receipt(1, 0))]);
        assert_eq!(positions(&recent, 0, 9), Some(vec![1, 2]));
        let (b, c) = (new_append("b", None, 2, 9), new_append("c", None, 1, 9));
        let outcomes = [Ok(receipt(4, 1)), Ok(receipt(4, 1)), Ok(receipt(5, 0))];
        recent.record_commit(Position::new(2), &[&b, &b, &c], &outcomes);
        let events = recent.read_after(Position::new(2), 9).unwrap();
        let locations: Vec<_> = events.iter().map(|event| (event.position.get(), &*event.stream)).collect();
        assert_eq!(locations, [(3, "b"), (4, "b"), (5, "c")]);
    }

    #[test]
    fn returns_none_across_the_appends_of_another_process() {
        let recent = RecentEvents::default();
        record_commit(&recent, 0, 2, 9);
        record_commit(&recent, 5, 2, 9);
        assert_eq!(positions(&recent, 1, 9), None);
        assert_eq!(positions(&recent, 2, 9), None);
        assert_eq!(positions(&recent, 5, 9), Some(vec![6, 7]));
    }

    #[test]
    fn evicts_the_oldest_transactions() {
        let recent = RecentEvents::default();
        for head in 0..6 {
            record_commit(&recent, head, 1, CAPACITY_BYTES / 4);
        }
        assert_eq!(positions(&recent, 2, 9), None);
        assert_eq!(positions(&recent, 3, 9), Some(vec![4, 5, 6]));
        record_commit(&recent, 6, 1, CAPACITY_BYTES);
        assert_eq!(positions(&recent, 6, 9), None);
    }
}
