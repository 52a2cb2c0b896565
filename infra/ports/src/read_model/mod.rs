//! The read model port: apps, chats and messages as rows, folded from the log.
//!
//! [`ReadModel`] is what queries read; [`ReadModelWriter`] is what the projection writes. Promises of every adapter:
//!
//! - **One snapshot a query.** All that one call returns is as of one position, and the call returns that position.
//! - **Exactly once in effect.** [`ReadModelWriter::commit`] moves the checkpoint in the same transaction as the rows,
//!   and fails without a trace where the checkpoint is not where the changes start.
//! - **Ids from the log.** Apps, chats and messages are told apart inside by the position of the event that created
//!   them: the same in every adapter and after every rebuild.

mod writer;

use std::error::Error as StdError;

use async_trait::async_trait;
use chat_domain::{AppName, AppToken, ChatNumber, MessageNumber, Position, Timestamp, Version};
use thiserror::Error;

use crate::content_digest::ContentDigest;
use crate::dead_letter::{DeadLetter, DeadLetterPage, DeadLetterQuery};
use crate::projection_contents::ProjectionContents;

pub use writer::{
    ChatKey, EditedMessage, MessageState, NewMessage, ReadModelChanges, ReadModelWriter, StoredChat,
    StoredMessage, Tombstone,
};

/// What queries read.
#[async_trait]
pub trait ReadModel: Send + Sync + 'static {
    /// The position up to which the log is folded in.
    async fn position(&self) -> Result<Position, ReadModelError>;

    /// An app.
    async fn app(&self, token: AppToken) -> Result<Snapshot<Result<AppRow, Missing>>, ReadModelError>;

    /// Up to `limit` apps in the order of their creation, after `after` ([`AppRow::created_position`]).
    async fn apps(&self, after: Position, limit: usize) -> Result<Snapshot<Vec<AppRow>>, ReadModelError>;

    /// A chat.
    async fn chat(
        &self,
        token: AppToken,
        number: ChatNumber,
    ) -> Result<Snapshot<Result<ChatRow, Missing>>, ReadModelError>;

    /// Up to `limit` chats of an app in the order of their numbers, after `after`.
    async fn chats(
        &self,
        token: AppToken,
        after: Option<ChatNumber>,
        limit: usize,
    ) -> Result<Snapshot<Result<Vec<ChatRow>, Missing>>, ReadModelError>;

    /// A message; `Err(Missing::Deleted)` where it was deleted.
    async fn message(
        &self,
        token: AppToken,
        chat: ChatNumber,
        number: MessageNumber,
    ) -> Result<Snapshot<Result<MessageRow, Missing>>, ReadModelError>;

    /// A page of a chat's messages, deleted ones left out.
    async fn messages(
        &self,
        token: AppToken,
        chat: ChatNumber,
        window: MessageWindow,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError>;

    /// Events that are parked, the first `limit` of them by position, and how many there are in all.
    async fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), ReadModelError>;

    /// A page of events that are parked or were discarded, and how many of each there are.
    async fn letters(&self, list: DeadLetterQuery) -> Result<DeadLetterPage, ReadModelError>;

    /// The digest of all rows, tombstones and dead letters: equal for read models folded from the same log up to
    /// the same position, whatever the adapter. Reads everything, beside the queries and the projector.
    async fn digest(&self) -> Result<Snapshot<ContentDigest>, ReadModelError>;

    /// The same digest, and what each row, tombstone and parked event hashes to.
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

/// What a query named and is not there.
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
    /// The position of its AppCreated event: its place among the apps.
    pub created_position: Position,
    /// Its token.
    pub token: AppToken,
    /// Its name.
    pub name: AppName,
    /// Chats in it.
    pub chat_count: u64,
    /// The number of the chat created last. Numbers whose creation was discarded count, so there may be fewer chats.
    pub last_chat: Option<ChatNumber>,
    /// Events in its stream.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the last event of its stream was recorded.
    pub updated_at: Timestamp,
}

/// A chat's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRow {
    /// Its number.
    pub number: ChatNumber,
    /// Messages that exist: created and not deleted.
    pub message_count: u64,
    /// Events in its stream.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the last event of its stream was recorded, or else when it was created.
    pub updated_at: Timestamp,
}

/// A message's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Its number.
    pub number: MessageNumber,
    /// Its text.
    pub body: String,
    /// Events about it: 1 as created, one more with each edit.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last edited, or else created.
    pub updated_at: Timestamp,
}

/// Which messages of a chat a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageWindow {
    /// The newest.
    Newest,
    /// The oldest.
    Oldest,
    /// The last ones before this number.
    Before(MessageNumber),
    /// The first ones after this number.
    After(MessageNumber),
    /// Those around this number, itself included where it exists: about half of the page before it.
    Around(MessageNumber),
}

/// A page of messages, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessagePage {
    /// The messages.
    pub messages: Vec<MessageRow>,
    /// Whether the chat has older messages than the page's first; where the page is empty, than its window.
    pub has_older: bool,
    /// Whether the chat has newer messages than the page's last; where the page is empty, than its window.
    pub has_newer: bool,
}

/// Why the read model could not be read or written.
#[derive(Debug, Error)]
pub enum ReadModelError {
    /// Out of reach or busy; worth a retry.
    #[error("the read model can't be reached now")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// What is stored can't be understood; a retry finds the same, a rebuild helps.
    #[error("the read model is damaged")]
    Damaged(#[source] Box<dyn StdError + Send + Sync>),
    /// Another projector moved the checkpoint; load it and go on from there.
    #[error("another projector moved the checkpoint")]
    CheckpointMoved,
    /// Another projector has the read model open for writing; it is free again when that one ends.
    #[error("another projector writes the read model")]
    InUse,
}

impl ReadModelError {
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Damaged(_))
    }
}
