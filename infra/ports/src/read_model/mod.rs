//! The read model port: apps, chats and messages as rows, folded from the log.
//!
//! Queries use [`ReadModel`], the projection uses [`ReadModelWriter`], and [`ReadModelStorage`] opens both. Promises of
//! every adapter:
//!
//! - **One snapshot per query.** A call reads at one position of the log, and returns that position with its result
//!   ([`ReadModel::dead_letters`] returns no position).
//! - **Effectively once.** [`ReadModelWriter::commit`] moves the checkpoint in the same transaction as the rows,
//!   and changes nothing if the checkpoint is not where the changes start.
//! - **Durability is optional.** A crash may lose the last commits, rows and checkpoint together; the projector folds
//!   their events again.
//! - **Ids from the log.** The internal id of an app, chat or message is the position of its creation event: the same
//!   in every adapter and after every rebuild.
//! - **Retryable.** All errors but [`ReadModelError::Damaged`] are worth a retry.

mod storage;
mod writer;

use std::error::Error as StdError;

use async_trait::async_trait;
use chat_domain::{
    AppName, AppToken, ChatNumber, MessageData, MessageNumber, Position, Sender, SenderId, Timestamp, Version,
};
use thiserror::Error;

use crate::content_digest::ContentDigest;
use crate::dead_letter::{DeadLetter, DeadLetterPage, DeadLetterQuery};
use crate::projection_checkpoint::ProjectionCheckpoint;
use crate::projection_contents::ProjectionContents;

pub use storage::{ReadModelStorage, StorageLock};
pub use writer::{
    ChatKey, EditedMessage, MessageState, NewMessage, ReadModelChanges, ReadModelWriter, StoredChat,
    StoredMessage, Tombstone,
};

/// The query side of the read model.
#[async_trait]
pub trait ReadModel: Send + Sync + 'static {
    /// Returns the position up to which the log is folded in.
    async fn position(&self) -> Result<Position, ReadModelError>;

    /// Returns the log that is folded in, and the position up to which it is.
    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError>;

    /// Returns an app.
    async fn app(&self, token: AppToken) -> Result<Snapshot<Result<AppRow, Missing>>, ReadModelError>;

    /// Lists up to `limit` apps in the order of their creation: those with an [`AppRow::created_position`] beyond
    /// `after`.
    async fn apps(&self, after: Position, limit: usize) -> Result<Snapshot<Vec<AppRow>>, ReadModelError>;

    /// Returns a chat.
    async fn chat(
        &self,
        token: AppToken,
        number: ChatNumber,
    ) -> Result<Snapshot<Result<ChatRow, Missing>>, ReadModelError>;

    /// Lists up to `limit` chats of an app in the order of their numbers: those with a number above `after`.
    async fn chats(
        &self,
        token: AppToken,
        after: Option<ChatNumber>,
        limit: usize,
    ) -> Result<Snapshot<Result<Vec<ChatRow>, Missing>>, ReadModelError>;

    /// Returns a message; `Err(Missing::Deleted)` if it was deleted.
    async fn message(
        &self,
        token: AppToken,
        chat: ChatNumber,
        number: MessageNumber,
    ) -> Result<Snapshot<Result<MessageRow, Missing>>, ReadModelError>;

    /// Returns a page of the messages of a chat, without deleted ones.
    async fn messages(
        &self,
        token: AppToken,
        chat: ChatNumber,
        window: MessageWindow,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError>;

    /// Returns a page of the messages of a chat that have this sender, without deleted ones. The messages of other
    /// senders in the chat, however many, do not slow it down.
    async fn messages_of_sender(
        &self,
        token: AppToken,
        chat: ChatNumber,
        sender: SenderId,
        window: MessageWindow,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError>;

    /// Returns the first `limit` pending dead letters by position, and the number of all pending ones.
    async fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), ReadModelError>;

    /// Returns a page of pending or discarded dead letters, and the counts of all dead letters.
    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ReadModelError>;

    /// Computes the digest of all rows, tombstones and dead letters: equal for read models of the same log at the same
    /// position, in every adapter. Reads the whole read model without blocking queries or the projector.
    async fn digest(&self) -> Result<Snapshot<ContentDigest>, ReadModelError>;

    /// Computes what [`digest`](Self::digest) does, and also the hash of each row, tombstone and dead letter.
    async fn contents(&self) -> Result<Snapshot<ProjectionContents>, ReadModelError>;
}

/// A value as of one position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<T> {
    /// The position up to which the log was folded in.
    pub position: Position,
    /// The value.
    pub value: T,
}

/// The part of a query's path that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No app has the token.
    App,
    /// The app has no such chat.
    Chat,
    /// The chat has no such message.
    Message,
    /// The message was deleted.
    Deleted,
}

/// An app's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRow {
    /// The position of the app's AppCreated event, by which apps are ordered.
    pub created_position: Position,
    /// The app's token.
    pub token: AppToken,
    /// The app's name.
    pub name: AppName,
    /// The number of chats in the app.
    pub chat_count: u64,
    /// The number of the chat created last. May exceed `chat_count` if a creation event was discarded.
    pub last_chat: Option<ChatNumber>,
    /// The number of events in the app's stream.
    pub version: Version,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last event in the app's stream.
    pub updated_at: Timestamp,
}

/// A chat's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRow {
    /// The chat's number in the app.
    pub number: ChatNumber,
    /// The number of messages that are not deleted.
    pub message_count: u64,
    /// The number of events in the chat's stream.
    pub version: Version,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last event in the chat's stream, or of creation if the stream is empty.
    pub updated_at: Timestamp,
}

/// A message's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// The message's number in the chat.
    pub number: MessageNumber,
    /// The message's text.
    pub body: String,
    /// The sender, if the application named one.
    pub sender: Option<Sender>,
    /// The application's data, if there is any.
    pub data: Option<MessageData>,
    /// The number of the message's events: 1 when created, and one more with each edit.
    pub version: Version,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last edit, or of creation if the message was never edited.
    pub updated_at: Timestamp,
}

/// The messages of a chat that a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageWindow {
    /// The newest messages.
    Newest,
    /// The oldest messages.
    Oldest,
    /// The last messages before this number.
    Before(MessageNumber),
    /// The first messages after this number.
    After(MessageNumber),
    /// The messages around this number, with the message of this number if it exists. About half of the page is before
    /// the number.
    Around(MessageNumber),
}

/// A page of messages, oldest first. It ends early at [`MAX_PAGE_BYTES`](crate::MAX_PAGE_BYTES) of text and data. If
/// the window has more messages than fit, the page holds those nearest to the window's number. If the window has no
/// number, the page holds the newest or the oldest messages of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessagePage {
    /// The messages.
    pub messages: Vec<MessageRow>,
    /// Whether there are messages older than the page, or older than the window if the page is empty.
    pub has_older: bool,
    /// Whether there are messages newer than the page, or newer than the window if the page is empty.
    pub has_newer: bool,
}

/// An error of reading or writing the read model.
#[derive(Debug, Error)]
pub enum ReadModelError {
    /// The read model is unreachable or busy; worth a retry.
    #[error("the read model is unavailable")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// The stored data is invalid. A retry fails in the same way; a rebuild repairs the read model.
    #[error("the read model is damaged")]
    Damaged(#[source] Box<dyn StdError + Send + Sync>),
    /// Another projector moved the checkpoint; load it and continue from there.
    #[error("another projector moved the checkpoint")]
    CheckpointMoved,
    /// Another projector has the read model open for writing; retry after that one has ended.
    #[error("another projector writes the read model")]
    InUse,
}

impl ReadModelError {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Damaged(_))
    }
}
