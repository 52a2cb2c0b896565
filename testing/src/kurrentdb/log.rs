//! The log of the fake KurrentDB: events in memory, with KurrentDB's rules for appends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;
use uuid::Uuid;

/// The number of appends after which the server writes an event of its own, as real servers do.
const SYSTEM_EVENT_EVERY: u64 = 3;

/// The approximate overhead of a record in a real log, where positions are offsets in bytes.
const RECORD_BYTES: usize = 90;

/// The beginning of the names of streams that hold metadata.
const METADATA_PREFIX: &[u8] = b"$$";

/// A stored event.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) position: u64,
    pub(super) stream: Bytes,
    pub(super) revision: u64,
    pub(super) appended: Instant,
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

impl ProposedEvent {
    /// An event that chat-api has not written: of another program, or of the server itself.
    pub(super) fn of_type(event_type: &str, data: Bytes) -> Self {
        let metadata = [("type", event_type), ("content-type", "application/json")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { id: Uuid::new_v4(), metadata: metadata.into(), custom_metadata: Bytes::new(), data }
    }
}

/// The stream that holds the metadata of a stream.
fn metadata_stream(stream: &Bytes) -> Bytes {
    [METADATA_PREFIX, stream].concat().into()
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
    /// The stream's last revision is not the expected one.
    WrongExpectedRevision,
    /// The stream was deleted permanently.
    Deleted,
}

/// The revision before which events of a soft-deleted stream are truncated, and the revision of a tombstone.
const DELETED: u64 = i64::MAX as u64;

/// The limits in a stream's metadata.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct StreamLimits {
    #[serde(rename = "$maxCount")]
    max_count: Option<usize>,
    /// In seconds.
    #[serde(rename = "$maxAge")]
    max_age: Option<u64>,
    #[serde(rename = "$tb")]
    truncate_before: Option<u64>,
}

impl StreamLimits {
    fn is_soft_deleted(&self) -> bool {
        self.truncate_before == Some(DELETED)
    }
}

#[derive(Debug, Default)]
struct LogState {
    records: Vec<Arc<Record>>,
    /// The indexes of each stream's records.
    streams: HashMap<Bytes, Vec<usize>>,
    /// The streams that were deleted permanently.
    tombstones: Vec<Bytes>,
    next_position: u64,
    /// The number of successful appends.
    appends: u64,
}

