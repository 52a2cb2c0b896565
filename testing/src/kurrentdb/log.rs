//! The stand-in's log: events in memory, in one order, under KurrentDB's rules for appending.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

/// Each so many appends the server writes an event of its own, as real ones do.
const SYSTEM_EVENT_EVERY: u64 = 3;

/// What a record takes in a real log beside what its writer gave, about: positions are offsets in bytes.
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

/// What an append expects of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedRevision {
    Any,
    StreamExists,
    NoStream,
    Revision(u64),
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppendOutcome {
    Stored {
        revision: u64,
        position: u64,
    },
    /// The same events stand there already.
    AlreadyStored {
        revision: u64,
        position: u64,
    },
    /// The stream ends elsewhere.
    WrongExpectedRevision {
        current: Option<u64>,
    },
    /// The stream was deleted for good.
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

/// The log, and who waits for it to grow.
#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<LogState>,
    length: watch::Sender<usize>,
}

impl Default for Log {
    fn default() -> Self {
        let log = Self { state: Mutex::default(), length: watch::Sender::new(0) };
        // The first record of a real log is one of the server's own.
        log.lock_state().write(&Bytes::from_static(b"$epoch-information"), ProposedEvent::default());
        log
    }
}

impl Log {
    fn lock_state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends under KurrentDB's rules: a stream that has gone on accepts the same events at the same place again, and
    /// answers as if it had just stored them.
    pub(super) fn append(
        &self,
        stream: &Bytes,
        expected: ExpectedRevision,
        events: Vec<ProposedEvent>,
    ) -> AppendOutcome {
        let mut content = self.lock_state();
        if content.tombstones.contains(stream) {
            return AppendOutcome::Deleted;
        }
        let current = content.last_revision(stream);
        let first = match expected {
            ExpectedRevision::Any => current.map_or(0, |last| last + 1),
            ExpectedRevision::StreamExists => match current {
                Some(last) => last + 1,
                None => return AppendOutcome::WrongExpectedRevision { current },
            },
            ExpectedRevision::NoStream => 0,
            ExpectedRevision::Revision(last) => last + 1,
        };
        let next = current.map_or(0, |last| last + 1);
        if first != next {
            return content
                .find_stored(stream, first, &events)
                .unwrap_or(AppendOutcome::WrongExpectedRevision { current });
        }
        let mut position = content.next_position;
        for event in events {
            position = content.write(stream, event);
        }
        let revision = content.last_revision(stream).unwrap_or(0);
        content.appends += 1;
        if content.appends.is_multiple_of(SYSTEM_EVENT_EVERY) {
            content.write(&Bytes::from_static(b"$stats-127.0.0.1:2113"), ProposedEvent::default());
        }
        self.length.send_replace(content.records.len());
        AppendOutcome::Stored { revision, position }
    }

    /// Alters what is stored, as somebody with access to the server's files may.
    pub(super) fn alter(&self, change: impl FnOnce(&mut Vec<Arc<Record>>)) {
        let mut content = self.lock_state();
        change(&mut content.records);
        content.streams.clear();
        let LogState { records, streams, .. } = &mut *content;
        for (place, record) in records.iter().enumerate() {
            streams.entry(record.stream.clone()).or_default().push(place);
        }
    }

    /// Deletes a stream for good.
    pub(super) fn tombstone(&self, stream: &str) {
        self.lock_state().tombstones.push(Bytes::copy_from_slice(stream.as_bytes()));
    }

    pub(super) fn is_deleted(&self, stream: &Bytes) -> bool {
        self.lock_state().tombstones.contains(stream)
    }

    /// The records of one stream, `None` where it does not exist.
    pub(super) fn stream(&self, stream: &Bytes) -> Option<Vec<Arc<Record>>> {
        let content = self.lock_state();
        let places = content.streams.get(stream)?;
        Some(places.iter().map(|place| Arc::clone(&content.records[*place])).collect())
    }

    /// Up to `limit` records from the place `from` on. Places count records.
    pub(super) fn slice(&self, from: usize, limit: usize) -> Vec<Arc<Record>> {
        self.lock_state().records.iter().skip(from).take(limit).cloned().collect()
    }

    /// The place of the first record at or after a position.
    pub(super) fn index_of(&self, position: u64) -> usize {
        self.lock_state().records.partition_point(|record| record.position < position)
    }

    /// All records before a place, last first.
    pub(super) fn slice_backwards(&self, place: usize) -> Vec<Arc<Record>> {
        self.lock_state().records.iter().take(place).rev().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock_state().records.len()
    }

    /// Where the next record will stand.
    pub(super) fn next_position(&self) -> u64 {
        self.lock_state().next_position
    }

    /// Changes when the log grows.
    pub(super) fn watch_length(&self) -> watch::Receiver<usize> {
        self.length.subscribe()
    }
}

impl LogState {
    fn last_revision(&self, stream: &Bytes) -> Option<u64> {
        self.streams.get(stream).map(|places| places.len() as u64 - 1)
    }

    /// Writes a record, and returns its position.
    fn write(&mut self, stream: &Bytes, proposed: ProposedEvent) -> u64 {
        let place = self.records.len();
        let places = self.streams.entry(stream.clone()).or_default();
        let (position, revision) = (self.next_position, places.len() as u64);
        places.push(place);
        let bytes = RECORD_BYTES + stream.len() + proposed.data.len() + proposed.custom_metadata.len();
        self.next_position += bytes as u64;
        self.records.push(Arc::new(Record { position, stream: stream.clone(), revision, proposed }));
        position
    }

    /// Whether these events stand in the stream from the revision `first` on.
    fn find_stored(&self, stream: &Bytes, first: u64, events: &[ProposedEvent]) -> Option<AppendOutcome> {
        let places = self.streams.get(stream)?;
        let mut last = None;
        for (offset, event) in events.iter().enumerate() {
            let place = places.get(usize::try_from(first).ok()? + offset)?;
            let record = &self.records[*place];
            if record.proposed.id != event.id {
                return None;
            }
            last =
                Some(AppendOutcome::AlreadyStored { revision: record.revision, position: record.position });
        }
        last
    }
}
