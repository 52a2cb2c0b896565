//! Streams that lost events in the store.

use std::fmt;
use std::sync::Arc;

use chat_domain::StreamId;
use chat_domain::operator_action;
use thiserror::Error;

/// A stream of this system whose events were deleted or truncated in the store, or will be. It takes no more events,
/// because its numbers would begin again or its history would have a gap.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} {cause}", StreamLabel(stream))]
pub struct TruncatedStream {
    /// The stream's name. It may hold the token of an app, of which `Display` shows only the beginning.
    pub stream: Arc<str>,
    /// The cause of the truncation.
    pub cause: TruncationCause,
}

/// The cause of a truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum TruncationCause {
    /// The stream was deleted for good.
    #[error("was deleted permanently")]
    Deleted,
    /// The stream was deleted, and can be restored until its events are removed.
    #[error("was deleted; restore it before the next scavenge by removing $tb from its metadata")]
    SoftDeleted,
    /// The stream has this setting in its metadata, which truncates it.
    #[error("has {0} in its metadata, which removes events: remove the setting before the next scavenge")]
    Limited(&'static str),
    /// The stream does not begin with its first event.
    #[error("has lost its first events")]
    FirstEventsMissing,
}

/// Names a stream without the whole token of its app.
struct StreamLabel<'a>(&'a str);

impl fmt::Display for StreamLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beginning = |token: &chat_domain::AppToken| token.expose().chars().take(4).collect::<String>();
        match StreamId::parse(self.0) {
            Ok(StreamId::App(app)) => write!(f, "the stream app-{}…", beginning(&app)),
            Ok(StreamId::Chat(app, number)) => write!(f, "the stream chat-{}…-{number}", beginning(&app)),
            Err(_) if self.0 == operator_action::STREAM => write!(f, "the stream {}", self.0),
            Err(_) => f.write_str("a stream that is no app's and no chat's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_only_the_beginning_of_the_token() {
        let stream = format!("chat-{}-7", "k".repeat(36)).into();
        let truncated = TruncatedStream { stream, cause: TruncationCause::Limited("$maxCount") };
        assert!(truncated.to_string().starts_with("the stream chat-kkkk…-7 has $maxCount in its metadata"));
    }
}