/// The log, and a channel that notifies readers of its growth.
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

    /// Appends with KurrentDB's rules: an append that repeats stored events at their revisions succeeds, also if later
    /// events follow.
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
        let limits = state.limits(stream);
        let expected_next = match expected {
            // A soft-deleted stream goes on after its last revision.
            ExpectedRevision::NoStream if limits.is_soft_deleted() => current.map_or(0, |last| last + 1),
            ExpectedRevision::Any => current.map_or(0, |last| last + 1),
            ExpectedRevision::StreamExists => match current {
                Some(last) => last + 1,
                None => return AppendOutcome::WrongExpectedRevision,
            },
            ExpectedRevision::NoStream => 0,
            ExpectedRevision::Revision(last) => last + 1,
        };
        let next = current.map_or(0, |last| last + 1);
        if expected_next != next {
            return state
                .find_stored(stream, expected_next, &events)
                .unwrap_or(AppendOutcome::WrongExpectedRevision);
        }
        if limits.is_soft_deleted() {
            state.write_metadata(stream, &format!(r#"{{"$tb":{next}}}"#));
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

    /// Deletes a stream permanently, by an event that is the last one of the stream.
    pub(super) fn tombstone(&self, stream: &str) {
        let mut state = self.lock_state();
        let stream = Bytes::copy_from_slice(stream.as_bytes());
        state.write_at(&stream, DELETED, ProposedEvent::of_type("$streamDeleted", Bytes::new()));
        state.tombstones.push(stream);
        self.length.send_replace(state.records.len());
    }

    /// Writes the metadata of a stream, as JSON.
    pub(super) fn set_metadata(&self, stream: &str, metadata: &str) {
        let mut state = self.lock_state();
        state.write_metadata(&Bytes::copy_from_slice(stream.as_bytes()), metadata);
        self.length.send_replace(state.records.len());
    }

    /// Removes the events of deleted streams and those that limits hide, except the last event of each stream.
    pub(super) fn scavenge(&self) {
        let (kept, end): (Vec<u64>, u64) = {
            let state = self.lock_state();
            let streams = state.streams.keys();
            (streams.flat_map(|stream| state.kept_by_scavenges(stream)).collect(), state.next_position)
        };
        // Events that were appended meanwhile are kept.
        self.alter(|records| {
            records.retain(|record| record.position >= end || kept.contains(&record.position));
        });
        self.length.send_replace(self.len());
    }

    /// Whether the stream was deleted permanently, or is the metadata stream of one that was.
    pub(super) fn is_deleted(&self, stream: &Bytes) -> bool {
        let state = self.lock_state();
        state.tombstones.contains(stream)
            || stream
                .strip_prefix(METADATA_PREFIX)
                .is_some_and(|owner| state.tombstones.iter().any(|tombstone| tombstone == owner))
    }

    /// The records that one stream still has, or `None` if it does not exist or was soft-deleted.
    pub(super) fn stream(&self, stream: &Bytes) -> Option<Vec<Arc<Record>>> {
        let state = self.lock_state();
        let records = state.stream_records(stream)?;
        (!state.limits(stream).is_soft_deleted()).then(|| state.visible(stream, records))
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
        self.streams.get(stream)?.last().map(|index| self.records[*index].revision)
    }

    fn stream_records(&self, stream: &Bytes) -> Option<Vec<Arc<Record>>> {
        let indexes = self.streams.get(stream)?;
        Some(indexes.iter().map(|index| Arc::clone(&self.records[*index])).collect())
    }

    /// The limits in the newest metadata of a stream.
    fn limits(&self, stream: &Bytes) -> StreamLimits {
        let newest = self.streams.get(&metadata_stream(stream)).and_then(|indexes| indexes.last());
        let parsed = newest.map(|index| serde_json::from_slice(&self.records[*index].proposed.data));
        parsed.and_then(Result::ok).unwrap_or_default()
    }

    /// Those of the records that the limits of the stream do not hide.
    fn visible(&self, stream: &Bytes, mut records: Vec<Arc<Record>>) -> Vec<Arc<Record>> {
        let limits = self.limits(stream);
        if let Some(before) = limits.truncate_before {
            records.retain(|record| record.revision >= before);
        }
        if let Some(seconds) = limits.max_age {
            records.retain(|record| record.appended.elapsed() < Duration::from_secs(seconds));
        }
        if let Some(count) = limits.max_count {
            records.drain(..records.len().saturating_sub(count));
        }
        records
    }

    /// The positions of the records that a scavenge keeps.
    fn kept_by_scavenges(&self, stream: &Bytes) -> Vec<u64> {
        let records = self.stream_records(stream).unwrap_or_default();
        let last = records.last().cloned();
        let kept = if self.tombstones.contains(stream) { Vec::new() } else { self.visible(stream, records) };
        kept.into_iter().chain(last).map(|record| record.position).collect()
    }

    fn write_metadata(&mut self, stream: &Bytes, metadata: &str) {
        let data = Bytes::copy_from_slice(metadata.as_bytes());
        self.write(&metadata_stream(stream), ProposedEvent::of_type("$metadata", data));
    }

    /// Writes a record after the last one of its stream, and returns its position.
    fn write(&mut self, stream: &Bytes, proposed: ProposedEvent) -> u64 {
        let revision = self.last_revision(stream).map_or(0, |last| last + 1);
        self.write_at(stream, revision, proposed)
    }

    fn write_at(&mut self, stream: &Bytes, revision: u64, proposed: ProposedEvent) -> u64 {
        let index = self.records.len();
        let position = self.next_position;
        self.streams.entry(stream.clone()).or_default().push(index);
        let bytes = RECORD_BYTES + stream.len() + proposed.data.len() + proposed.custom_metadata.len();
        self.next_position += bytes as u64;
        let appended = Instant::now();
        self.records.push(Arc::new(Record {
            position,
            stream: stream.clone(),
            revision,
            appended,
            proposed,
        }));
        position
    }

    /// Finds these events in the stream from the revision `first` on.
    fn find_stored(&self, stream: &Bytes, first: u64, events: &[ProposedEvent]) -> Option<AppendOutcome> {
        let indexes = self.streams.get(stream)?;
        let mut last = None;
        for (offset, event) in events.iter().enumerate() {
            let revision = first + offset as u64;
            let at = indexes.partition_point(|index| self.records[*index].revision < revision);
            let record = &self.records[*indexes.get(at)?];
            if record.revision != revision || record.proposed.id != event.id {
                return None;
            }
            last =
                Some(AppendOutcome::AlreadyStored { revision: record.revision, position: record.position });
        }
        last
    }
}
