//! The subject of an audit command: an app, a chat or a message.

use chat_domain::{ChatNumber, MessageNumber};
use chat_operations::audit::{Existence, Subject, SubjectKind, SubjectName};
use chat_ports::event_store::EventStore;
use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::filter::resolve_app;
use crate::operator::terminal_text::abbreviated_token;

/// The subject of an audit command.
#[derive(Subcommand)]
pub(crate) enum SubjectCommand {
    /// An app
    #[command(after_help = "Example:\n  … app 9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT --data-dir ./data")]
    App(AppArgs),
    /// A chat of an app
    #[command(after_help = "Example:\n  … chat 9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT 1 --data-dir ./data")]
    Chat(ChatArgs),
    /// A message of a chat
    #[command(
        after_help = "Example:\n  … message 9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT 1 17 --data-dir ./data"
    )]
    Message(MessageArgs),
}

/// An app.
#[derive(Args)]
pub(crate) struct AppArgs {
    /// The app: its token, the beginning of its token, or its name
    #[arg(value_name = "APP")]
    app: String,
    #[command(flatten)]
    common: CommonArgs,
}

/// A chat.
#[derive(Args)]
pub(crate) struct ChatArgs {
    /// The app: its token, the beginning of its token, or its name
    #[arg(value_name = "APP")]
    app: String,
    /// The chat's number
    #[arg(value_name = "CHAT", value_parser = ChatNumber::parse)]
    chat: ChatNumber,
    #[command(flatten)]
    common: CommonArgs,
}

/// A message.
#[derive(Args)]
pub(crate) struct MessageArgs {
    /// The app: its token, the beginning of its token, or its name
    #[arg(value_name = "APP")]
    app: String,
    /// The chat's number
    #[arg(value_name = "CHAT", value_parser = ChatNumber::parse)]
    chat: ChatNumber,
    /// The message's number
    #[arg(value_name = "MESSAGE", value_parser = MessageNumber::parse)]
    message: MessageNumber,
    #[command(flatten)]
    common: CommonArgs,
}

impl SubjectCommand {
    pub(super) fn common(&self) -> &CommonArgs {
        match self {
            Self::App(app) => &app.common,
            Self::Chat(chat) => &chat.common,
            Self::Message(message) => &message.common,
        }
    }

    /// Finds the app that the command names, and returns the subject.
    pub(super) async fn subject(&self, log: &dyn EventStore) -> Result<Subject, Failure> {
        Ok(match self {
            Self::App(AppArgs { app, .. }) => Subject::App(resolve_app(log, app).await?),
            Self::Chat(ChatArgs { app, chat, .. }) => Subject::Chat(resolve_app(log, app).await?, *chat),
            Self::Message(MessageArgs { app, chat, message, .. }) => {
                Subject::Message(resolve_app(log, app).await?, *chat, *message)
            }
        })
    }
}

/// Describes the subject of a command, with an abbreviated token.
pub(super) fn describe_subject(name: &SubjectName) -> String {
    let app = abbreviated_token(&name.app_token);
    let (chat, message) = (name.chat_number.unwrap_or_default(), name.message_number.unwrap_or_default());
    match name.kind {
        SubjectKind::App => format!("app {app}"),
        SubjectKind::Chat => format!("chat {chat} of app {app}"),
        SubjectKind::Message => format!("message {message} of chat {chat} of app {app}"),
    }
}

/// Returns the word for the existence of a subject.
pub(super) fn describe_existence(existence: Existence) -> &'static str {
    match existence {
        Existence::Absent => "absent",
        Existence::Present => "present",
        Existence::Deleted => "deleted",
    }
}
