//! The search index: messages in tantivy, found by whole words, starts of words, parts of words and phrases, in every
//! script.
//!
//! [`SearchIndex`] answers queries; [`SearchIndexWriter`] is what the projection writes. What both promise:
//!
//! - **One snapshot a query.** All that one search returns is as of one position, and it returns that position.
//! - **Exactly once in effect.** [`SearchIndexWriter::commit`] moves the checkpoint in the same tantivy commit (its
//!   payload) as the documents, durably.

use std::error::Error as StdError;

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use thiserror::Error;

use crate::dead_letter::DeadLetter;
use crate::event_store::LogId;

/// Which message a document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageKey {
    /// The app.
    pub app: AppToken,
    /// The chat in it.
    pub chat: ChatNumber,
    /// The message in the chat.
    pub message: MessageNumber,
}

/// A message as the index holds it. The index stores the text too, so that a search is answered from one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Which message.
    pub key: MessageKey,
    /// The position of its MessageCreated event: its age among all messages.
    pub created_position: Position,
    /// Its text.
    pub body: String,
    /// Events about it.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last edited, or else created.
    pub updated_at: Timestamp,
}

/// What the projection made of a stretch of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexChanges {
    /// The log that the stretch is of.
    pub log: LogId,
    /// Where the stretch starts: the checkpoint must be here.
    pub from: Position,
    /// Where it ends: the checkpoint moves here.
    pub to: Position,
    /// Documents to store of which the index has none with the same key: that one is there is not looked for. A key is
    /// here, in `put` or in `delete`, and once at most.
    pub add: Vec<Document>,
    /// Documents to store, in place of those with the same key.
    pub upsert: Vec<Document>,
    /// Documents to take away.
    pub delete: Vec<MessageKey>,
    /// Events to park.
    pub new_dead_letters: Vec<DeadLetter>,
    /// Letters to take away: their events are applied now.
    pub resolved_dead_letters: Vec<Position>,
    /// Stored letters with another reason or state.
    pub mark: Vec<DeadLetter>,
}

impl IndexChanges {
    /// No changes between two positions: only the checkpoint moves.
    pub fn empty(log: LogId, from: Position, to: Position) -> Self {
        Self {
            log,
            from,
            to,
            add: Vec::new(),
            upsert: Vec::new(),
            delete: Vec::new(),
            new_dead_letters: Vec::new(),
            resolved_dead_letters: Vec::new(),
            mark: Vec::new(),
        }
    }
}

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All chats of an app.
    App(AppToken),
    /// One chat.
    Chat(AppToken, ChatNumber),
}

/// The order of hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Better matches first, newest first among equals.
    #[default]
    Relevance,
    /// Newest first.
    Newest,
    /// Oldest first.
    Oldest,
}

/// A search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// Where.
    pub scope: Scope,
    /// What a person typed.
    pub query: String,
    /// Whether typing errors are forgiven: one in words of 4–7 letters, two from 8.
    pub fuzzy: bool,
    /// In which order.
    pub sort: Sort,
    /// Only messages created at this time or later.
    pub created_from: Option<Timestamp>,
    /// Only messages created before or at this time.
    pub created_until: Option<Timestamp>,
    /// How many hits to return at most.
    pub limit: usize,
    /// Hits after the page that returned this cursor.
    pub cursor: Option<SearchCursor>,
}

/// The place after a hit in the order of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchCursor {
    /// The hit's score.
    pub score: u64,
    /// The hit's [`Document::created_position`].
    pub position: Position,
}

/// A page of hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPage {
    /// The position up to which the log was folded in.
    pub position: Position,
    /// The hits, in the order asked for.
    pub hits: Vec<Hit>,
    /// How many messages match, on all pages.
    pub total: u64,
    /// Where the next page starts, if there is one.
    pub next: Option<SearchCursor>,
}

/// A message that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The message.
    pub document: Document,
    /// HTML: the escaped text around the first match, with `<mark>` around what matched.
    pub snippet: String,
    /// How well it matches: the sum over the query's words. Only the order means anything.
    pub score: u64,
}

/// Why the index could not be read or written.
#[derive(Debug, Error)]
pub enum SearchError {
    /// Out of reach or busy; worth a retry.
    #[error("the search index can't be reached now")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// What is stored can't be understood; a retry finds the same, a rebuild helps.
    #[error("the search index is damaged")]
    Damaged(#[source] Box<dyn StdError + Send + Sync>),
    /// Another writer has the index open; worth a retry.
    #[error("another process writes the search index")]
    InUse(#[source] Box<dyn StdError + Send + Sync>),
    /// Another projector moved the checkpoint; load it and go on from there.
    #[error("another projector moved the checkpoint")]
    CheckpointMoved,
    /// No folder, or an empty one: no projector has created the index yet.
    #[error("there is no search index yet")]
    NotCreated,
}

impl SearchError {
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Damaged(_))
    }
}
