//! Commands, their outcomes and their errors.

use std::error::Error as StdError;
use std::sync::Arc;

use chat_domain::{
    AppName, AppToken, ChatNumber, DataChange, Event, MessageBody, MessageData, MessageNumber, Position,
    Precondition, Sender, StreamId, app, chat,
};
use chat_ports::event_store::TruncatedStream;
use thiserror::Error;

/// A change that a client requests. It holds no numbers of new chats and messages: the writer assigns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Command {
    /// Create an app under a newly generated token.
    CreateApp { app: AppToken, name: AppName },
    /// Rename an app.
    RenameApp { app: AppToken, name: AppName, precondition: Precondition },
    /// Create the next chat of an app.
    CreateChat { app: AppToken },
    /// Create the next message of a chat.
    CreateMessage {
        app: AppToken,
        chat: ChatNumber,
        body: MessageBody,
        sender: Option<Sender>,
        data: Option<MessageData>,
    },
    /// Replace the body of a message, and possibly its data.
    EditMessage {
        app: AppToken,
        chat: ChatNumber,
        message: MessageNumber,
        body: MessageBody,
        data: DataChange,
        precondition: Precondition,
    },
    /// Delete a message.
    DeleteMessage { app: AppToken, chat: ChatNumber, message: MessageNumber, precondition: Precondition },
}

impl Command {
    /// The names of all commands.
    pub(crate) const NAMES: [&str; 6] =
        ["CreateApp", "RenameApp", "CreateChat", "CreateMessage", "EditMessage", "DeleteMessage"];

    /// The command's name, as it appears in event metadata and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateApp { .. } => "CreateApp",
            Self::RenameApp { .. } => "RenameApp",
            Self::CreateChat { .. } => "CreateChat",
            Self::CreateMessage { .. } => "CreateMessage",
            Self::EditMessage { .. } => "EditMessage",
            Self::DeleteMessage { .. } => "DeleteMessage",
        }
    }

    /// The stream that the command's event belongs to.
    pub fn stream(&self) -> StreamId {
        match self {
            Self::CreateApp { app, .. } | Self::RenameApp { app, .. } | Self::CreateChat { app } => {
                StreamId::App(*app)
            }
            Self::CreateMessage { app, chat, .. }
            | Self::EditMessage { app, chat, .. }
            | Self::DeleteMessage { app, chat, .. } => StreamId::Chat(*app, *chat),
        }
    }

    /// Replaces the token of a new app by the one that an earlier attempt generated, if there is one.
    pub(crate) fn with_app_token(self, earlier_token: Option<AppToken>) -> Self {
        match (self, earlier_token) {
            (Self::CreateApp { name, .. }, Some(app)) => Self::CreateApp { app, name },
            (command, _) => command,
        }
    }

    /// Whether the command takes a number from a counter.
    pub(crate) fn takes_number(&self) -> bool {
        matches!(self, Self::CreateChat { .. } | Self::CreateMessage { .. })
    }

    /// An estimate of the event's payload in bytes, at least as large as the payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        // Field names, quotes and numbers: all of the payload's JSON but the texts and the data.
        const FRAME_BYTES: usize = 128;
        FRAME_BYTES
            + match self {
                Self::CreateApp { name, .. } | Self::RenameApp { name, .. } => {
                    escaped_json_len(name.as_str())
                }
                Self::CreateMessage { body, sender, data, .. } => {
                    escaped_json_len(body.as_str())
                        + sender.as_ref().map_or(0, sender_json_len)
                        + data.as_ref().map_or(0, |data| data.as_str().len())
                }
                Self::EditMessage { body, data, .. } => {
                    escaped_json_len(body.as_str())
                        + match data {
                            DataChange::Replace(data) => data.as_str().len(),
                            DataChange::Keep | DataChange::Remove => 0,
                        }
                }
                Self::CreateChat { .. } | Self::DeleteMessage { .. } => 0,
            }
    }

    /// Whether the decision depends on which messages were edited or deleted.
    pub(crate) fn needs_full_state(&self) -> bool {
        matches!(self, Self::EditMessage { .. } | Self::DeleteMessage { .. })
    }
}

