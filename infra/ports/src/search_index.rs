//! The search index: messages found by whole words, prefixes, substrings and phrases, in every script.
//!
//! Queries use the port [`SearchIndex`], and the projection commits [`IndexChanges`]. Guarantees:
//!
//! - **One snapshot per query.** A search returns hits as of one position, together with that position.
//! - **Effectively once.** A commit stores its documents and moves the projection checkpoint durably and atomically.

use std::error::Error as StdError;

use chat_domain::{
    AppToken, ChatNumber, MessageData, MessageNumber, Position, Sender, SenderId, Timestamp, Version,
};
use thiserror::Error;

use crate::dead_letter::DeadLetter;
use crate::event_store::LogId;

/// Searches messages. Its methods may block; async callers run them on a blocking thread.
pub trait SearchIndex: Send + Sync + 'static {
    /// Rejects a query that is too long. A search would ignore the end of such a query, and return messages that do not
    /// match the whole query.
    ///
    /// # Errors
    /// [`QueryTooLong`] if the query has more bytes or words than the index reads.
    fn check_query(&self, query: &str) -> Result<(), QueryTooLong>;

    /// Finds messages. A query without a word finds none.
    ///
    /// Successive calls never go back to an earlier position, unless the index is recreated. A search does not wait for
    /// commits that are being loaded, unless it needs them to reach [`SearchRequest::min_position`].
    ///
    /// # Errors
    /// See [`SearchError`]. A retry is worthwhile if [`SearchError::is_retryable`] returns `true`.
    fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError>;
}

/// The query has more bytes or words than the index reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the query is longer than the search index reads")]
pub struct QueryTooLong;

/// Identifies the message of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageKey {
    /// The app.
    pub app: AppToken,
    /// The chat in the app.
    pub chat: ChatNumber,
    /// The message in the chat.
    pub message: MessageNumber,
}

/// A message in the index. The index stores the body too, so that a search is answered from one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The message's key; unique in the index.
    pub key: MessageKey,
    /// The position of the message's `MessageCreated` event; orders all messages by age.
    pub created_position: Position,
    /// The message's body.
    pub body: String,
    /// The sender, if the application named one.
    pub sender: Option<Sender>,
    /// The application's data, if there is any. Not searched.
    pub data: Option<MessageData>,
    /// The number of events about the message.
    pub version: Version,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last edit, or of creation if the message was never edited.
    pub updated_at: Timestamp,
}

/// The changes that one batch of events makes to the index. Committed atomically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexChanges {
    /// The log that the batch was read from.
    pub log: LogId,
    /// The position before the batch; must equal the checkpoint.
    pub from: Position,
    /// The position of the batch's end; becomes the checkpoint.
    pub to: Position,
    /// Documents to add. The index must not hold a document with the same key yet, and does not check that. Across
    /// `add`, `upsert` and `delete`, a key occurs at most once.
    pub add: Vec<Document>,
    /// Documents to add, or to replace the documents with the same keys.
    pub upsert: Vec<Document>,
    /// Keys of documents to delete.
    pub delete: Vec<MessageKey>,
    /// Events that could not be applied.
    pub new_dead_letters: Vec<DeadLetter>,
    /// Positions of dead letters to remove, because their events have been applied.
    pub resolved_dead_letters: Vec<Position>,
    /// Stored dead letters whose reason or state changed.
    pub changed_dead_letters: Vec<DeadLetter>,
}

impl IndexChanges {
    /// Changes that only move the checkpoint.
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
            changed_dead_letters: Vec::new(),
        }
    }
}

/// The messages that a search considers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All chats of an app.
    App(AppToken),
    /// One chat.
    Chat(AppToken, ChatNumber),
}

impl Scope {
    /// The app whose messages are searched.
    pub fn app(self) -> AppToken {
        let (Self::App(app) | Self::Chat(app, _)) = self;
        app
    }
}

/// The order of hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Best match first; among equal scores, newest first.
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
    /// The messages to search.
    pub scope: Scope,
    /// The sender whose messages are searched; `None` for all messages.
    pub sender: Option<SenderId>,
    /// The query as the user typed it.
    pub query: String,
    /// Whether words match despite typing errors: one error in words of 4–7 letters, two in words of 8–64. None are
    /// tolerated in words with digits and in scripts without spaces.
    pub fuzzy: bool,
    /// The order of hits.
    pub sort: Sort,
    /// The earliest time of creation, inclusive.
    pub created_from: Option<Timestamp>,
    /// The latest time of creation, inclusive.
    pub created_until: Option<Timestamp>,
    /// The maximum number of hits on the page.
    pub limit: usize,
    /// The number up to which matches are counted. Where more messages match, a lower number makes the search faster.
    pub count_up_to: u64,
    /// The cursor that the previous page returned; `None` for the first page.
    pub cursor: Option<SearchCursor>,
    /// A position that the answer should include. The index loads newer commits until it includes the position or no
    /// newer commit exists. If the index is still at an older position, the answer has no hits.
    pub min_position: Option<Position>,
}

impl SearchRequest {
    /// A search without filters: the ten best matches, with all matches counted.
    pub fn new(scope: Scope, query: impl Into<String>) -> Self {
        Self {
            scope,
            sender: None,
            query: query.into(),
            fuzzy: false,
            sort: Sort::Relevance,
            created_from: None,
            created_until: None,
            limit: 10,
            count_up_to: u64::MAX,
            cursor: None,
            min_position: None,
        }
    }
}

/// The sort key of a page's last hit. The next page starts after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchCursor {
    /// The hit's score.
    pub score: u64,
    /// The hit's [`Document::created_position`].
    pub position: Position,
}

/// A page of hits. It ends early at [`MAX_PAGE_BYTES`](crate::MAX_PAGE_BYTES) of text and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPage {
    /// The position of the snapshot that was searched.
    pub position: Position,
    /// The hits, in the requested order.
    pub hits: Vec<Hit>,
    /// The number of matching messages on all pages.
    pub total: Total,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<SearchCursor>,
}

impl SearchPage {
    /// A page without hits.
    pub fn empty(position: Position) -> Self {
        Self { position, hits: Vec::new(), total: Total::Exactly(0), next: None }
    }
}

/// A number of matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// This many.
    Exactly(u64),
    /// More than this, which is [`SearchRequest::count_up_to`].
    MoreThan(u64),
}

impl Total {
    /// The number of matches that were counted.
    pub fn count(self) -> u64 {
        let (Self::Exactly(count) | Self::MoreThan(count)) = self;
        count
    }
}

/// A message that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The message.
    pub document: Document,
    /// HTML: the escaped text around the best match, with `<mark>` around each match.
    pub snippet: String,
    /// The sum of the scores of the query's words. Only comparisons are meaningful.
    pub score: u64,
}

/// An error of reading or writing the index.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The storage can't be reached or is busy. Worth a retry.
    #[error("the search index can't be reached now")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// The stored data can't be read. A retry fails in the same way; a rebuild repairs the index.
    #[error("the search index is damaged")]
    Damaged(#[source] Box<dyn StdError + Send + Sync>),
    /// Another writer has the index open. Worth a retry.
    #[error("another process writes the search index")]
    InUse(#[source] Box<dyn StdError + Send + Sync>),
    /// Another projector moved the checkpoint. Load the checkpoint and continue from it.
    #[error("another projector moved the checkpoint")]
    CheckpointMoved,
    /// No projector has created the index yet.
    #[error("the search index does not exist yet")]
    NotCreated,
}

impl SearchError {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Damaged(_))
    }
}
