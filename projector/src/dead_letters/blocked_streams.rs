//! Parking: what happens to events that can't be applied.
//!
//! Such an event is kept as a [`DeadLetter`], together with all later events of its stream, so that nothing is applied
//! out of order; other streams go on. What becomes of letters is for operators to say: [`crate::letters`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use chat_domain::event::DecodeError;
use chat_domain::{Event, EvolveError, Position, Revision, Timestamp};
use chat_ports::dead_letter::{BEHIND_DEAD_LETTER, DeadLetter, DeadLetterCounts};

use crate::dead_letters::RetryOutcome;

/// Why an event can't be applied, for operators. Names no text and no token: payloads stay in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterReason(Cow<'static, str>);

impl DeadLetterReason {
    /// An event of a stream with a parked event.
    pub const BEHIND_DEAD_LETTER: Self = Self(Cow::Borrowed(BEHIND_DEAD_LETTER));
    /// A stream that is neither an app's nor a chat's.
    pub const UNKNOWN_STREAM: Self = Self(Cow::Borrowed("its stream is neither an app's nor a chat's"));
    /// A chat's event, where the chat's creation is missing or parked.
    pub const CHAT_MISSING: Self =
        Self(Cow::Borrowed("its chat is not there: the event that created it is missing or parked"));
    /// An edit or deletion of a message that is not there.
    pub const MESSAGE_MISSING: Self = Self(Cow::Borrowed("its message does not exist"));
    /// An edit or deletion of a deleted message.
    pub const MESSAGE_DELETED: Self = Self(Cow::Borrowed("its message was deleted before"));

    /// A parked event that is read again.
    pub const NOT_IN_LOG: Self = Self(Cow::Borrowed("it is not found in the log any more"));

    /// A hole in the stream, as far as the projection has seen it.
    pub fn unexpected_revision(found: u64, expected: u64) -> Self {
        Self(format!("it is at revision {found} of its stream where {expected} was expected").into())
    }

    /// A number that the stream can't have come to.
    pub fn number_too_high(revision: u64) -> Self {
        Self(format!("its number is higher than revision {revision} of its stream allows").into())
    }

    /// An event of an app in a chat's stream.
    pub fn wrong_stream(event: &Event) -> Self {
        Self(format!("{} does not belong in a chat's stream", event.event_type()).into())
    }

    /// The reason as a sentence.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&DecodeError> for DeadLetterReason {
    fn from(error: &DecodeError) -> Self {
        match error {
            // What serde says may quote the payload.
            DecodeError::InvalidPayload(json) => {
                let kind = match json.classify() {
                    serde_json::error::Category::Data => "not of its version's shape",
                    _ => "not JSON",
                };
                Self(format!("its payload is {kind} (line {}, column {})", json.line(), json.column()).into())
            }
            DecodeError::UnknownType | DecodeError::UnknownVersion(_) => Self(error.to_string().into()),
        }
    }
}

impl From<EvolveError> for DeadLetterReason {
    fn from(unfoldable: EvolveError) -> Self {
        Self(unfoldable.reason.into())
    }
}

/// The streams with a parked event, and how many events are parked and discarded in all.
#[derive(Clone, Debug, Default)]
pub struct BlockedStreams {
    /// Shared with the work that goes on elsewhere.
    streams: Arc<HashSet<Arc<str>>>,
    counts: DeadLetterCounts,
}

impl BlockedStreams {
    /// What an earlier run parked.
    pub fn load(streams: impl IntoIterator<Item = String>, counts: DeadLetterCounts) -> Self {
        Self { streams: Arc::new(streams.into_iter().map(Arc::from).collect()), counts }
    }

    /// Whether the stream has a parked event.
    pub fn contains(&self, stream: &str) -> bool {
        self.streams.contains(stream)
    }

    /// How many events are parked.
    pub fn events(&self) -> u64 {
        self.counts.pending
    }

    /// How many events were discarded, and nobody has acknowledged it.
    pub fn discarded_count(&self) -> u64 {
        self.counts.unacknowledged_discards
    }

    /// Takes in what a stretch parked, once it is committed.
    pub fn record_dead_letters(&mut self, letters: &DeadLetters) {
        self.counts.pending += letters.0.len() as u64;
        for letter in &letters.0 {
            if !self.streams.contains(letter.stream.as_str()) {
                Arc::make_mut(&mut self.streams).insert(Arc::from(letter.stream.as_str()));
            }
        }
    }

    /// Takes in what a second attempt came to, once it is committed.
    pub fn record_retry(&mut self, settled: &RetryOutcome) {
        let gone = settled.applied.len() as u64 + u64::from(settled.has_discarded_first);
        self.counts.pending = self.counts.pending.saturating_sub(gone);
        self.counts.unacknowledged_discards += u64::from(settled.has_discarded_first);
        if settled.is_stream_unblocked {
            Arc::make_mut(&mut self.streams).remove(settled.stream.as_str());
        }
    }

    /// Takes in that a discarded event was acknowledged, once that is committed.
    pub fn record_acknowledgement(&mut self) {
        self.counts.unacknowledged_discards = self.counts.unacknowledged_discards.saturating_sub(1);
    }
}

/// The text as every engine takes it: a log of another program may hold a NUL, which not every one does.
pub(crate) fn replace_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// What a stretch of the log parks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetters(pub Vec<DeadLetter>);

impl DeadLetters {
    /// Says that events were parked, once they are: one line for the first event of each stream.
    pub fn log_warnings(&self, projection: &'static str) {
        for letter in
            self.0.iter().filter(|letter| letter.reason != DeadLetterReason::BEHIND_DEAD_LETTER.as_str())
        {
            tracing::warn!(
                projection,
                position = letter.position.get(),
                event_type = letter.event_type,
                reason = letter.reason,
                "parked an event that can't be applied, and with it the rest of its stream"
            );
        }
    }

    /// Parks an event.
    pub fn push(
        &mut self,
        position: Position,
        stream: &str,
        revision: Revision,
        event_type: &str,
        reason: &DeadLetterReason,
        now: Timestamp,
    ) {
        self.0.push(DeadLetter {
            position,
            stream: replace_nul(stream),
            revision,
            event_type: replace_nul(event_type),
            reason: reason.as_str().to_owned(),
            dead_lettered_at: now,
            discarded: None,
        });
    }
}
