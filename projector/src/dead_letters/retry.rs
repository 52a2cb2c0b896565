//! A retry of dead letters: the batch that is folded, and the outcome.

use chat_domain::Position;
use chat_ports::dead_letter::{DeadLetter, DiscardRecord};
use chat_ports::event_store::{LogId, RecordedEvent};

use super::reason::DeadLetterReason;
use crate::decoded_batch::{BatchEvent, DecodedBatch};

/// The index in [`DecodedBatch::streams`] of the one stream of a retry.
const STREAM_INDEX: usize = 0;

/// Dead letters of one stream, in order, that are retried together.
#[derive(Debug)]
pub struct RetryBatch {
    /// The log of the events.
    pub log: LogId,
    /// The position of the operator action.
    pub action_position: Position,
    /// The stream.
    pub stream: String,
    /// The dead letters, each with its event if it can be read from the log.
    pub events: Vec<(DeadLetter, Option<RecordedEvent>)>,
    /// The record of the discard, if the action discards the first of these dead letters.
    pub discard: Option<DiscardRecord>,
    /// Whether the stream has more dead letters after these.
    pub has_more: bool,
}

/// The dead letters of a [`RetryBatch`], while their events are folded.
#[derive(Debug)]
pub struct PendingRetry {
    checkpoint_position: Position,
    action_position: Position,
    stream: String,
    dead_letters: Vec<DeadLetter>,
    discard: Option<DiscardRecord>,
    has_more: bool,
}

/// The result of a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOutcome {
    /// The checkpoint after the retry: past the action if the action is complete, otherwise unchanged.
    pub checkpoint_position: Position,
    /// Whether the action is complete.
    pub is_action_complete: bool,
    /// The stream.
    pub stream: String,
    /// The positions of the events that the retry applied. Their dead letters are to be removed.
    pub applied: Vec<Position>,
    /// The changed dead letters to store: the discarded one, and the first failure with its new reason.
    pub updated: Vec<DeadLetter>,
    /// The dead letter of the first event that still can't be applied.
    pub first_failure: Option<DeadLetter>,
    /// Whether the first dead letter was discarded.
    pub has_discarded_first: bool,
    /// Whether the stream is not blocked any more.
    pub is_stream_unblocked: bool,
}

impl RetryBatch {
    /// Decodes the events, for a projection whose checkpoint is `checkpoint`.
    pub fn into_batch(self, checkpoint: Position) -> (DecodedBatch, PendingRetry) {
        let mut dead_letters = Vec::with_capacity(self.events.len());
        let mut events = Vec::with_capacity(self.events.len());
        for (dead_letter, event) in self.events {
            events.push(match event {
                Some(event) => BatchEvent::decode(event, STREAM_INDEX),
                None => placeholder_event(&dead_letter),
            });
            dead_letters.push(dead_letter);
        }
        if let (Some(_), Some(first)) = (&self.discard, events.first_mut()) {
            first.is_discarded = true;
        }
        let batch = DecodedBatch::for_retry(self.log, checkpoint, &self.stream, events);
        let pending = PendingRetry {
            checkpoint_position: checkpoint,
            action_position: self.action_position,
            stream: self.stream,
            dead_letters,
            discard: self.discard,
            has_more: self.has_more,
        };
        (batch, pending)
    }
}

impl PendingRetry {
    /// Returns the outcome, given the events that the fold could not apply.
    pub fn into_outcome(self, failed: Vec<DeadLetter>) -> RetryOutcome {
        let first_failed = failed.into_iter().next();
        let mut dead_letters = self.dead_letters.into_iter().peekable();
        let mut updated = Vec::new();
        let has_discarded_first = self.discard.is_some();
        if let Some(discard) = self.discard
            && let Some(first) = dead_letters.next()
        {
            updated.push(DeadLetter { discarded: Some(discard), ..first });
        }
        let is_applied = |dead_letter: &DeadLetter| {
            first_failed.as_ref().is_none_or(|failed| dead_letter.position < failed.position)
        };
        let mut applied = Vec::new();
        while let Some(dead_letter) = dead_letters.next_if(is_applied) {
            applied.push(dead_letter.position);
        }
        // The dead letter stays the same, apart from its reason.
        let first_failure = dead_letters
            .next()
            .zip(first_failed)
            .map(|(dead_letter, failed)| DeadLetter { reason: failed.reason, ..dead_letter });
        updated.extend(first_failure.clone());
        let is_action_complete = first_failure.is_some() || !self.has_more;
        RetryOutcome {
            checkpoint_position: if is_action_complete {
                self.action_position
            } else {
                self.checkpoint_position
            },
            is_action_complete,
            stream: self.stream,
            applied,
            updated,
            is_stream_unblocked: first_failure.is_none() && !self.has_more,
            first_failure,
            has_discarded_first,
        }
    }
}

/// Returns a placeholder for an event that can't be read from the log.
fn placeholder_event(dead_letter: &DeadLetter) -> BatchEvent {
    BatchEvent {
        position: dead_letter.position,
        stream_index: STREAM_INDEX,
        revision: dead_letter.revision,
        recorded_at: dead_letter.dead_lettered_at,
        event_type: dead_letter.event_type.clone(),
        event: Err(DeadLetterReason::NOT_IN_LOG),
        is_discarded: false,
    }
}
