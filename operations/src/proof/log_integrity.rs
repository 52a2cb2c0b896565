//! Integrity checks of the log without a checkpoint: positions rise, revisions have no gaps, ids are unique.
//!
//! The check tracks the next revision of every stream, and every id. For a large log, these do not fit in memory. The
//! log is then read in several passes, each of which covers a part of the streams and ids.

use std::collections::{HashMap, HashSet};

use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision};
use chat_ports::error_chain;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::log_root::LogRoot;
use super::log_walk::LogWalk;
use super::tree::{Frontier, Hash};
use super::{ProgressCallback, ProofError, leaf};

/// The maximal number of streams, and of ids, that one pass tracks. The tables take up to 100 MB while they grow.
const MAX_TRACKED: usize = 900_000;

/// The maximal number of faults that are reported.
const MAX_REPORTED_FAULTS: usize = 20;

/// A fault of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// An event does not have a later position than its predecessor.
    Position {
        /// The position of the event.
        position: Position,
        /// The position of its predecessor.
        after: Position,
    },
    /// An event does not have the next revision of its stream.
    Revision {
        /// The position of the event.
        position: Position,
        /// Its stream.
        stream: String,
        /// The expected revision.
        expected: Revision,
        /// The actual revision.
        found: Revision,
    },
    /// An event has the id of an earlier one.
    Id {
        /// The position of the event.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// An event can't be read, so that nothing after it was checked.
    Unreadable {
        /// The position of the last event before it.
        after: Position,
        /// The error of the event store.
        because: String,
    },
}

/// The result of an integrity check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IntegrityReport {
    /// The number of events.
    pub events: u64,
    /// The position of the last event.
    pub position: Position,
    /// The root of the tree of all events.
    pub root: Hash,
    /// The number of streams.
    pub streams: u64,
    /// The first faults by position.
    pub faults: Vec<Fault>,
}

impl IntegrityReport {
    /// The summary of the log's content.
    pub fn log_root(&self) -> LogRoot {
        LogRoot { events: self.events, position: self.position, root: self.root }
    }
}

/// Checks a log up to a position, or to the head.
pub async fn check(
    log: &dyn EventStore,
    until: Option<Position>,
    on_progress: ProgressCallback<'_>,
) -> Result<IntegrityReport, ProofError> {
    check_with_limit(log, until, MAX_TRACKED, on_progress).await
}

async fn check_with_limit(
    log: &dyn EventStore,
    until: Option<Position>,
    max_tracked: usize,
    on_progress: ProgressCallback<'_>,
) -> Result<IntegrityReport, ProofError> {
    let mut report = IntegrityReport {
        events: 0,
        position: Position::START,
        root: Hash::of_nothing(),
        streams: 0,
        faults: Vec::new(),
    };
    let (mut tree, mut until) = (Frontier::default(), until);
    let mut parts = vec![Partition::ALL];
    let mut is_first_pass = true;
    while let Some(part) = parts.pop() {
        let mut pass = Pass::new(part, max_tracked);
        let mut walk = LogWalk::new(log, until);
        loop {
            let previous = walk.last_position();
            let event = match walk.next_event().await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error @ EventStoreError::Damaged(_)) => {
                    if is_first_pass {
                        report
                            .faults
                            .push(Fault::Unreadable { after: previous, because: error_chain(&error) });
                    }
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            if is_first_pass {
                tree.push(leaf::hash(&event));
                on_progress(tree.leaf_count());
                if event.position <= previous {
                    report.faults.push(Fault::Position { position: event.position, after: previous });
                }
            }
            pass.check_event(&event, &mut report.faults);
            parts.append(&mut pass.deferred);
        }
        report.streams += pass.streams.len() as u64;
        if is_first_pass {
            // Later passes stop at the same event, so that events appended meanwhile do not affect the result.
            report.position = walk.last_position();
            until = Some(report.position);
            is_first_pass = false;
        }
    }
    report.events = tree.leaf_count();
    report.root = tree.root();
    report.faults.sort_by_key(Fault::position);
    report.faults.truncate(MAX_REPORTED_FAULTS);
    Ok(report)
}

impl Fault {
    /// The position of the faulty event; for an unreadable event, the position of the last event before it.
    pub fn position(&self) -> Position {
        match self {
            Self::Position { position, .. } | Self::Revision { position, .. } | Self::Id { position, .. } => {
                *position
            }
            Self::Unreadable { after, .. } => *after,
        }
    }
}

/// The streams and ids that a pass covers: all whose key has `value` in its lowest `bits` bits. The key of a stream is
/// a hash of its name, the key of an id is the id itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partition {
    bits: u32,
    value: u128,
}

impl Partition {
    /// All streams and ids.
    const ALL: Self = Self { bits: 0, value: 0 };