/// The length of a text in JSON, in bytes and without quotes.
fn escaped_json_len(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => "\\u0000".len(),
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

/// The length of the texts of a sender in JSON, in bytes and without quotes.
fn sender_json_len(Sender { id, name }: &Sender) -> usize {
    escaped_json_len(id.as_str()) + name.as_ref().map_or(0, |name| escaped_json_len(name.as_str()))
}

/// The outcome of a command that was executed, by this call or by an earlier one with the same idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutcome {
    /// The event, durable in the log.
    pub event: Event,
    /// The event's position in the log, or one shortly after it: a reader at this position sees the event.
    pub position: Position,
    /// The app that the event belongs to. For a new app, this is the token in the log, which may differ from the one
    /// that a repeated command brought along.
    pub app: AppToken,
    /// Whether this call appended the event.
    pub execution: ExecutionKind,
}

/// Whether a command was executed or an earlier execution was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionKind {
    /// The event was appended for this command.
    New,
    /// An earlier execution under the same key was found; nothing was appended.
    Replayed,
}

/// The reason why a command failed.
#[derive(Clone, Debug, Error)]
pub enum CommandError {
    /// A business rule rejects the command. Nothing was appended.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The writer's queue is full, or the command was retried for too long. Nothing was appended.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The event store can't be read or written, or is damaged. Nothing was appended.
    #[error("the event store is not available")]
    EventStoreUnavailable(#[source] Cause),
    /// The counters can't be reached. Nothing was appended.
    #[error("the counters are not available")]
    CountersUnavailable(#[source] Cause),
    /// The store of idempotency keys can't be reached. Nothing was appended.
    #[error("the store of idempotency keys is not available")]
    IdempotencyStoreUnavailable(#[source] Cause),
    /// Another command with the same idempotency key is running, or may be. This call appended nothing.
    #[error("a command with this idempotency key is still running")]
    KeyInFlight,
    /// The idempotency key was used with another payload. This call appended nothing.
    #[error("this idempotency key was used with another payload")]
    KeyReused,
    /// The event store's response was lost: the event may or may not be in the log.
    #[error("the event store's response was lost")]
    OutcomeUnknown(#[source] Cause),
    /// The stream was deleted or truncated in the event store. This call appended nothing, but an earlier call with the
    /// same key may have appended an event that is lost now.
    #[error("the event store has lost events of the stream")]
    StreamTruncated(#[source] Arc<TruncatedStream>),
    /// An event of the stream can't be read, and no operator has discarded it. This call appended nothing, but an
    /// earlier call with the same key may have appended that event.
    #[error("an event of the stream can't be read")]
    UnreadableEvent(#[source] Cause),
    /// The log or a stored answer is inconsistent, a task panicked, or the writer has stopped. The event may be in the
    /// log.
    #[error("the command could not be decided")]
    Internal(#[source] Cause),
}

/// The error of an adapter; shared, because one failure may affect many commands.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// The reason why a business rule rejects a command.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    /// No app has the token.
    #[error("no app has this token")]
    AppNotFound,
    /// The app has no such chat.
    #[error("the app has no such chat")]
    ChatNotFound,
    /// The chat has no such message.
    #[error("the chat has no such message")]
    MessageNotFound,
    /// The message was deleted.
    #[error("the message was deleted")]
    MessageDeleted,
    /// The precondition does not hold for the current version.
    #[error("the precondition does not hold")]
    PreconditionFailed,
    /// The token that was generated for an app is taken. With 210 random bits, this does not happen in practice.
    #[error("the app's token is taken")]
    TokenTaken,
    /// The number does not follow the last one in the log.
    #[error("the number does not follow from the last one")]
    NumberOutOfOrder,
}

impl From<app::Rejection> for Rejection {
    fn from(rejection: app::Rejection) -> Self {
        match rejection {
            app::Rejection::AlreadyExists => Self::TokenTaken,
            app::Rejection::NotFound => Self::AppNotFound,
            app::Rejection::PreconditionFailed(_) => Self::PreconditionFailed,
            app::Rejection::NumberOutOfOrder { .. } => Self::NumberOutOfOrder,
        }
    }
}

impl From<chat::Rejection> for Rejection {
    fn from(rejection: chat::Rejection) -> Self {
        match rejection {
            chat::Rejection::NotFound(_) => Self::MessageNotFound,
            chat::Rejection::Deleted(_) => Self::MessageDeleted,
            chat::Rejection::PreconditionFailed(_) => Self::PreconditionFailed,
            chat::Rejection::NumberOutOfOrder { .. } => Self::NumberOutOfOrder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_the_json_length_that_serde_writes() {
        for text in ["", "Hi", "Grüße 🦊", "\"\\\n\r\t\u{8}\u{c}", "\u{1}\u{1f}\u{7f}\u{2028}/"] {
            let written = serde_json::to_string(text).unwrap();
            assert_eq!(escaped_json_len(text) + "\"\"".len(), written.len(), "{written}");
        }
    }
}
