//! The filter of a follower's events.

use chat_domain::SenderId;

use super::event::{EncodedEvent, FeedEventType};

/// Selects which events of a scope a follower receives.
#[derive(Clone, Debug, Default)]
pub(crate) struct FeedFilter {
    /// The types; empty for all.
    pub(crate) types: Vec<FeedEventType>,
    /// The sender of the messages; `None` for all events.
    pub(crate) sender: Option<SenderId>,
}

impl FeedFilter {
    pub(crate) fn passes_type(&self, event_type: FeedEventType) -> bool {
        self.types.is_empty() || self.types.contains(&event_type)
    }

    pub(crate) fn passes_sender(&self, event: &EncodedEvent) -> bool {
        match &self.sender {
            None => true,
            Some(id) => event.sender.as_ref().is_some_and(|sender| sender.id == *id),
        }
    }
}
