//! Commands with an idempotency key: when they may be decided without looking for their event first.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::metadata::{EventId, Fingerprint};
use chat_domain::{ExpectedRevision, Metadata, StreamId, Timestamp};
use chat_ports::event_store::RecordedEvent;
use chat_ports::idempotency::{Claim, Grant, KeyId};

use super::lease::Lease;
use super::lookup::Lookup;
use crate::command::{Carried, CommandError, Recorded, When};

/// A key that was reserved for a command, and what is known of its event.
///
/// The event is appended without looking for it only where the reservation was the first of the key and its lease still
/// holds when the decision is made. Then whoever takes the key over does so after that decision, and appends, if at all,
/// at a revision that the decision did not know of: the log refuses one of the two.
///
/// Otherwise the event must have been looked for in the stream as it ends where the append expects it to end. If somebody
/// appends it after that look, the stream ends elsewhere, and the log refuses this append.
#[derive(Debug)]
pub(crate) struct Keyed {
    key: KeyId,
    fingerprint: Fingerprint,
    lease: Lease,
    doubtful: bool,
    /// No event of the command was recorded before.
    since: Timestamp,
    /// How long a key is kept: an older event is one of a key that was forgotten.
    kept: Duration,
    generation: u32,
    /// The end of the stream that the event was not found in.
    absent_before: Option<ExpectedRevision>,
}

impl Keyed {
    pub(crate) fn new(
        key: KeyId,
        fingerprint: Fingerprint,
        grant: &Grant,
        lease: Lease,
        kept: Duration,
    ) -> Self {
        Self {
            key,
            fingerprint,
            lease,
            doubtful: grant.claim == Claim::Doubtful,
            since: grant.trace.since,
            kept,
            generation: 0,
            absent_before: None,
        }
    }

    pub(super) fn key(&self) -> KeyId {
        self.key
    }

    pub(super) fn event_id(&self) -> EventId {
        self.key.event_id(self.generation)
    }

    pub(super) fn is_sure(&self) -> bool {
        !self.doubtful && self.lease.holds()
    }

    pub(super) fn may_append_after(&self, end: ExpectedRevision) -> bool {
        self.absent_before == Some(end) || self.is_sure()
    }

    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }

    pub(super) fn lookup(&self, stream: &StreamId, now: Timestamp) -> Lookup {
        let (key, generation, since, kept) = (self.key, self.generation, self.since, self.kept);
        Lookup { key, generation, stream: Arc::from(stream.to_string()), since, kept, now }
    }

    pub(super) fn found_absent(&mut self, generation: u32, end: ExpectedRevision) {
        self.generation = generation;
        self.absent_before = Some(end);
    }

    pub(super) fn carried_before(&self, event: &RecordedEvent) -> Result<Carried, CommandError> {
        carried_before(event, self.fingerprint)
    }
}

/// What an event that was found answers to a command with this payload.
pub(crate) fn carried_before(
    event: &RecordedEvent,
    fingerprint: Fingerprint,
) -> Result<Carried, CommandError> {
    let internal = |error: Box<dyn std::error::Error + Send + Sync>| CommandError::Internal(error.into());
    let metadata: Metadata =
        serde_json::from_slice(&event.metadata).map_err(|error| internal(error.into()))?;
    if metadata.idempotency.map(|idempotency| idempotency.fingerprint) != Some(fingerprint) {
        return Err(CommandError::KeyReused);
    }
    let decoded = event.decode().map_err(|error| internal(error.into()))?;
    let stream = StreamId::parse(&event.stream).map_err(|error| internal(error.into()))?;
    let recorded = Recorded { event: decoded, position: event.position };
    Ok(Carried { recorded, app: *stream.app(), when: When::Before })
}
