//! The messages of a chat in a list, now or at a point in the log.

use chat_domain::{Position, Sender};

use crate::origin::Origin;
use crate::stream_dead_letters::StreamDiscard;
use crate::text::Time;

/// The number of messages on a page.
pub(crate) const PAGE_MESSAGES: usize = 50;

/// The characters of a message that a list shows. Its own page has the rest.
pub(crate) const SHOWN_CHARS: usize = 4_000;

/// An item of the list, in the order of message numbers.
pub(crate) enum MessageItem {
    /// A message.
    Message(MessageEntry),
    /// A message that was deleted.
    Deleted(DeletedEntry),
    /// A message whose creation an operator discarded.
    Discarded {
        /// Its number.
        number: u64,
        /// The path of its page.
        path: String,
        /// The position of the event that created it.
        event: Position,
        /// How it was discarded.
        discard: StreamDiscard,
    },
    /// Messages that the read model does not have.
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
}

/// A message in a list.
pub(crate) struct MessageEntry {
    pub(crate) number: u64,
    pub(crate) path: String,
    pub(crate) sender: Option<SenderView>,
    pub(crate) created: Time,
    /// The number of its versions.
    pub(crate) versions: u64,
    pub(crate) text: String,
    /// Whether the text is longer than shown.
    pub(crate) is_shortened: bool,
    pub(crate) data: Option<String>,
}

/// A deletion in a list.
pub(crate) struct DeletedEntry {
    pub(crate) number: u64,
    pub(crate) path: String,
    pub(crate) position: Position,
    pub(crate) deleted: Time,
    pub(crate) origin: Origin,
}

/// A sender, with the address of the chat's messages of this sender.
pub(crate) struct SenderView {
    pub(crate) id: String,
    /// The name, or else the id.
    pub(crate) name: String,
    pub(crate) path: String,
}

/// A sender as pages show it. `chat` is the path of the chat.
pub(crate) fn sender_view(chat: &str, sender: &Sender) -> SenderView {
    let id = sender.id.as_str().to_owned();
    let name = sender.name.as_ref().map(|name| name.as_str().to_owned()).filter(|name| !name.is_empty());
    let query: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    SenderView { name: name.unwrap_or_else(|| id.clone()), id, path: format!("{chat}?sender={query}") }
}
