//! The writing side of the port: what the projection loads before it folds, and what it commits after.

use async_trait::async_trait;
use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};

use super::{AppRow, ChatRow, ReadModelError};
use crate::dead_letter::{DeadLetter, DeadLetterCounts};
use crate::event_store::LogId;
use crate::projection_checkpoint::ProjectionCheckpoint;

/// What the read model's projection writes.
///
/// Rows are loaded and written as sets, so that an adapter spends one round trip or one prepared statement on each
/// set and not on each row. Loads answer for what there is and leave out what there is not, in any order.
#[async_trait]
pub trait ReadModelWriter: Send + Sync + 'static {
    /// Where the read model stands.
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError>;

    /// The names of streams with a parked event, each once.
    async fn blocked_streams(&self) -> Result<Vec<String>, ReadModelError>;

    /// How many events are parked, and how many were discarded.
    async fn dead_letter_counts(&self) -> Result<DeadLetterCounts, ReadModelError>;

    /// The letter of the event at this position.
    async fn letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError>;

    /// The first `limit` parked letters of a stream, by position.
    async fn dead_letters_of_stream(
        &self,
        stream: String,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadModelError>;

    /// The rows of these apps.
    async fn apps(&self, tokens: Vec<AppToken>) -> Result<Vec<AppRow>, ReadModelError>;

    /// The rows of these chats.
    async fn chats(&self, keys: Vec<ChatKey>) -> Result<Vec<StoredChat>, ReadModelError>;

    /// These messages, each named by its chat's id and its number.
    async fn messages(
        &self,
        keys: Vec<(Position, MessageNumber)>,
    ) -> Result<Vec<StoredMessage>, ReadModelError>;

    /// Stores the changes and moves the checkpoint, in one transaction. [`ReadModelError::CheckpointMoved`] where the
    /// checkpoint is not at [`Changes::from`] of [`Changes::log`]; nothing is stored then.
    async fn commit(&self, changes: ReadModelChanges) -> Result<(), ReadModelError>;
}

/// Which chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChatKey {
    /// The app's token.
    pub app: AppToken,
    /// The chat's number in it.
    pub number: ChatNumber,
}

/// A chat as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChat {
    /// Its id: the position of its ChatCreated event.
    pub id: Position,
    /// Its app's id: the position of the AppCreated event.
    pub app_id: Position,
    /// The token of its app.
    pub app: AppToken,
    /// The number of the message created last; deleted ones count.
    pub last_message: Option<MessageNumber>,
    /// What queries see of it.
    pub row: ChatRow,
}

impl StoredChat {
    /// What names it in commands and queries.
    pub fn key(&self) -> ChatKey {
        ChatKey { app: self.app, number: self.row.number }
    }
}

/// A message as far as the fold of an edit or a deletion needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// The chat's id.
    pub chat_id: Position,
    /// Its number.
    pub number: MessageNumber,
    /// Whether it is still there.
    pub state: MessageState,
}

/// Whether a message is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// It is.
    Present {
        /// Its id: the position of its MessageCreated event.
        id: Position,
        /// Events about it.
        version: Version,
        /// When it was created.
        created_at: Timestamp,
    },
    /// It was deleted.
    Deleted,
}

/// What the projection made of a stretch of the log.
///
/// A row is in one set at most: what was created and then changed inside the stretch is new, with its last content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadModelChanges {
    /// The log that the stretch is of.
    pub log: LogId,
    /// Where the stretch starts: the checkpoint must be here.
    pub from: Position,
    /// Where it ends: the checkpoint moves here.
    pub to: Position,
    /// Apps that were not stored before, in order of position.
    pub new_apps: Vec<AppRow>,
    /// Stored apps with another content, told by [`AppRow::created_position`].
    pub changed_apps: Vec<AppRow>,
    /// Chats that were not stored before, in order of position.
    pub new_chats: Vec<StoredChat>,
    /// Stored chats with another content, told by [`StoredChat::id`].
    pub changed_chats: Vec<StoredChat>,
    /// Messages that were not stored before, in order of position.
    pub new_messages: Vec<NewMessage>,
    /// Stored messages with another text.
    pub edited_messages: Vec<EditedMessage>,
    /// Messages that are gone.
    pub deleted_messages: Vec<Tombstone>,
    /// Events to park, in order of position.
    pub new_dead_letters: Vec<DeadLetter>,
    /// Letters to take away: their events are applied now.
    pub resolved_dead_letters: Vec<Position>,
    /// Stored letters with another reason or state.
    pub changed_dead_letters: Vec<DeadLetter>,
}

impl ReadModelChanges {
    /// No changes between two positions: only the checkpoint moves.
    pub fn empty(log: LogId, from: Position, to: Position) -> Self {
        Self {
            log,
            from,
            to,
            new_apps: Vec::new(),
            changed_apps: Vec::new(),
            new_chats: Vec::new(),
            changed_chats: Vec::new(),
            new_messages: Vec::new(),
            edited_messages: Vec::new(),
            deleted_messages: Vec::new(),
            new_dead_letters: Vec::new(),
            resolved_dead_letters: Vec::new(),
            changed_dead_letters: Vec::new(),
        }
    }
}

/// A message to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Its id: the position of its MessageCreated event.
    pub id: Position,
    /// The chat's id.
    pub chat_id: Position,
    /// Its number.
    pub number: MessageNumber,
    /// Its text.
    pub body: String,
    /// Events about it.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last edited, or else created.
    pub updated_at: Timestamp,
}

/// A stored message's new content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditedMessage {
    /// Its id.
    pub id: Position,
    /// Its text.
    pub body: String,
    /// Events about it.
    pub version: Version,
    /// When it was last edited.
    pub updated_at: Timestamp,
}

/// What stays of a deleted message: all but its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The message's id.
    pub id: Position,
    /// The chat's id.
    pub chat_id: Position,
    /// Its number.
    pub number: MessageNumber,
    /// Whether the message was stored before, and so is to be taken away.
    pub stored: bool,
    /// Events about it, the deletion included.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Timestamp,
}
