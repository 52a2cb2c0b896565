//! The write side of the port: the rows that a projection loads before it folds events, and the changes that it
//! commits.

use async_trait::async_trait;
use chat_domain::{
    AppToken, ChatNumber, DataChange, MessageData, MessageNumber, Position, Sender, Timestamp, Version,
};

use super::{AppRow, ChatRow, ReadModelError};
use crate::dead_letter::{DeadLetter, DeadLetterCounts};
use crate::event_store::LogId;
use crate::projection_checkpoint::ProjectionCheckpoint;

/// The write side of the read model, for its projection.
///
/// Rows are loaded and written as sets, so that an adapter needs one round trip or one prepared statement for each set
/// and not for each row. A load returns the rows that exist, in any order.
#[async_trait]
pub trait ReadModelWriter: Send + Sync + 'static {
    /// Returns the checkpoint.
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError>;

    /// Returns the names of blocked streams, each once.
    async fn blocked_streams(&self) -> Result<Vec<String>, ReadModelError>;

    /// Returns the counts of dead letters.
    async fn dead_letter_counts(&self) -> Result<DeadLetterCounts, ReadModelError>;

    /// Returns the dead letter of the event at this position.
    async fn dead_letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError>;

    /// Returns the first `limit` pending dead letters of a stream, by position.
    async fn dead_letters_of_stream(
        &self,
        stream: String,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadModelError>;

    /// Loads the rows of these apps.
    async fn apps(&self, tokens: Vec<AppToken>) -> Result<Vec<AppRow>, ReadModelError>;

    /// Loads the rows of these chats.
    async fn chats(&self, keys: Vec<ChatKey>) -> Result<Vec<StoredChat>, ReadModelError>;

    /// Loads these messages, each identified by the id of its chat and the number of the message.
    async fn messages(
        &self,
        keys: Vec<(Position, MessageNumber)>,
    ) -> Result<Vec<StoredMessage>, ReadModelError>;

    /// Stores the changes and moves the checkpoint, in one transaction. Returns [`ReadModelError::CheckpointMoved`] and
    /// stores nothing if the checkpoint is not at [`ReadModelChanges::from`], or is of another log than
    /// [`ReadModelChanges::log`].
    async fn commit(&self, changes: ReadModelChanges) -> Result<(), ReadModelError>;

    /// Replaces the log id of the checkpoint: the log continues as a new incarnation. Returns
    /// [`ReadModelError::CheckpointMoved`] and stores nothing if the checkpoint is not `from`.
    async fn adopt_log(&self, from: ProjectionCheckpoint, log: LogId) -> Result<(), ReadModelError>;
}

/// The identity of a chat in commands and queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChatKey {
    /// The app's token.
    pub app: AppToken,
    /// The chat's number in the app.
    pub number: ChatNumber,
}

/// A stored chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChat {
    /// The chat's id: the position of its ChatCreated event.
    pub id: Position,
    /// The app's id: the position of the AppCreated event.
    pub app_id: Position,
    /// The app's token.
    pub app: AppToken,
    /// The number of the message created last, even if it is deleted.
    pub last_message: Option<MessageNumber>,
    /// The row that queries return.
    pub row: ChatRow,
}

impl StoredChat {
    /// The chat's identity in commands and queries.
    pub fn key(&self) -> ChatKey {
        ChatKey { app: self.app, number: self.row.number }
    }
}

/// The part of a stored message that folding an edit or a deletion needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// The chat's id.
    pub chat_id: Position,
    /// The message's number.
    pub number: MessageNumber,
    /// Whether the message exists or was deleted.
    pub state: MessageState,
}

/// Whether a message exists or was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// The message exists.
    Present {
        /// The message's id: the position of its MessageCreated event.
        id: Position,
        /// The number of the message's events.
        version: Version,
        /// The time of creation.
        created_at: Timestamp,
    },
    /// The message was deleted.
    Deleted,
}

/// The changes of one batch of events.
///
/// A row is in at most one set: a row that was created and then changed inside the batch is new, with its last content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadModelChanges {
    /// The log of the events.
    pub log: LogId,
    /// The checkpoint before the batch.
    pub from: Position,
    /// The checkpoint after the batch.
    pub to: Position,
    /// New apps, in order of position.
    pub new_apps: Vec<AppRow>,
    /// Changed apps, identified by [`AppRow::created_position`].
    pub changed_apps: Vec<AppRow>,
    /// New chats, in order of position.
    pub new_chats: Vec<StoredChat>,
    /// Changed chats, identified by [`StoredChat::id`].
    pub changed_chats: Vec<StoredChat>,
    /// New messages, in order of position.
    pub new_messages: Vec<NewMessage>,
    /// Edited messages.
    pub edited_messages: Vec<EditedMessage>,
    /// Deleted messages.
    pub deleted_messages: Vec<Tombstone>,
    /// New dead letters, in order of position.
    pub new_dead_letters: Vec<DeadLetter>,
    /// Dead letters to remove, since their events are applied now.
    pub resolved_dead_letters: Vec<Position>,
    /// Stored dead letters whose reason or state changed.
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
    /// The message's id: the position of its MessageCreated event.
    pub id: Position,
    /// The chat's id.
    pub chat_id: Position,
    /// The message's number.
    pub number: MessageNumber,
    /// The message's text.
    pub body: String,
    /// The sender, if the application named one.
    pub sender: Option<Sender>,
    /// The application's data, if there is any.
    pub data: Option<MessageData>,
    /// The number of the message's events.
    pub version: Version,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last edit, or of creation if the message was never edited.
    pub updated_at: Timestamp,
}

/// The new content of a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditedMessage {
    /// The message's id.
    pub id: Position,
    /// The new text.
    pub body: String,
    /// The change of the data.
    pub data: DataChange,
    /// The number of the message's events.
    pub version: Version,
    /// The time of the last edit.
    pub updated_at: Timestamp,
}

/// The remains of a deleted message: everything but its text, its sender and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The message's id.
    pub id: Position,
    /// The chat's id.
    pub chat_id: Position,
    /// The message's number.
    pub number: MessageNumber,
    /// Whether the message has a row to remove. False if it was created in this same batch.
    pub message_is_stored: bool,
    /// The number of the message's events, including the deletion.
    pub version: Version,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the deletion.
    pub deleted_at: Timestamp,
}
