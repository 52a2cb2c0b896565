//! Reasons for dead letters.

use std::borrow::Cow;

use chat_domain::event::DecodeError;
use chat_domain::{Event, EvolveError};
use chat_ports::dead_letter::BEHIND_DEAD_LETTER;

/// The reason why an event can't be applied, as a sentence for operators. Contains no message text and no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterReason(Cow<'static, str>);

impl DeadLetterReason {
    /// The stream is blocked by an earlier dead letter.
    pub const BEHIND_DEAD_LETTER: Self = Self(Cow::Borrowed(BEHIND_DEAD_LETTER));
    /// The stream is neither an app's nor a chat's.
    pub const UNKNOWN_STREAM: Self = Self(Cow::Borrowed("its stream is neither an app's nor a chat's"));
    /// The chat does not exist: the event that created it is missing, or is a dead letter.
    pub const CHAT_MISSING: Self =
        Self(Cow::Borrowed("its chat is not there: the event that created it is missing or parked"));
    /// An edit or deletion of a message that does not exist.
    pub const MESSAGE_MISSING: Self = Self(Cow::Borrowed("its message does not exist"));
    /// An edit or deletion of a deleted message.
    pub const MESSAGE_DELETED: Self = Self(Cow::Borrowed("its message was deleted before"));
    /// The event of a retried dead letter is no longer in the log, or can't be read.
    pub const NOT_IN_LOG: Self = Self(Cow::Borrowed("it is not found in the log any more"));

    /// The event does not follow the last applied event of its stream.
    pub fn unexpected_revision(found: u64, expected: u64) -> Self {
        Self(format!("it is at revision {found} of its stream where {expected} was expected").into())
    }

    /// The message number is higher than the event's revision allows: message n is created by the n-th creation event
    /// of its stream, at revision n - 1 or later.
    pub fn number_too_high(revision: u64) -> Self {
        Self(format!("its number is higher than revision {revision} of its stream allows").into())
    }

    /// An event of an app in a chat's stream.
    pub fn wrong_stream(event: &Event) -> Self {
        Self(format!("{} does not belong in a chat's stream", event.event_type()).into())
    }

    /// Returns the reason as a sentence.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&DecodeError> for DeadLetterReason {
    fn from(error: &DecodeError) -> Self {
        match error {
            // The text of a serde error may quote the payload.
            DecodeError::InvalidPayload(json) => {
                let kind = match json.classify() {
                    serde_json::error::Category::Data => "not of its version's shape",
                    _ => "not JSON",
                };
                Self(format!("its payload is {kind} (line {}, column {})", json.line(), json.column()).into())
            }
            DecodeError::UnknownType | DecodeError::UnknownVersion { .. } => Self(error.to_string().into()),
        }
    }
}

impl From<EvolveError> for DeadLetterReason {
    fn from(error: EvolveError) -> Self {
        Self(error.reason.into())
    }
}

/// Replaces NUL characters, which some engines do not store. Events of other programs may contain them.
pub(crate) fn replace_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
