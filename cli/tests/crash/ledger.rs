//! Ledger of the clients: known writes, and writes with an unknown outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything that was acknowledged to clients or found by an audit of this test (`audit.rs`), and every uncertain
/// outcome.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The apps by token.
    pub apps: BTreeMap<String, App>,
    /// The chats that were or may have been written to since the last audit: app token and chat number.
    pub written_chats: BTreeSet<(String, u64)>,
    /// The longest time that a client of the load took for one successful request, with all its repetitions.
    pub longest_request: Duration,
}

/// The known state of an app.
#[derive(Debug)]
pub struct App {
    /// The last known name.
    pub name: String,
    /// Names that may have been stored. The responses were lost.
    pub uncertain_names: Vec<String>,
    /// Known chats by number.
    pub chats: BTreeMap<u64, Chat>,
    /// The number of requests for a new chat whose responses were lost.
    pub uncertain_chats: usize,
}

/// The known state of a chat.
#[derive(Debug, Default)]
pub struct Chat {
    /// Known messages by number.
    pub messages: BTreeMap<u64, Message>,
    /// Bodies of messages whose responses were lost. Every body is used once.
    pub uncertain: BTreeSet<String>,
}

/// The known state of a message.
#[derive(Debug)]
pub struct Message {
    /// The last known body; `None` once it is deleted.
    pub body: Option<String>,
    /// A change whose response was lost.
    pub uncertain: Option<Change>,
}

/// A change of a message.
#[derive(Clone, Debug)]
pub enum Change {
    /// An edit to this body.
    Edit(String),
    /// A deletion.
    Delete,
}

impl App {
    /// Creates an app without chats.
    pub fn new(name: String) -> Self {
        Self { name, uncertain_names: Vec::new(), chats: BTreeMap::new(), uncertain_chats: 0 }
    }
}

impl Message {
    /// Creates a message without an uncertain change.
    pub fn new(body: String) -> Self {
        Self { body: Some(body), uncertain: None }
    }
}

impl Ledger {
    /// Records how long a client of the load took for a successful request.
    pub fn record_duration(&mut self, time: Duration) {
        self.longest_request = self.longest_request.max(time);
    }

    /// Returns the number of messages that were acknowledged or found by an audit.
    pub fn known_messages(&self) -> usize {
        self.apps.values().flat_map(|app| app.chats.values()).map(|chat| chat.messages.len()).sum()
    }

    /// Returns the app with this token, which must be known.
    pub fn app(&mut self, token: &str) -> &mut App {
        self.apps.get_mut(token).expect("a known app")
    }

    /// Records that a chat was written to, or may have been, so that the next audit checks it. Returns the chat.
    pub fn mark_written(&mut self, token: &str, chat: u64) -> &mut Chat {
        self.written_chats.insert((token.to_owned(), chat));
        self.app(token).chats.get_mut(&chat).expect("a known chat")
    }
}
