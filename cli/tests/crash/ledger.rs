//! Ledger of the clients: acknowledged writes, and writes with an unknown outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything that clients were told.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The apps by token.
    pub apps: BTreeMap<String, App>,
    /// Chats written to since the last audit.
    pub touched: BTreeSet<(String, u64)>,
    /// The longest that a command took which was carried out.
    pub longest: Duration,
}

/// What is known of an app.
#[derive(Debug)]
pub struct App {
    /// The acknowledged name.
    pub name: String,
    /// Names that may have been given, their answers lost.
    pub uncertain_names: Vec<String>,
    /// Acknowledged chats by number.
    pub chats: BTreeMap<u64, Chat>,
    /// Chats whose answers were lost.
    pub uncertain_chats: usize,
}

/// What is known of a chat.
#[derive(Debug, Default)]
pub struct Chat {
    /// Acknowledged messages by number.
    pub messages: BTreeMap<u64, Message>,
    /// Bodies of messages whose answers were lost. Every body is used once.
    pub uncertain: BTreeSet<String>,
}

/// What is known of a message.
#[derive(Debug)]
pub struct Message {
    /// What was acknowledged last: its body, or nothing where it was deleted.
    pub body: Option<String>,
    /// A change whose answer was lost.
    pub uncertain: Option<Change>,
}

/// A change of a message.
#[derive(Clone, Debug)]
pub enum Change {
    /// Another body.
    Edit(String),
    /// Its end.
    Delete,
}

impl App {
    /// An app of which nothing is known but its name.
    pub fn new(name: String) -> Self {
        Self { name, uncertain_names: Vec::new(), chats: BTreeMap::new(), uncertain_chats: 0 }
    }
}

impl Message {
    /// A message as it was created.
    pub fn new(body: String) -> Self {
        Self { body: Some(body), uncertain: None }
    }
}

impl Ledger {
    /// Notes how long a command took.
    pub fn took(&mut self, time: Duration) {
        self.longest = self.longest.max(time);
    }

    /// Acknowledged messages.
    pub fn acknowledged(&self) -> usize {
        self.apps.values().flat_map(|app| app.chats.values()).map(|chat| chat.messages.len()).sum()
    }

    /// The app with this token, which must be known.
    pub fn app(&mut self, token: &str) -> &mut App {
        self.apps.get_mut(token).expect("a known app")
    }

    /// A chat, for something that is about to be written to it.
    pub fn touch(&mut self, token: &str, chat: u64) -> &mut Chat {
        self.touched.insert((token.to_owned(), chat));
        self.app(token).chats.get_mut(&chat).expect("a known chat")
    }
}
