//! The latest events of this process, in memory: what follows the log closely takes them from here and leaves the file
//! alone.
//!
//! Every projection follows the log by itself, each a moment behind its end. Reading those events back from the file
//! would cost more than appending them did.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_domain::{Position, Revision};

use chat_ports::event_store::{AppendError, Appended, NewEvent, RecordedEvent, StreamAppend};

/// About how many bytes are kept.
const KEPT_BYTES: usize = 4 << 20;

/// What an event takes beside its payload and metadata, about.
const EVENT_BYTES: usize = 192;

/// Events that follow one another without a gap. They are all in the file, too.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Each of a transaction, in order; none is empty.
    written: VecDeque<Arc<Written>>,
    bytes: usize,
}

/// The events of a transaction.
#[derive(Debug)]
struct Written {
    first: Position,
    events: Vec<Event>,
    bytes: usize,
}

#[derive(Debug)]
struct Event {
    stream: Arc<str>,
    revision: Revision,
    event: NewEvent,
}

impl Event {
    fn recorded(&self, position: Position) -> RecordedEvent {
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

impl Written {
    fn last(&self) -> Position {
        Position::new(self.first.get() + self.events.len() as u64 - 1)
    }
}

impl Kept {
    fn last(&self) -> Option<Position> {
        self.written.back().map(|written| written.last())
    }

    fn forget(&mut self) {
        self.written.clear();
        self.bytes = 0;
    }
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a transaction wrote, once it is committed: the appends that came after `head`, where the log ended
    /// before.
    pub(super) fn keep(
        &self,
        head: Position,
        appends: &[&StreamAppend],
        outcomes: &[Result<Appended, AppendError>],
    ) {
        let mut events = Vec::with_capacity(appends.len());
        let mut bytes = 0;
        for (append, outcome) in appends.iter().zip(outcomes) {
            let Ok(Appended { position, revision }) = outcome else { continue };
            // What was stored before, by an earlier transaction or by this one, is where it was.
            if position.get() <= head.get() + events.len() as u64 {
                continue;
            }
            let first = revision.get() + 1 - append.events.len() as u64;
            for (revision, event) in (first..).zip(&append.events) {
                bytes += EVENT_BYTES + event.data.len() + event.metadata.len();
                events.push(Event {
                    stream: Arc::clone(&append.stream),
                    revision: Revision::new(revision),
                    event: event.clone(),
                });
            }
        }
        if events.is_empty() {
            return;
        }
        let mut kept = self.kept();
        // Another process appended in between, or the end of the file was lost.
        if kept.last() != Some(head) {
            kept.forget();
        }
        let first = Position::new(head.get() + 1);
        kept.written.push_back(Arc::new(Written { first, events, bytes }));
        kept.bytes += bytes;
        while kept.bytes > KEPT_BYTES
            && let Some(oldest) = kept.written.pop_front()
        {
            kept.bytes -= oldest.bytes;
        }
    }

    /// The events after a position, up to `limit`: none where it is the last one that is kept, and `None` where it is not
    /// known here what comes next.
    pub(super) fn after(&self, after: Position, limit: usize) -> Option<Vec<RecordedEvent>> {
        let written = self.written_after(after, limit)?;
        let events = written.iter().flat_map(|written| {
            let positions = written.first.get()..;
            positions.zip(&written.events).skip_while(|(position, _)| *position <= after.get())
        });
        Some(events.take(limit).map(|(position, event)| event.recorded(Position::new(position))).collect())
    }

    /// Transactions that hold what comes after a position, as many as hold `limit` events. Copying those is for when the
    /// lock is free again: the thread that appends waits for it.
    fn written_after(&self, after: Position, limit: usize) -> Option<Vec<Arc<Written>>> {
        let kept = self.kept();
        let last = kept.last()?;
        if after >= last {
            return (after == last).then(Vec::new);
        }
        let start = kept.written.partition_point(|written| written.last() <= after);
        if kept.written.get(start)?.first.get() > after.get() + 1 {
            return None;
        }
        let enough = after.get().saturating_add(limit as u64);
        let wanted = kept.written.range(start..).take_while(|written| written.first.get() <= enough);
        Some(wanted.map(Arc::clone).collect())
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;
    use chat_domain::{ExpectedRevision, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn append(stream: &str, after: Option<u64>, events: usize, bytes: usize) -> StreamAppend {
        let event = |_| NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: "MessageCreated",
            schema_version: SchemaVersion::CURRENT,
            recorded_at: Timestamp::from_millis(1),
            data: "x".repeat(bytes),
            metadata: "{}".into(),
        };
        StreamAppend {
            stream: stream.into(),
            expected: ExpectedRevision::after(after.map(Revision::new)),
            events: (0..events).map(event).collect(),
        }
    }

    fn appended(position: u64, revision: u64) -> Appended {
        Appended { position: Position::new(position), revision: Revision::new(revision) }
    }

    /// Keeps `events` events after `head`.
    fn keep(recent: &Recent, head: u64, events: usize, bytes: usize) {
        let last = head + events as u64;
        recent.keep(
            Position::new(head),
            &[&append("a", head.checked_sub(1), events, bytes)],
            &[Ok(appended(last, last - 1))],
        );
    }

    fn positions(recent: &Recent, after: u64, limit: usize) -> Option<Vec<u64>> {
        let events = recent.after(Position::new(after), limit)?;
        Some(events.iter().map(|event| event.position.get()).collect())
    }

    #[test]
    fn what_was_kept_comes_in_order_whatever_transactions_it_was_in() {
        let recent = Recent::default();
        assert_eq!(positions(&recent, 0, 9), None);
        for (head, events) in [(0, 3), (3, 1), (4, 4)] {
            keep(&recent, head, events, 9);
        }
        assert_eq!(positions(&recent, 0, 99), Some((1..=8).collect()));
        assert_eq!(positions(&recent, 1, 3), Some(vec![2, 3, 4]));
        assert_eq!(positions(&recent, 3, 2), Some(vec![4, 5]));
        assert_eq!(positions(&recent, 8, 2), Some(vec![]));
        assert_eq!(positions(&recent, 9, 2), None);
    }

    #[test]
    fn events_are_as_they_were_appended() {
        let recent = Recent::default();
        let (a, b, c) = (append("a", Some(4), 2, 3), append("b", None, 1, 5), append("c", None, 1, 7));
        let outcomes = [Ok(appended(12, 6)), Err(AppendError::Conflict), Ok(appended(13, 0))];
        recent.keep(Position::new(10), &[&a, &b, &c], &outcomes);
        let events = recent.after(Position::new(10), 9).unwrap();
        let places: Vec<_> =
            events.iter().map(|event| (event.position.get(), &*event.stream, event.revision.get())).collect();
        assert_eq!(places, [(11, "a", 5), (12, "a", 6), (13, "c", 0)]);
        assert_eq!((events[1].id, &events[1].event_type[..]), (a.events[1].id, "MessageCreated"));
        assert_eq!((&events[2].data[..], &events[2].metadata[..]), (&b"xxxxxxx"[..], &b"{}"[..]));
    }

    #[test]
    fn an_append_that_was_stored_before_is_not_kept_again() {
        let recent = Recent::default();
        keep(&recent, 0, 2, 9);
        recent.keep(Position::new(2), &[&append("a", None, 1, 9)], &[Ok(appended(1, 0))]);
        assert_eq!(positions(&recent, 0, 9), Some(vec![1, 2]));
        let (a, b) = (append("b", None, 2, 9), append("c", None, 1, 9));
        let outcomes = [Ok(appended(4, 1)), Ok(appended(4, 1)), Ok(appended(5, 0))];
        recent.keep(Position::new(2), &[&a, &a, &b], &outcomes);
        let events = recent.after(Position::new(2), 9).unwrap();
        let places: Vec<_> = events.iter().map(|event| (event.position.get(), &*event.stream)).collect();
        assert_eq!(places, [(3, "b"), (4, "b"), (5, "c")]);
    }

    #[test]
    fn after_what_another_process_appended_the_file_is_asked() {
        let recent = Recent::default();
        keep(&recent, 0, 2, 9);
        keep(&recent, 5, 2, 9);
        assert_eq!(positions(&recent, 1, 9), None);
        assert_eq!(positions(&recent, 2, 9), None);
        assert_eq!(positions(&recent, 5, 9), Some(vec![6, 7]));
    }

    #[test]
    fn only_the_latest_are_kept() {
        let recent = Recent::default();
        for head in 0..6 {
            keep(&recent, head, 1, KEPT_BYTES / 4);
        }
        assert_eq!(positions(&recent, 2, 9), None);
        assert_eq!(positions(&recent, 3, 9), Some(vec![4, 5, 6]));
        keep(&recent, 6, 1, KEPT_BYTES);
        assert_eq!(positions(&recent, 6, 9), None);
    }
}
