//! Parked events on their way into a projection once more.

use chat_domain::Position;
use chat_ports::dead_letter::{DeadLetter, Discarded};
use chat_ports::event_store::{LogId, RecordedEvent};

use crate::parking::Reason;
use crate::stretch::{Incoming, Stretch};

/// Parked events of one stream, in order, to be folded again.
#[derive(Debug)]
pub struct Again {
    /// The log they are of.
    pub log: LogId,
    /// The position of the act that asks for it.
    pub act: Position,
    /// Their stream.
    pub stream: String,
    /// The letters, each with its event, where the log still has it.
    pub events: Vec<(DeadLetter, Option<RecordedEvent>)>,
    /// Set where the first one is given up.
    pub discard: Option<Discarded>,
    /// Whether more of the stream's events are parked after these.
    pub more: bool,
}

/// The letters of [`Again`], while their events are being folded.
#[derive(Debug)]
pub struct Piece {
    at: Position,
    act: Position,
    stream: String,
    letters: Vec<DeadLetter>,
    discard: Option<Discarded>,
    more: bool,
}

/// What became of letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Where the checkpoint is then: past the act, once it is done.
    pub to: Position,
    /// Whether the act is done.
    pub done: bool,
    /// Their stream.
    pub stream: String,
    /// Letters whose events are applied.
    pub unparked: Vec<Position>,
    /// Letters with another reason or state.
    pub marked: Vec<DeadLetter>,
    /// The first event that still can't be applied.
    pub stopped: Option<DeadLetter>,
    /// Whether the first event was given up.
    pub discarded: bool,
    /// Whether nothing of the stream is parked any more.
    pub cleared: bool,
}

impl Again {
    /// The events as a stretch, for a projection that stands at `at`.
    pub fn open(self, at: Position) -> (Stretch, Piece) {
        let Self { log, act, stream, events, discard, more } = self;
        let mut letters = Vec::with_capacity(events.len());
        let mut incoming = Vec::with_capacity(events.len());
        for (letter, event) in events {
            incoming.push(match event {
                Some(event) => Incoming::read(event, 0),
                None => gone(&letter),
            });
            letters.push(letter);
        }
        if let (Some(_), Some(first)) = (&discard, incoming.first_mut()) {
            first.discarded = true;
        }
        let stretch = Stretch::again(log, at, &stream, incoming);
        (stretch, Piece { at, act, stream, letters, discard, more })
    }
}

impl Piece {
    /// What becomes of the letters, where the fold has parked these of their events again.
    pub fn settle(self, failed: Vec<DeadLetter>) -> Settled {
        let first_failed = failed.into_iter().next();
        let mut letters = self.letters.into_iter().peekable();
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
        let done = stopped.is_some() || !self.more;
        Settled {
            to: if done { self.act } else { self.at },
            done,
            stream: self.stream,
            unparked,
            marked,
            cleared: stopped.is_none() && !self.more,
            stopped,
            discarded,
        }
    }
}

/// An event that the log does not have any more.
fn gone(letter: &DeadLetter) -> Incoming {
    Incoming {
        position: letter.position,
        stream: 0,
        revision: letter.revision,
        recorded_at: letter.parked_at,
        event_type: letter.event_type.clone(),
        event: Err(Reason::GONE),
        discarded: false,
    }
}
