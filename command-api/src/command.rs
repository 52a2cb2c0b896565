//! What clients ask for, and what becomes of it.

use std::error::Error as StdError;
use std::sync::Arc;

use chat_domain::{
    AppName, AppToken, ChatNumber, Event, MessageBody, MessageNumber, Position, Precondition, StreamId, app,
    chat,
};
use thiserror::Error;

/// A change that a client asks for. Numbers are not in it: the writer hands them out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Command {
    /// Create an app under a token that was just drawn.
    CreateApp { app: AppToken, name: AppName },
    /// Give an app another name.
    RenameApp { app: AppToken, name: AppName, precondition: Precondition },
    /// Create an app's next chat.
    CreateChat { app: AppToken },
    /// Create a chat's next message.
    CreateMessage { app: AppToken, chat: ChatNumber, body: MessageBody },
    /// Give a message another body.
    EditMessage {
        app: AppToken,
        chat: ChatNumber,
        message: MessageNumber,
        body: MessageBody,
        precondition: Precondition,
    },
    /// Take a message away.
    DeleteMessage { app: AppToken, chat: ChatNumber, message: MessageNumber },
}

impl Command {
    /// The command's name, as events' metadata and metrics show it.
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

    /// The command with the token that was drawn for a new app before, where there was one.
    pub(crate) fn with_app_token(self, drawn: Option<AppToken>) -> Self {
        match (self, drawn) {
            (Self::CreateApp { name, .. }, Some(app)) => Self::CreateApp { app, name },
            (command, _) => command,
        }
    }

    /// Whether the command takes a number from a counter.
    pub(crate) fn takes_number(&self) -> bool {
        matches!(self, Self::CreateChat { .. } | Self::CreateMessage { .. })
    }

    /// About how many bytes the event's payload takes, rather more than less.
    pub(crate) fn payload_bytes(&self) -> usize {
        const FIELDS: usize = 64;
        FIELDS
            + match self {
                Self::CreateApp { name, .. } | Self::RenameApp { name, .. } => {
                    escaped_json_len(name.as_str())
                }
                Self::CreateMessage { body, .. } | Self::EditMessage { body, .. } => {
                    escaped_json_len(body.as_str())
                }
                Self::CreateChat { .. } | Self::DeleteMessage { .. } => 0,
            }
    }

    /// Whether deciding needs to know which messages were edited or deleted.
    pub(crate) fn needs_full_state(&self) -> bool {
        matches!(self, Self::EditMessage { .. } | Self::DeleteMessage { .. })
    }
}

/// How many bytes a text takes in JSON.
fn escaped_json_len(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => "\\u0000".len(),
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedEvent {
    /// The event, durable in the log.
    pub event: Event,
    /// A position of the log at or shortly after the event's: a reader that has got here sees the event.
    pub position: Position,
}

/// A command that was carried out, now or before under the same idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutcome {
    /// What was recorded.
    pub appended: AppendedEvent,
    /// The app that it belongs to: for a new one, the token that was recorded and not another one drawn since.
    pub app: AppToken,
    /// Whether it was this command that did it.
    pub execution: ExecutionKind,
}

/// Whether a command was carried out now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionKind {
    /// Now: the event was appended for this command.
    New,
    /// Before: nothing was appended.
    Replayed,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, Error)]
pub enum CommandError {
    /// The rules refuse it. Nothing was appended.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too many commands wait already. Nothing was appended.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The event store can't be reached. Nothing was appended.
    #[error("the event store is not available")]
    EventStoreUnavailable(#[source] Cause),
    /// The counters can't be reached. Nothing was appended.
    #[error("the counters are not available")]
    CountersUnavailable(#[source] Cause),
    /// The store of idempotency keys can't be reached. Nothing was appended.
    #[error("the store of idempotency keys is not available")]
    IdempotencyStoreUnavailable(#[source] Cause),
    /// A command with the same idempotency key is being carried out, or may be. Nothing was appended.
    #[error("a command with this idempotency key is still running")]
    KeyInFlight,
    /// The idempotency key came with another payload before. Nothing was appended.
    #[error("this idempotency key came with another payload before")]
    KeyReused,
    /// The event store's answer was lost: the event may be in the log or not.
    #[error("the event store's answer was lost")]
    OutcomeUnknown(#[source] Cause),
    /// The log contradicts itself, or the writer is gone; in that case the event may be in the log.
    #[error("the command could not be decided")]
    Internal(#[source] Cause),
}

/// What an adapter reported; shared, since one failure may meet many commands.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// Why the rules refuse a command.
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
    /// `If-Match` names another version.
    #[error("it has changed since the version that If-Match names")]
    PreconditionFailed,
    /// The token that was drawn for an app is taken: not in this universe's lifetime.
    #[error("the app's token is taken")]
    TokenTaken,
    /// A number that was handed out does not follow from the log; the writer tries again.
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
    fn a_text_takes_as_many_bytes_as_serde_writes() {
        for text in ["", "Hi", "Grüße 🦊", "\"\\\n\r\t\u{8}\u{c}", "\u{1}\u{1f}\u{7f}\u{2028}/"] {
            let written = serde_json::to_string(text).unwrap();
            assert_eq!(escaped_json_len(text) + "\"\"".len(), written.len(), "{written}");
        }
    }
}