    fn contains(self, key: u128) -> bool {
        key & ((1 << self.bits) - 1) == self.value
    }
}

/// One pass over the log.
struct Pass {
    part: Partition,
    max_tracked: usize,
    /// The next revision of each stream, by a hash of its name.
    streams: HashMap<u128, u64>,
    ids: HashSet<u128>,
    /// Partitions that are left to later passes.
    deferred: Vec<Partition>,
}

impl Pass {
    fn new(part: Partition, max_tracked: usize) -> Self {
        Self { part, max_tracked, streams: HashMap::new(), ids: HashSet::new(), deferred: Vec::new() }
    }

    fn check_event(&mut self, event: &RecordedEvent, faults: &mut Vec<Fault>) {
        let RecordedEvent { position, stream, revision, id, .. } = event;
        let key = stream_key(stream);
        if self.part.contains(key) {
            let next = self.streams.entry(key).or_insert(0);
            if revision.get() != *next {
                let (stream, expected) = (stream.to_string(), Revision::new(*next));
                add_fault(
                    faults,
                    Fault::Revision { position: *position, stream, expected, found: *revision },
                );
            }
            *next = revision.get().saturating_add(1);
        }
        let key = id.uuid().as_u128();
        if self.part.contains(key) && !self.ids.insert(key) {
            add_fault(faults, Fault::Id { position: *position, id: *id });
        }
        while self.streams.len().max(self.ids.len()) > self.max_tracked && self.part.bits < 127 {
            self.split();
        }
    }

    /// Leaves half of the partition to a later pass.
    fn split(&mut self) {
        let Partition { bits, value } = self.part;
        self.deferred.push(Partition { bits: bits + 1, value: value | 1 << bits });
        self.part = Partition { bits: bits + 1, value };
        let part = self.part;
        self.streams.retain(|key, _| part.contains(*key));
        self.ids.retain(|key| part.contains(*key));
    }
}

/// Adds a fault, unless it was added before. A pass may find a fault and then split, and leave the fault's stream or id
/// to a later pass, which finds the fault again. If there are too many faults, drops those with the highest positions.
fn add_fault(faults: &mut Vec<Fault>, fault: Fault) {
    if faults.contains(&fault) {
        return;
    }
    faults.push(fault);
    if faults.len() > 2 * MAX_REPORTED_FAULTS {
        faults.sort_by_key(Fault::position);
        faults.truncate(MAX_REPORTED_FAULTS);
    }
}

fn stream_key(stream: &str) -> u128 {
    let hash = Sha256::digest(stream);
    let mut key = [0; 16];
    key.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_domain::ExpectedRevision;
    use chat_domain::event::SchemaVersion;
    use chat_ports::clock;
    use chat_ports::event_store::{NewEvent, StreamAppend};
    use chat_sqlite::SqliteEventStore;
    use uuid::Uuid;

    #[tokio::test(flavor = "multi_thread")]
    async fn checks_a_log_with_many_streams_in_several_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let log = SqliteEventStore::open(&path).unwrap();
        let event = |event_type| NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type,
            schema_version: SchemaVersion::FIRST,
            recorded_at: clock::now(),
            data: "{}".to_owned(),
            metadata: "{}".into(),
        };
        let append = |stream: u32| StreamAppend {
            stream: format!("chat-token-{stream}").into(),
            expected_revision: ExpectedRevision::NoStream,
            events: vec![event("MessageCreated"), event("MessageDeleted")],
        };
        log.append((0..200).map(append).collect()).await;
        let altered = rusqlite::Connection::open(&path).unwrap();
        altered.execute("UPDATE events SET revision = 2 WHERE position IN (100, 200, 300)", []).unwrap();

        let in_one_pass = check(&log, None, &mut |_| ()).await.unwrap();
        assert_eq!((in_one_pass.events, in_one_pass.streams, in_one_pass.faults.len()), (400, 200, 3));
        for max_tracked in [7, 60, 399] {
            let in_passes = check_with_limit(&log, None, max_tracked, &mut |_| ()).await.unwrap();
            assert_eq!(in_passes, in_one_pass, "at most {max_tracked} streams and ids per pass");
        }
    }

    #[test]
    fn reports_a_repeated_id() {
        let event = super::super::leaf::tests::event();
        let mut pass = Pass::new(Partition::ALL, MAX_TRACKED);
        let mut faults = Vec::new();
        pass.check_event(&RecordedEvent { revision: Revision::FIRST, ..event.clone() }, &mut faults);
        pass.check_event(&RecordedEvent { revision: Revision::new(1), ..event }, &mut faults);
        assert!(matches!(faults[..], [Fault::Id { .. }]), "{faults:?}");
    }
}
