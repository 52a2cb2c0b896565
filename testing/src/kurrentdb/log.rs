//! The log of the fake KurrentDB: events in memory, with KurrentDB's rules for appends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

/// The number of appends after which the server writes an event of its own, as real servers do.
const SYSTEM_EVENT_EVERY: u64 = 3;

/// The approximate overhead of a record in a real log, where positions are offsets in bytes.
const RECORD_BYTES: usize = 90;

/// A stored event.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) position: u64,
    pub(super) stream: Bytes,
    pub(super) revision: u64,
    pub(super) proposed: ProposedEvent,
}

/// An event as its writer sent it.
#[derive(Clone, Debug, Default)]
pub(super) struct ProposedEvent {
    pub(super) id: Uuid,
    pub(super) metadata: HashMap<String, String>,
    pub(super) custom_metadata: Bytes,
    pub(super) data: Bytes,
}

/// The expected revision of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedRevision {
    Any,
    StreamExists,
    NoStream,
    Revision(u64),
}

/// The outcome of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppendOutcome {
    Stored {
        revision: u64,
        position: u64,
    },
    /// The same events are stored at the same revisions.
    AlreadyStored {
        revision: u64,
        position: u64,
    },
    /// The stream has another last revision.
    WrongExpectedRevision,
    /// The stream was deleted permanently.
    Deleted,
}

#[derive(Debug, Default)]
struct LogState {
    records: Vec<Arc<Record>>,
    streams: HashMap<Bytes, Vec<usize>>,
    tombstones: Vec<Bytes>,
    next_position: u64,
    appends: u64,
}

/// The log, and a channel with its length.
#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<LogState>,
    length: watch::Sender<usize>,
}

impl Default for Log {
    fn default() -> Self {
        let log = Self { state: Mutex::default(), length: watch::Sender::new(0) };
        // The first record of a real log is a system event.
        log.lock_state().write(&Bytes::from_static(b"$epoch-information"), ProposedEvent::default());
        log
    }
}

impl Log {
    fn lock_state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends with KurrentDB's rules: an append that repeats stored events at their revisions succeeds, also if later events
    /// follow.
    pub(super) fn append(
        &self,
        stream: &Bytes,
        expected: ExpectedRevision,
        events: Vec<ProposedEvent>,
    ) -> AppendOutcome {
        let mut state = self.lock_state();
        if state.tombstones.contains(stream) {
            return AppendOutcome::Deleted;
        }
        let current = state.last_revision(stream);
        let first = match expected {
            ExpectedRevision::Any => current.map_or(0, |last| last + 1),
            ExpectedRevision::StreamExists => match current {
                Some(last) => last + 1,
                None => return AppendOutcome::WrongExpectedRevision,
            },
            ExpectedRevision::NoStream => 0,
            ExpectedRevision::Revision(last) => last + 1,
        };
        let next = current.map_or(0, |last| last + 1);
        if first != next {
            return state.find_stored(stream, first, &events).unwrap_or(AppendOutcome::WrongExpectedRevision);
        }
        let mut position = state.next_position;
        for event in events {
            position = state.write(stream, event);
        }
        let revision = state.last_revision(stream).unwrap_or(0);
        state.appends += 1;
        if state.appends.is_multiple_of(SYSTEM_EVENT_EVERY) {
            state.write(&Bytes::from_static(b"$stats-127.0.0.1:2113"), ProposedEvent::default());
        }
        self.length.send_replace(state.records.len());
        AppendOutcome::Stored { revision, position }
    }

    /// Tampers with the stored records.
    pub(super) fn alter(&self, change: impl FnOnce(&mut Vec<Arc<Record>>)) {
        let mut state = self.lock_state();
        change(&mut state.records);
        state.streams.clear();
        let LogState { records, streams, .. } = &mut *state;
        for (index, record) in records.iter().enumerate() {
            streams.entry(record.stream.clone()).or_default().push(index);
        }
    }

    /// Deletes a stream permanently.
    pub(super) fn tombstone(&self, stream: &str) {
        self.lock_state().tombstones.push(Bytes::copy_from_slice(stream.as_bytes()));
    }

    pub(super) fn is_deleted(&self, stream: &Bytes) -> bool {
        self.lock_state().tombstones.contains(stream)
    }

    /// The records of one stream, or `None` if it does not exist.
    pub(super) fn stream(&self, stream: &Bytes) -> Option<Vec<Arc<Record>>> {
        let state = self.lock_state();
        let indexes = state.streams.get(stream)?;
        Some(indexes.iter().map(|index| Arc::clone(&state.records[*index])).collect())
    }

    /// Up to `limit` records from the index `from` on.
    pub(super) fn slice(&self, from: usize, limit: usize) -> Vec<Arc<Record>> {
        self.lock_state().records.iter().skip(from).take(limit).cloned().collect()
    }

    /// The index of the first record at or after a position.
    pub(super) fn index_of(&self, position: u64) -> usize {
        self.lock_state().records.partition_point(|record| record.position < position)
    }

    /// All records before an index, last first.
    pub(super) fn slice_backwards(&self, index: usize) -> Vec<Arc<Record>> {
        self.lock_state().records.iter().take(index).rev().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock_state().records.len()
    }

    /// The position of the next record.
    pub(super) fn next_position(&self) -> u64 {
        self.lock_state().next_position
    }

    /// Returns a receiver that is notified when the log grows.
    pub(super) fn watch_length(&self) -> watch::Receiver<usize> {
        self.length.subscribe()
    }
}

impl LogState {
    fn last_revision(&self, stream: &Bytes) -> Option<u64> {
        self.streams.get(stream).map(|indexes| indexes.len() as u64 - 1)
    }

    /// Writes a record, and returns its position.
    fn write(&mut self, stream: &Bytes, proposed: ProposedEvent) -> u64 {
        let index = self.records.len();
        let indexes = self.streams.entry(stream.clone()).or_default();
        let (position, revision) = (self.next_position, indexes.len() as u64);
        indexes.push(index);
        let bytes = RECORD_BYTES + stream.len() + proposed.data.len() + proposed.custom_metadata.len();
        self.next_position += bytes as u64;
        self.records.push(Arc::new(Record { position, stream: stream.clone(), revision, proposed }));
        position
    }

    /// Finds these events in the stream from the revision `first` on.
    fn find_stored(&self, stream: &Bytes, first: u64, events: &[ProposedEvent]) -> Option<AppendOutcome> {
        let indexes = self.streams.get(stream)?;
        let mut last = None;
        for (offset, event) in events.iter().enumerate() {
            let index = indexes.get(usize::try_from(first).ok()? + offset)?;
            let record = &self.records[*index];
            if record.proposed.id != event.id {
                return None;
            }
            last =
                Some(AppendOutcome::AlreadyStored { revision: record.revision, position: record.position });
        }
        last
    }
}
