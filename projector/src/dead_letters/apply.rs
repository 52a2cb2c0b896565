//! Applying operator actions to dead letters while a projection advances.

use chat_domain::Position;
use chat_ports::dead_letter::{DeadLetter, DiscardRecord};
use chat_ports::event_store::{EventStore, EventStoreError, LogId, ReadStart, RecordedEvent, StreamRead};

use super::action::{DeadLetterAction, DeadLetterActionKind};
use super::queue::DeadLetterQueue;
use super::reason::replace_nul;
use super::retry::RetryBatch;
use crate::projection::Projection;
use crate::projection::error::ProjectionError;

/// The largest number of dead letters that are retried in one commit.
pub const RETRY_CHUNK_EVENTS: usize = 512;

/// The result of an operator action on dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionOutcome {
    /// The number of dead letters whose events this action applied.
    pub applied: u64,
    /// Whether an event was discarded, or its discard acknowledged.
    pub has_discarded_or_acknowledged: bool,
    /// The dead letter of the first event that still can't be applied.
    pub first_failure: Option<DeadLetter>,
    /// Whether all dead letters of the stream up to the first failure were retried. `false` if the limit of chunks
    /// ended the retry earlier.
    pub is_complete: bool,
}

impl ActionOutcome {
    /// Returns the result of an action that changed nothing.
    fn unchanged() -> Self {
        Self { is_complete: true, ..Self::default() }
    }
}

/// Folds the events after a projection's checkpoint, up to `up_to`. Applies each operator action on the projection's
/// dead letters when the fold reaches the position of the action.
pub async fn advance_projection(
    projection: &mut dyn Projection,
    event_store: &dyn EventStore,
    log: LogId,
    mut events: Vec<RecordedEvent>,
    up_to: Position,
) -> Result<(), ProjectionError> {
    let name = projection.dead_letter_queue().projection();
    while let Some((index, action)) = events
        .iter()
        .enumerate()
        .find_map(|(index, event)| Some((index, DeadLetterAction::from_event(event, name)?)))
    {
        let later_events = events.split_off(index + 1);
        events.truncate(index);
        if let Some(last) = events.last() {
            let before_action = last.position;
            projection.fold(log, events, before_action).await?;
        }
        apply_action(projection.dead_letter_queue(), event_store, log, &action, usize::MAX).await?;
        events = later_events;
    }
    if projection.checkpoint().position < up_to {
        projection.fold(log, events, up_to).await?;
    }
    Ok(())
}

/// Applies an operator action, with at most `max_chunks` chunks of [`RETRY_CHUNK_EVENTS`] dead letters.
pub async fn apply_action(
    queue: &mut dyn DeadLetterQueue,
    event_store: &dyn EventStore,
    log: LogId,
    action: &DeadLetterAction,
    max_chunks: usize,
) -> Result<ActionOutcome, ProjectionError> {
    let projection = queue.projection();
    let mut run = ActionRun { queue, event_store, log, action_position: action.position, max_chunks };
    let outcome = match &action.kind {
        DeadLetterActionKind::Retry { stream } => run.retry_stream(stream, None).await?,
        DeadLetterActionKind::Discard { event, reason } => {
            let record = DiscardRecord {
                by: action.position,
                at: action.recorded_at,
                reason: replace_nul(reason),
                acknowledged: None,
            };
            run.discard(*event, record).await?
        }
        DeadLetterActionKind::Acknowledge { event } => run.acknowledge(*event).await?,
    };
    // Stream names are not logged because they contain tokens, and payloads because they contain messages.
    tracing::info!(
        projection = projection.as_str(),
        position = action.position.get(),
        applied = outcome.applied,
        marked = outcome.has_discarded_or_acknowledged,
        stopped_at = outcome.first_failure.as_ref().map(|dead_letter| dead_letter.position.get()),
        "applied an operator action to dead letters"
    );
    Ok(outcome)
}

/// An operator action while it is applied.
struct ActionRun<'a> {
    queue: &'a mut dyn DeadLetterQueue,
    event_store: &'a dyn EventStore,
    log: LogId,
    action_position: Position,
    max_chunks: usize,
}

