//! Subjects of audit queries and comparisons: an app, a chat or a message.

use std::sync::Arc;

use chat_domain::{AppToken, ChatNumber, MessageNumber, StreamId};
use serde::Serialize;
use utoipa::ToSchema;

/// An app, a chat or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An app.
    App(AppToken),
    /// A chat of an app.
    Chat(AppToken, ChatNumber),
    /// A message of a chat.
    Message(AppToken, ChatNumber, MessageNumber),
}

/// A subject as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SubjectName {
    /// The kind of subject.
    pub kind: SubjectKind,
    /// The app's token.
    pub app_token: String,
    /// The chat's number, for a chat or a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_number: Option<u64>,
    /// The message's number, for a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_number: Option<u64>,
}

/// Kinds of subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// An app.
    App,
    /// A chat.
    Chat,
    /// A message.
    Message,
}

impl Subject {
    /// The app, or the app that the chat or message belongs to.
    pub fn app(self) -> AppToken {
        match self {
            Self::App(app) | Self::Chat(app, _) | Self::Message(app, ..) => app,
        }
    }

    /// The chat, or the chat that the message belongs to.
    pub fn chat(self) -> Option<ChatNumber> {
        match self {
            Self::App(_) => None,
            Self::Chat(_, chat) | Self::Message(_, chat, _) => Some(chat),
        }
    }

    /// The message.
    pub fn message(self) -> Option<MessageNumber> {
        match self {
            Self::Message(_, _, message) => Some(message),
            Self::App(_) | Self::Chat(..) => None,
        }
    }

    /// The stream whose events change the subject. The creation of a chat is in the app's stream instead.
    pub fn stream(self) -> Arc<str> {
        match self {
            Self::App(app) => StreamId::App(app),
            Self::Chat(app, chat) | Self::Message(app, chat, _) => StreamId::Chat(app, chat),
        }
        .to_string()
        .into()
    }
}

impl From<Subject> for SubjectName {
    fn from(subject: Subject) -> Self {
        Self {
            kind: match subject {
                Subject::App(_) => SubjectKind::App,
                Subject::Chat(..) => SubjectKind::Chat,
                Subject::Message(..) => SubjectKind::Message,
            },
            app_token: subject.app().expose().to_owned(),
            chat_number: subject.chat().map(ChatNumber::get),
            message_number: subject.message().map(MessageNumber::get),
        }
    }
}
