//! The messages of a chat in a list, now or at a point in the log.

use chat_domain::{Position, Sender};

use crate::origin::Origin;
use crate::stream_dead_letters::StreamDiscard;
use crate::text::Time;

/// The number of messages on a page.
pub(crate) const PAGE_MESSAGES: usize = 50;

/// The maximum number of characters that a list shows of a message's text. The message's own page shows all of it.
pub(crate) const SHOWN_CHARS: usize = 4_000;

/// An item of the list, which is in the order of message numbers.
pub(crate) enum MessageItem {
    /// A message.
    Message(MessageEntry),
    /// A message that was deleted.
    Deleted(DeletedEntry),
    /// A message whose creation an operator discarded.
    Discarded {
        /// The message's number.
        number: u64,
        /// The path of the message's page.
        path: String,
        /// The position of the event that created the message.
        event: Position,
        /// How that event was discarded.
        discard: StreamDiscard,
    },
    /// Messages with consecutive numbers that the read model does not have.
    Missing {
        /// The number of the first of them.
        first: u64,
        /// The number of the last of them.
        last: u64,
    },
}

/// A message in a list.
pub(crate) struct MessageEntry {
    pub(crate) number: u64,
    pub(crate) path: String,
    pub(crate) sender: Option<SenderView>,
    pub(crate) created: Time,
    /// The number of versions.
    pub(crate) versions: u64,
    pub(crate) text: String,
    /// Whether the message's text is longer than `text`, which was cut.
    pub(crate) is_shortened: bool,
    pub(crate) data: Option<String>,
}

/// A deleted message in a list, with the position, time and origin of the deletion.
pub(crate) struct DeletedEntry {
    pub(crate) number: u64,
    pub(crate) path: String,
    pub(crate) position: Position,
    pub(crate) deleted: Time,
    pub(crate) origin: Origin,
}

/// A sender as pages show it. `path` leads to the chat's page, limited to this sender's messages.
pub(crate) struct SenderView {
    pub(crate) id: String,
    /// The name, or else the id.
    pub(crate) name: String,
    pub(crate) path: String,
}

pub(crate) fn sender_view(chat_path: &str, sender: &Sender) -> SenderView {
    let id = sender.id.as_str().to_owned();
    let name = sender.name.as_ref().map(|name| name.as_str().to_owned()).filter(|name| !name.is_empty());
    let query: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    SenderView { name: name.unwrap_or_else(|| id.clone()), id, path: format!("{chat_path}?sender={query}") }
}
