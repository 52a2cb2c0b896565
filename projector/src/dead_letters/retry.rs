//! Parked events on their way into a projection once more.

use chat_domain::Position;
use chat_ports::dead_letter::{DeadLetter, DiscardRecord};
use chat_ports::event_store::{LogId, RecordedEvent};

use super::DeadLetterReason;
use crate::decoded_batch::{BatchEvent, DecodedBatch};

/// Parked events of one stream, in order, to be folded again.
#[derive(Debug)]
pub struct RetryBatch {
    /// The log they are of.
    pub log: LogId,
    /// The position of the act that asks for it.
    pub action_position: Position,
    /// Their stream.
    pub stream: String,
    /// The letters, each with its event, where the log still has it.
    pub events: Vec<(DeadLetter, Option<RecordedEvent>)>,
    /// Set where the first one is given up.
    pub discard: Option<DiscardRecord>,
    /// Whether more of the stream's events are parked after these.
    pub has_more: bool,
}

/// The letters of [`RetryBatch`], while their events are being folded.
#[derive(Debug)]
pub struct PendingRetry {
    checkpoint_position: Position,
    action_position: Position,
    stream: String,
    dead_letters: Vec<DeadLetter>,
    discard: Option<DiscardRecord>,
    has_more: bool,
}

/// What became of letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOutcome {
    /// Where the checkpoint is then: past the act, once it is done.
    pub checkpoint_position: Position,
    /// Whether the act is done.
    pub is_action_complete: bool,
    /// Their stream.
    pub stream: String,
    /// Letters whose events are applied.
    pub applied: Vec<Position>,
    /// Letters with another reason or state.
    pub updated: Vec<DeadLetter>,
    /// The first event that still can't be applied.
    pub first_failure: Option<DeadLetter>,
    /// Whether the first event was given up.
    pub has_discarded_first: bool,
    /// Whether nothing of the stream is parked any more.
    pub is_stream_unblocked: bool,
}

impl RetryBatch {
    /// The events as a stretch, for a projection that stands at `at`.
    pub fn into_batch(self, at: Position) -> (DecodedBatch, PendingRetry) {
        let Self { log, action_position: act, stream, events, discard, has_more: more } = self;
        let mut letters = Vec::with_capacity(events.len());
        let mut incoming = Vec::with_capacity(events.len());
        for (letter, event) in events {
            incoming.push(match event {
                Some(event) => BatchEvent::decode(event, 0),
                None => missing_event(&letter),
            });
            letters.push(letter);
        }
        if let (Some(_), Some(first)) = (&discard, incoming.first_mut()) {
            first.is_discarded = true;
        }
        let stretch = DecodedBatch::for_retry(log, at, &stream, incoming);
        (
            stretch,
            PendingRetry {
                checkpoint_position: at,
                action_position: act,
                stream,
                dead_letters: letters,
                discard,
                has_more: more,
            },
        )
    }
}

impl PendingRetry {
    /// What becomes of the letters, where the fold has parked these of their events again.
    pub fn into_outcome(self, failed: Vec<DeadLetter>) -> RetryOutcome {
        let first_failed = failed.into_iter().next();
        let mut letters = self.dead_letters.into_iter().peekable();
        let mut marked = Vec::new();
        let discarded = self.discard.is_some();
        if let Some(discard) = self.discard
            && let Some(first) = letters.next()
        {
            marked.push(DeadLetter { discarded: Some(discard), ..first });
        }
        let reached = |letter: &DeadLetter| {
            first_failed.as_ref().is_none_or(|failed| letter.position < failed.position)
        };
        let mut unparked = Vec::new();
        while let Some(letter) = letters.next_if(reached) {
            unparked.push(letter.position);
        }
        // It is the same letter, with today's reason.
        let stopped = letters
            .next()
            .zip(first_failed)
            .map(|(letter, failed)| DeadLetter { reason: failed.reason, ..letter });
        marked.extend(stopped.clone());
        let done = stopped.is_some() || !self.has_more;
        RetryOutcome {
            checkpoint_position: if done { self.action_position } else { self.checkpoint_position },
            is_action_complete: done,
            stream: self.stream,
            applied: unparked,
            updated: marked,
            is_stream_unblocked: stopped.is_none() && !self.has_more,
            first_failure: stopped,
            has_discarded_first: discarded,
        }
    }
}

/// An event that the log does not have any more.
fn missing_event(letter: &DeadLetter) -> BatchEvent {
    BatchEvent {
        position: letter.position,
        stream: 0,
        revision: letter.revision,
        recorded_at: letter.dead_lettered_at,
        event_type: letter.event_type.clone(),
        event: Err(DeadLetterReason::NOT_IN_LOG),
        is_discarded: false,
    }
}
