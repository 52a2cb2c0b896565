//! Reserved idempotency keys: when a command may be decided without searching for its event first.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::metadata::{EventId, PayloadFingerprint};
use chat_domain::{ExpectedRevision, Metadata, StreamId, Timestamp};
use chat_ports::event_store::RecordedEvent;
use chat_ports::event_store::stream_reader::UnreadableEvent;
use chat_ports::idempotency::{Claim, IdempotencyKeyId, KeyLease};

use super::existing_event::ExistingEventQuery;
use super::lease_timer::LeaseTimer;
use crate::command::{CommandError, CommandOutcome, ExecutionKind};

/// A key that was reserved for a command, with the facts about the command's event that the writer needs.
///
/// The writer may skip the search for the event only if no earlier owner can have executed the command, and the lease
/// is still valid at the moment of the decision. Then another owner can take the key over only after that decision, and
/// has to search. If it searches before this owner's append arrives, it finds no event and appends one too: the append
/// that arrives second expects an outdated revision, and the event store refuses it.
///
/// If the search can't be skipped, the writer must have searched for the event in the stream up to the revision that
/// its append expects. If another owner appends the event after the search, the stream has a later revision, and the
/// event store refuses this append.
#[derive(Debug)]
pub(crate) struct ReservedKey {
    key: IdempotencyKeyId,
    fingerprint: PayloadFingerprint,
    lease_timer: LeaseTimer,
    requires_search: bool,
    /// No event of the command was recorded before this time.
    not_before: Timestamp,
    /// Retention of keys: an older event belongs to an expired use of the key.
    key_retention: Duration,
    /// The number of the present use of the key, counted from 0; earlier uses have expired. The event's id depends on
    /// it.
    key_use: u32,
    /// The end of the stream up to which the last search found no event.
    absent_as_of: Option<ExpectedRevision>,
}

impl ReservedKey {
    pub(crate) fn new(
        key: IdempotencyKeyId,
        fingerprint: PayloadFingerprint,
        lease: &KeyLease,
        lease_timer: LeaseTimer,
        key_retention: Duration,
    ) -> Self {
        Self {
            key,
            fingerprint,
            lease_timer,
            requires_search: lease.claim == Claim::Doubtful,
            not_before: lease.hint.since,
            key_retention,
            key_use: 0,
            absent_as_of: None,
        }
    }

    pub(crate) fn key(&self) -> IdempotencyKeyId {
        self.key
    }

    pub(crate) fn event_id(&self) -> EventId {
        self.key.event_id(self.key_use)
    }

    pub(crate) fn can_skip_search(&self) -> bool {
        !self.requires_search && self.lease_timer.is_valid()
    }

    pub(crate) fn may_append_after(&self, end: ExpectedRevision) -> bool {
        self.absent_as_of == Some(end) || self.can_skip_search()
    }

    pub(crate) fn require_search(&mut self) {
        self.requires_search = true;
    }

    pub(crate) fn existing_event_query(&self, stream: &StreamId, now: Timestamp) -> ExistingEventQuery {
        ExistingEventQuery {
            key: self.key,
            first_key_use: self.key_use,
            stream: Arc::from(stream.to_string()),
            not_before: self.not_before,
            key_retention: self.key_retention,
            now,
        }
    }

    /// Records that a search found no event in the stream up to `end`, and that a new event belongs to the use
    /// `key_use`.
    pub(crate) fn record_absence(&mut self, key_use: u32, end: ExpectedRevision) {
        self.key_use = key_use;
        self.absent_as_of = Some(end);
    }

    pub(crate) fn replayed_outcome(&self, event: &RecordedEvent) -> Result<CommandOutcome, CommandError> {
        replayed_outcome(event, self.fingerprint)
    }
}

/// The outcome of a repeated command whose event was found: a replay, or an error if the payload differs or the
/// event can't be read.
pub(crate) fn replayed_outcome(
    recorded: &RecordedEvent,
    fingerprint: PayloadFingerprint,
) -> Result<CommandOutcome, CommandError> {
    let internal = |error: Box<dyn std::error::Error + Send + Sync>| CommandError::Internal(error.into());
    let metadata: Metadata =
        serde_json::from_slice(&recorded.metadata).map_err(|error| internal(error.into()))?;
    if metadata.idempotency.map(|idempotency| idempotency.fingerprint) != Some(fingerprint) {
        return Err(CommandError::KeyReused);
    }
    let event = recorded.decode().map_err(|error| {
        let unreadable = UnreadableEvent { position: recorded.position, cause: error.into() };
        CommandError::UnreadableEvent(Arc::new(unreadable))
    })?;
    let stream = StreamId::parse(&recorded.stream).map_err(|error| internal(error.into()))?;
    Ok(CommandOutcome {
        event,
        position: recorded.position,
        app: *stream.app(),
        execution: ExecutionKind::Replayed,
    })
}