impl ActionRun<'_> {
    /// If a dead letter is the first of its stream, discards it and retries the rest of the stream. Otherwise changes
    /// no dead letter.
    async fn discard(
        &mut self,
        event: Position,
        record: DiscardRecord,
    ) -> Result<ActionOutcome, ProjectionError> {
        let Some(dead_letter) = self.queue.dead_letter(event).await? else { return self.skip().await };
        let stream = dead_letter.stream;
        // After a crash during this action, the dead letter is discarded already, and the rest of the stream remains to
        // be retried.
        if dead_letter.discarded.is_some_and(|discarded| discarded.by == self.action_position) {
            return self.retry_stream(&stream, None).await;
        }
        let pending = self.queue.dead_letters_of_stream(&stream, 1).await?;
        if pending.iter().any(|first| first.position == event) {
            self.retry_stream(&stream, Some(record)).await
        } else {
            self.skip().await
        }
    }

    /// Acknowledges a discarded event.
    async fn acknowledge(&mut self, event: Position) -> Result<ActionOutcome, ProjectionError> {
        let mut dead_letter = self.queue.dead_letter(event).await?;
        let Some(acknowledged) = dead_letter
            .as_mut()
            .and_then(|dead_letter| dead_letter.discarded.as_mut())
            .map(|discarded| &mut discarded.acknowledged)
            .filter(|acknowledged| acknowledged.is_none())
        else {
            return self.skip().await;
        };
        *acknowledged = Some(self.action_position);
        self.queue.advance_checkpoint(self.log, self.action_position, dead_letter).await?;
        Ok(ActionOutcome { has_discarded_or_acknowledged: true, ..ActionOutcome::unchanged() })
    }

    /// Moves the checkpoint past an action that changes nothing.
    async fn skip(&mut self) -> Result<ActionOutcome, ProjectionError> {
        self.queue.advance_checkpoint(self.log, self.action_position, None).await?;
        Ok(ActionOutcome::unchanged())
    }

    /// Retries the dead letters of a stream chunk by chunk. Only the commit of the last chunk moves the checkpoint past
    /// the action. So after a crash between two commits, the action is applied again, to the remaining dead letters.
    /// With `discard`, discards the first dead letter instead of retrying it.
    async fn retry_stream(
        &mut self,
        stream: &str,
        mut discard: Option<DiscardRecord>,
    ) -> Result<ActionOutcome, ProjectionError> {
        let mut outcome = ActionOutcome::default();
        for _ in 0..self.max_chunks {
            // One more than a chunk, to know whether dead letters remain after the chunk.
            let dead_letters = self.queue.dead_letters_of_stream(stream, RETRY_CHUNK_EVENTS + 1).await?;
            if dead_letters.is_empty() {
                self.queue.advance_checkpoint(self.log, self.action_position, None).await?;
                outcome.is_complete = true;
                break;
            }
            let (events, has_more) = read_events(self.event_store, stream, dead_letters).await?;
            let batch = RetryBatch {
                log: self.log,
                action_position: self.action_position,
                stream: stream.to_owned(),
                events,
                discard: discard.take(),
                has_more,
            };
            let retried = self.queue.retry(batch).await?;
            outcome.applied += retried.applied.len() as u64;
            outcome.has_discarded_or_acknowledged |= retried.has_discarded_first;
            if retried.is_action_complete {
                outcome.first_failure = retried.first_failure;
                outcome.is_complete = true;
                break;
            }
        }
        Ok(outcome)
    }
}

/// Reads the events of a stream's dead letters from the log, in order, for one chunk. Returns the dead letters of the
/// chunk with their events, and whether some of `dead_letters` are left for the next chunk.
async fn read_events(
    event_store: &dyn EventStore,
    stream: &str,
    dead_letters: Vec<DeadLetter>,
) -> Result<(Vec<(DeadLetter, Option<RecordedEvent>)>, bool), ProjectionError> {
    let Some(first) = dead_letters.first() else { return Ok((Vec::new(), false)) };
    let mut events = Vec::new();
    // A read fails if one of its events is damaged. The first event is then read alone, as a chunk of its own, so
    // that intact events before the damaged one are retried. If the first event itself can't be read, it counts as
    // missing: the stream stays blocked, and the projection continues.
    for limit in [RETRY_CHUNK_EVENTS, 1] {
        let read = StreamRead::all(stream, ReadStart::Forwards(first.revision), limit);
        match event_store.read_stream(read).await {
            Err(EventStoreError::Damaged(_) | EventStoreError::StreamTruncated(_)) => {}
            read => {
                events = read?;
                break;
            }
        }
    }
    let mut events = events.into_iter().peekable();
    let count = dead_letters.len();
    let mut chunk = Vec::with_capacity(count);
    for dead_letter in dead_letters {
        while events.next_if(|event| event.revision < dead_letter.revision).is_some() {}
        // A read may return fewer events than there are, to bound its memory: the rest goes into the next chunk.
        if events.peek().is_none() && !chunk.is_empty() {
            break;
        }
        let event = events.next_if(|event| event.position == dead_letter.position);
        chunk.push((dead_letter, event));
    }
    let has_more = chunk.len() < count;
    Ok((chunk, has_more))
}
