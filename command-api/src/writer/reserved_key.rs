//! Commands with an idempotency key: when they may be decided without looking for their event first.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::metadata::{EventId, PayloadFingerprint};
use chat_domain::{ExpectedRevision, Metadata, StreamId, Timestamp};
use chat_ports::event_store::RecordedEvent;
use chat_ports::idempotency::{Claim, IdempotencyKeyId, KeyLease};

use super::existing_event::ExistingEventQuery;
use super::lease_timer::LeaseTimer;
use crate::command::{AppendedEvent, CommandError, CommandOutcome, ExecutionKind};

/// A key that was reserved for a command, and what is known of its event.
///
/// The event is appended without looking for it only where the reservation was the first of the key and its lease still
/// holds when the decision is made. Then whoever takes the key over does so after that decision, and appends, if at all,
/// at a revision that the decision did not know of: the log refuses one of the two.
///
/// Otherwise the event must have been looked for in the stream as it ends where the append expects it to end. If somebody
/// appends it after that look, the stream ends elsewhere, and the log refuses this append.
#[derive(Debug)]
pub(crate) struct ReservedKey {
    key: IdempotencyKeyId,
    fingerprint: PayloadFingerprint,
    lease_timer: LeaseTimer,
    requires_lookup: bool,
    /// No event of the command was recorded before.
    not_before: Timestamp,
    /// How long a key is kept: an older event is one of a key that was forgotten.
    key_retention: Duration,
    generation: u32,
    /// The end of the stream that the event was not found in.
    absent_as_of: Option<ExpectedRevision>,
}

impl ReservedKey {
    pub(crate) fn new(
        key: IdempotencyKeyId,
        fingerprint: PayloadFingerprint,
        grant: &KeyLease,
        lease_timer: LeaseTimer,
        key_retention: Duration,
    ) -> Self {
        Self {
            key,
            fingerprint,
            lease_timer,
            requires_lookup: grant.claim == Claim::Doubtful,
            not_before: grant.hint.since,
            key_retention,
            generation: 0,
            absent_as_of: None,
        }
    }

    pub(super) fn key(&self) -> IdempotencyKeyId {
        self.key
    }

    pub(super) fn event_id(&self) -> EventId {
        self.key.event_id(self.generation)
    }

    pub(super) fn can_skip_lookup(&self) -> bool {
        !self.requires_lookup && self.lease_timer.is_valid()
    }

    pub(super) fn may_append_after(&self, end: ExpectedRevision) -> bool {
        self.absent_as_of == Some(end) || self.can_skip_lookup()
    }

    pub(super) fn require_lookup(&mut self) {
        self.requires_lookup = true;
    }

    pub(super) fn existing_event_query(&self, stream: &StreamId, now: Timestamp) -> ExistingEventQuery {
        let (key, generation, since, kept) = (self.key, self.generation, self.not_before, self.key_retention);
        ExistingEventQuery {
            key,
            generation,
            stream: Arc::from(stream.to_string()),
            not_before: since,
            key_retention: kept,
            now,
        }
    }

    pub(super) fn record_absence(&mut self, generation: u32, end: ExpectedRevision) {
        self.generation = generation;
        self.absent_as_of = Some(end);
    }

    pub(super) fn replayed_outcome(&self, event: &RecordedEvent) -> Result<CommandOutcome, CommandError> {
        replayed_outcome(event, self.fingerprint)
    }
}

/// What an event that was found answers to a command with this payload.
pub(crate) fn replayed_outcome(
    event: &RecordedEvent,
    fingerprint: PayloadFingerprint,
) -> Result<CommandOutcome, CommandError> {
    let internal = |error: Box<dyn std::error::Error + Send + Sync>| CommandError::Internal(error.into());
    let metadata: Metadata =
        serde_json::from_slice(&event.metadata).map_err(|error| internal(error.into()))?;
    if metadata.idempotency.map(|idempotency| idempotency.fingerprint) != Some(fingerprint) {
        return Err(CommandError::KeyReused);
    }
    let decoded = event.decode().map_err(|error| internal(error.into()))?;
    let stream = StreamId::parse(&event.stream).map_err(|error| internal(error.into()))?;
    let recorded = AppendedEvent { event: decoded, position: event.position };
    Ok(CommandOutcome { appended: recorded, app: *stream.app(), execution: ExecutionKind::Replayed })
}
