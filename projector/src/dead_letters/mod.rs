//! What becomes of parked events: operators say it, in the log, and every projection carries it out where it comes to
//! it.
//!
//! An act is an event of the stream of operators ([`chat_domain::operator_action`]). A projection folds what comes before it,
//! then carries it out, in the same transaction or commit that moves its checkpoint past the act: exactly once in effect,
//! and a projection that is folded anew comes to the same.
//!
//! - **Retry** reads the parked events of a stream from the log again, in order. Those that apply are applied, and their
//!   letters go. At the first that does not, it stops: that letter gets its new reason, and the rest waits on.
//! - **Discard** gives up the first parked event of a stream: its letter stays, marked, and the stream goes on without
//!   it: the rest is retried by the same act. An event that others wait before can't be given up before them.
//! - **Acknowledge** says that somebody has taken note of a discarded event.
//!
//! An act that finds nothing to do does nothing: a program that can apply the event at its own place has no letter of it.

mod action;
mod blocked_streams;
mod retry;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::operator_action::ProjectionName;
use chat_ports::dead_letter::{DeadLetter, DiscardRecord};
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, LogId, ReadStart, RecordedEvent, StreamRead,
};

use crate::projection::{Projection, ProjectionError};

pub use action::{DeadLetterAction, DeadLetterActionKind};
pub(crate) use blocked_streams::replace_nul;
pub use blocked_streams::{BlockedStreams, DeadLetterReason, DeadLetters};
pub use retry::{PendingRetry, RetryBatch, RetryOutcome};

/// Parked events that are tried again at once, before the next ones are read.
pub const RETRY_CHUNK_EVENTS: usize = 512;

/// What a projection has parked.
#[async_trait]
pub trait DeadLetterQueue: Send {
    /// Whose letters these are.
    fn projection(&self) -> ProjectionName;

    /// The letter of the event at this position.
    async fn letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError>;

