//! What becomes of parked events: operators say it, in the log, and every projection carries it out where it comes to
//! it.
//!
//! An act is an event of the stream of operators ([`chat_domain::operation`]). A projection folds what comes before it,
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

mod act;
mod again;

use async_trait::async_trait;
use chat_domain::Position;
use chat_domain::operation::ProjectionName;
use chat_ports::dead_letter::{DeadLetter, Discarded};
use chat_ports::event_store::{
    EventStore, EventStoreError, LogId, ReadFrom, RecordedEvent, Select, StreamRead,
};

use crate::parking::plain;
use crate::projection::{Projection, ProjectionError};

pub use act::{Act, Deed};
pub use again::{Again, Piece, Settled};

/// Parked events that are tried again at once, before the next ones are read.
pub const PIECE: usize = 512;

/// What a projection has parked.
#[async_trait]
pub trait LetterBox: Send {
    /// Whose letters these are.
    fn projection(&self) -> ProjectionName;

    /// The letter of the event at this position.
    async fn letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError>;

    /// The first `limit` parked letters of a stream, by position.
    async fn parked_of(&mut self, stream: &str, limit: usize) -> Result<Vec<DeadLetter>, ProjectionError>;

    /// Folds parked events again, takes in what became of their letters, and moves the checkpoint where the act is done.
    async fn fold_again(&mut self, again: Again) -> Result<Settled, ProjectionError>;

    /// Moves the checkpoint to `to`, past an act that folds nothing; `acknowledged` is a letter that it changes.
    async fn pass(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError>;
}

/// What an act came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Events that are applied now.
    pub applied: u64,
    /// Whether an event was given up by it, or that was acknowledged.
    pub marked: bool,
    /// The first event of the stream that still can't be applied.
    pub stopped: Option<DeadLetter>,
    /// Whether everything that was parked was tried, or tried until it stopped. Otherwise more waits.
    pub complete: bool,
}

/// Feeds a projection with the events that follow its checkpoint, up to `up_to`, and carries out what operators decided
/// about its parked events where that is among them.
pub async fn advance(
    projection: &mut (impl Projection + ?Sized),
    event_store: &dyn EventStore,
    log: LogId,
    mut events: Vec<RecordedEvent>,
    up_to: Position,
) -> Result<(), ProjectionError> {
    let name = projection.letter_box().projection();
    while let Some((index, act)) =
        events.iter().enumerate().find_map(|(index, event)| Some((index, Act::of(event, name)?)))
    {
        let after = events.split_off(index + 1);
        events.truncate(index);
        if let Some(last) = events.last() {
            let up_to = last.position;
            projection.fold(log, events, up_to).await?;
        }
        carry_out(projection.letter_box(), event_store, log, &act, usize::MAX).await?;
        events = after;
    }
    if projection.checkpoint().position < up_to {
        projection.fold(log, events, up_to).await?;
    }
    Ok(())
}

/// Carries out an act, with so many [pieces](PIECE) of a stream at most.
pub async fn carry_out(
    letters: &mut dyn LetterBox,
    event_store: &dyn EventStore,
    log: LogId,
    act: &Act,
    pieces: usize,
) -> Result<Outcome, ProjectionError> {
    let outcome = match &act.deed {
        Deed::Retry { stream } => again(letters, event_store, log, act, stream, None, pieces).await?,
        Deed::Discard { event, reason } => {
            let Some((stream, given_up)) = to_go_on(letters, *event, act).await? else {
                return nothing_to_do(letters, log, act).await;
            };
            let discarded =
                Discarded { by: act.position, at: act.at, reason: plain(reason), acknowledged: None };
            let discarded = (!given_up).then_some(discarded);
            again(letters, event_store, log, act, &stream, discarded, pieces).await?
        }
        Deed::Acknowledge { event } => {
            let mut letter = letters.letter(*event).await?;
            let Some(acknowledged) = letter
                .as_mut()
                .and_then(|letter| letter.discarded.as_mut())
                .map(|discarded| &mut discarded.acknowledged)
                .filter(|acknowledged| acknowledged.is_none())
            else {
                return nothing_to_do(letters, log, act).await;
            };
            *acknowledged = Some(act.position);
            letters.pass(log, act.position, letter).await?;
            Outcome { marked: true, complete: true, ..Outcome::default() }
        }
    };
    // Streams are named after tokens, and payloads are users' texts: neither belongs here.
    tracing::info!(
        projection = letters.projection().as_str(),
        position = act.position.get(),
        applied = outcome.applied,
        marked = outcome.marked,
        stopped_at = outcome.stopped.as_ref().map(|letter| letter.position.get()),
        "carried out what an operator decided about parked events"
    );
    Ok(outcome)
}

async fn nothing_to_do(
    letters: &mut dyn LetterBox,
    log: LogId,
    act: &Act,
) -> Result<Outcome, ProjectionError> {
    letters.pass(log, act.position, None).await?;
    Ok(Outcome { complete: true, ..Outcome::default() })
}

/// The stream of an event that is parked, and no other of its stream before it; or that this act has given up already,
/// before a crash that left the rest of the stream to it: `true` then.
async fn to_go_on(
    letters: &mut dyn LetterBox,
    event: Position,
    act: &Act,
) -> Result<Option<(String, bool)>, ProjectionError> {
    let Some(letter) = letters.letter(event).await? else { return Ok(None) };
    if letter.discarded.as_ref().is_some_and(|discarded| discarded.by == act.position) {
        return Ok(Some((letter.stream, true)));
    }
    let first = letters.parked_of(&letter.stream, 1).await?;
    Ok(first.iter().any(|first| first.position == event).then_some((letter.stream, false)))
}

/// Tries the parked events of a stream again, piece by piece. Each piece is committed with the checkpoint where it was,
/// the last one with the checkpoint past the act: after a crash in between, the act is carried out on what is left.
async fn again(
    letters: &mut dyn LetterBox,
    event_store: &dyn EventStore,
    log: LogId,
    act: &Act,
    stream: &str,
    mut discard: Option<Discarded>,
    pieces: usize,
) -> Result<Outcome, ProjectionError> {
    let mut outcome = Outcome::default();
    for _ in 0..pieces {
        let parked = letters.parked_of(stream, PIECE + 1).await?;
        if parked.is_empty() {
            letters.pass(log, act.position, None).await?;
            outcome.complete = true;
            break;
        }
        let (events, more) = read_again(event_store, stream, parked).await?;
        let again = Again {
            log,
            act: act.position,
            stream: stream.to_owned(),
            events,
            discard: discard.take(),
            more,
        };
        let settled = letters.fold_again(again).await?;
        outcome.applied += settled.unparked.len() as u64;
        outcome.marked |= settled.discarded;
        if settled.done {
            outcome.stopped = settled.stopped;
            outcome.complete = true;
            break;
        }
    }
    Ok(outcome)
}

/// The events of the first of these letters, as the log has them, and whether there are more letters.
async fn read_again(
    event_store: &dyn EventStore,
    stream: &str,
    parked: Vec<DeadLetter>,
) -> Result<(Vec<(DeadLetter, Option<RecordedEvent>)>, bool), ProjectionError> {
    let Some(first) = parked.first() else { return Ok((Vec::new(), false)) };
    let read = StreamRead {
        stream: stream.into(),
        from: ReadFrom::Forwards(first.revision),
        select: Select::All,
        limit: PIECE,
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
