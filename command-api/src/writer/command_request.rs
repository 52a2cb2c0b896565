//! Commands in the writer's queue, single and grouped by stream.

use std::sync::Arc;

use chat_domain::{ExpectedRevision, StreamId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::stream_state::StreamState;
use crate::command::{Command, CommandError, CommandOutcome};
use crate::idempotency::{ExistingEvent, ExistingEventQuery, ReservedKey};

/// A command with everything that its execution needs.
pub(super) struct CommandRequest {
    pub(super) command: Command,
    pub(super) metadata: Arc<str>,
    /// The estimated size of the event's payload and metadata together.
    pub(super) estimated_bytes: usize,
    pub(super) reserved_key: Option<ReservedKey>,
    pub(super) reply_to: oneshot::Sender<Result<CommandOutcome, CommandError>>,
    pub(super) enqueued: Instant,
    /// Counts the command as unanswered until the request is dropped.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl CommandRequest {
    pub(super) fn reply(self, outcome: Result<CommandOutcome, CommandError>) {
        // The receiver may have been dropped. The events are durable either way.
        let _ = self.reply_to.send(outcome);
    }

    /// Whether the command can be decided without a search for its event.
    pub(super) fn can_skip_search(&self) -> bool {
        self.reserved_key.as_ref().is_none_or(ReservedKey::can_skip_search)
    }

    /// Whether it is known that the stream has no event of the command up to the revision `end`, so that one may be
    /// appended after it.
    pub(super) fn may_append_after(&self, end: ExpectedRevision) -> bool {
        self.reserved_key.as_ref().is_none_or(|key| key.may_append_after(end))
    }

    /// Requires a search for an event that an earlier request with the same key has appended, before the command is
    /// decided.
    pub(super) fn require_search(&mut self) {
        if let Some(key) = &mut self.reserved_key {
            key.require_search();
        }
    }

    pub(super) fn existing_event_query(&self, now: Timestamp) -> Option<ExistingEventQuery> {
        let key = self.reserved_key.as_ref().filter(|key| !key.can_skip_search())?;
        Some(key.existing_event_query(&self.command.stream(), now))
    }

    /// Replies with the outcome of the event that the search found. Otherwise returns the request: the search found that
    /// the stream has no event of the command up to `end`, or no search was needed (`None`).
    pub(super) fn reply_if_already_executed(
        mut self,
        found: Option<ExistingEvent>,
        end: ExpectedRevision,
    ) -> Option<Self> {
        let Some((key, found)) = self.reserved_key.as_mut().zip(found) else {
            return Some(self);
        };
        match found {
            ExistingEvent::Absent { key_use } => {
                key.record_absence(key_use, end);
                Some(self)
            }
            ExistingEvent::Present(event) => {
                let outcome = key.replayed_outcome(&event);
                self.reply(outcome);
                None
            }
        }
    }
}

/// A range of numbers from a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberRange {
    pub(super) first: u64,
    pub(super) count: u64,
}

impl NumberRange {
    pub(super) fn last(self) -> u64 {
        self.first + self.count - 1
    }
}

/// The commands on one stream that are decided together, in order.
pub(super) struct StreamCommands {
    pub(super) stream: StreamId,
    pub(super) requests: Vec<CommandRequest>,
    /// The numbers that were reserved for the requests. They are kept while the stream is loaded again. Afterwards,
    /// there may be more numbers than requests, because some requests may have been answered meanwhile.
    pub(super) numbers: Option<NumberRange>,
    /// Whether the commands have already waited for the events of the preceding numbers, after which the stream was loaded
    /// again.
    pub(super) waited_for_predecessor: bool,
    /// An earlier state, to be reused if the stream has not changed since.
    pub(super) cached_state: Option<StreamState>,
}

impl StreamCommands {
    pub(super) fn new(stream: StreamId, requests: Vec<CommandRequest>) -> Self {
        Self { stream, requests, numbers: None, waited_for_predecessor: false, cached_state: None }
    }
}