    /// The first `limit` parked letters of a stream, by position.
    async fn dead_letters_of_stream(
        &mut self,
        stream: &str,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ProjectionError>;

    /// Folds parked events again, takes in what became of their letters, and moves the checkpoint where the act is done.
    async fn retry(&mut self, again: RetryBatch) -> Result<RetryOutcome, ProjectionError>;

    /// Moves the checkpoint to `to`, past an act that folds nothing; `acknowledged` is a letter that it changes.
    async fn advance_checkpoint(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError>;
}

/// What an act came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionOutcome {
    /// Events that are applied now.
    pub applied: u64,
    /// Whether an event was given up by it, or that was acknowledged.
    pub has_discarded_or_acknowledged: bool,
    /// The first event of the stream that still can't be applied.
    pub first_failure: Option<DeadLetter>,
    /// Whether everything that was parked was tried, or tried until it stopped. Otherwise more waits.
    pub is_complete: bool,
}

/// Feeds a projection with the events that follow its checkpoint, up to `up_to`, and carries out what operators decided
/// about its parked events where that is among them.
pub async fn advance_projection(
    projection: &mut (impl Projection + ?Sized),
    event_store: &dyn EventStore,
    log: LogId,
    mut events: Vec<RecordedEvent>,
    up_to: Position,
) -> Result<(), ProjectionError> {
    let name = projection.dead_letter_queue().projection();
    while let Some((index, act)) = events
        .iter()
        .enumerate()
        .find_map(|(index, event)| Some((index, DeadLetterAction::from_event(event, name)?)))
    {
        let after = events.split_off(index + 1);
        events.truncate(index);
        if let Some(last) = events.last() {
            let up_to = last.position;
            projection.fold(log, events, up_to).await?;
        }
        apply_action(projection.dead_letter_queue(), event_store, log, &act, usize::MAX).await?;
        events = after;
    }
    if projection.checkpoint().position < up_to {
        projection.fold(log, events, up_to).await?;
    }
    Ok(())
}

/// Carries out an act, with so many [pieces](PIECE) of a stream at most.
pub async fn apply_action(
    letters: &mut dyn DeadLetterQueue,
    event_store: &dyn EventStore,
    log: LogId,
    act: &DeadLetterAction,
    max_chunks: usize,
) -> Result<ActionOutcome, ProjectionError> {
    let outcome = match &act.kind {
        DeadLetterActionKind::Retry { stream } => {
            retry_stream(letters, event_store, log, act, stream, None, max_chunks).await?
        }
        DeadLetterActionKind::Discard { event, reason } => {
            let Some((stream, given_up)) = stream_to_discard_from(letters, *event, act).await? else {
                return skip_action(letters, log, act).await;
            };
            let discarded = DiscardRecord {
                by: act.position,
                at: act.recorded_at,
                reason: replace_nul(reason),
                acknowledged: None,
            };
            let discarded = (!given_up).then_some(discarded);
            retry_stream(letters, event_store, log, act, &stream, discarded, max_chunks).await?
        }
        DeadLetterActionKind::Acknowledge { event } => {
            let mut letter = letters.letter(*event).await?;
            let Some(acknowledged) = letter
                .as_mut()
                .and_then(|letter| letter.discarded.as_mut())
                .map(|discarded| &mut discarded.acknowledged)
                .filter(|acknowledged| acknowledged.is_none())
            else {
                return skip_action(letters, log, act).await;
            };
            *acknowledged = Some(act.position);
            letters.advance_checkpoint(log, act.position, letter).await?;
            ActionOutcome {
                has_discarded_or_acknowledged: true,
                is_complete: true,
                ..ActionOutcome::default()
            }
        }
    };
    // Streams are named after tokens, and payloads are users' texts: neither belongs here.
    tracing::info!(
        projection = letters.projection().as_str(),
        position = act.position.get(),
        applied = outcome.applied,
        marked = outcome.has_discarded_or_acknowledged,
        stopped_at = outcome.first_failure.as_ref().map(|letter| letter.position.get()),
        "carried out what an operator decided about parked events"
    );
    Ok(outcome)
}

async fn skip_action(
    letters: &mut dyn DeadLetterQueue,
    log: LogId,
    act: &DeadLetterAction,
) -> Result<ActionOutcome, ProjectionError> {
    letters.advance_checkpoint(log, act.position, None).await?;
    Ok(ActionOutcome { is_complete: true, ..ActionOutcome::default() })
}

/// The stream of an event that is parked, and no other of its stream before it; or that this act has given up already,
/// before a crash that left the rest of the stream to it: `true` then.
async fn stream_to_discard_from(
    letters: &mut dyn DeadLetterQueue,
    event: Position,
    act: &DeadLetterAction,
) -> Result<Option<(String, bool)>, ProjectionError> {
    let Some(letter) = letters.letter(event).await? else { return Ok(None) };
    if letter.discarded.as_ref().is_some_and(|discarded| discarded.by == act.position) {
        return Ok(Some((letter.stream, true)));
    }
    let first = letters.dead_letters_of_stream(&letter.stream, 1).await?;
    Ok(first.iter().any(|first| first.position == event).then_some((letter.stream, false)))
}

/// Tries the parked events of a stream again, piece by piece. Each piece is committed with the checkpoint where it was,
/// the last one with the checkpoint past the act: after a crash in between, the act is carried out on what is left.
async fn retry_stream(
    letters: &mut dyn DeadLetterQueue,
    event_store: &dyn EventStore,
    log: LogId,
    act: &DeadLetterAction,
    stream: &str,
    mut discard: Option<DiscardRecord>,
    max_chunks: usize,
) -> Result<ActionOutcome, ProjectionError> {
    let mut outcome = ActionOutcome::default();
    for _ in 0..max_chunks {
        let parked = letters.dead_letters_of_stream(stream, RETRY_CHUNK_EVENTS + 1).await?;
        if parked.is_empty() {
            letters.advance_checkpoint(log, act.position, None).await?;
            outcome.is_complete = true;
            break;
        }
        let (events, more) = read_dead_letter_events(event_store, stream, parked).await?;
        let again = RetryBatch {
            log,
            action_position: act.position,
            stream: stream.to_owned(),
            events,
            discard: discard.take(),
            has_more: more,
        };
        let settled = letters.retry(again).await?;
        outcome.applied += settled.applied.len() as u64;
        outcome.has_discarded_or_acknowledged |= settled.has_discarded_first;
        if settled.is_action_complete {
            outcome.first_failure = settled.first_failure;
            outcome.is_complete = true;
            break;
        }
    }
    Ok(outcome)
}

/// The events of the first of these letters, as the log has them, and whether there are more letters.
async fn read_dead_letter_events(
    event_store: &dyn EventStore,
    stream: &str,
    parked: Vec<DeadLetter>,
) -> Result<(Vec<(DeadLetter, Option<RecordedEvent>)>, bool), ProjectionError> {
    let Some(first) = parked.first() else { return Ok((Vec::new(), false)) };
    let read = StreamRead {
        stream: stream.into(),
        start: ReadStart::Forwards(first.revision),
        filter: EventTypeFilter::All,
        limit: RETRY_CHUNK_EVENTS,
    };
    let stored = match event_store.read_stream(read).await {
        // As good as gone: the stream stops there, and the projection goes on.
        Err(EventStoreError::Damaged(_)) => Vec::new(),
        stored => stored?,
    };
    let mut stored = stored.into_iter().peekable();
    let letters = parked.len();
    let mut found = Vec::with_capacity(letters);
    for letter in parked {
        while stored.next_if(|event| event.revision < letter.revision).is_some() {}
        // A read may return fewer events than there are, to bound its memory: the rest is another piece.
        if stored.peek().is_none() && !found.is_empty() {
            break;
        }
        let event = stored.next_if(|event| event.position == letter.position);
        found.push((letter, event));
    }
    let more = found.len() < letters;
    Ok((found, more))
}
