//! What a question is about: an app, a chat or a message.

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

/// A subject, spelt out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SubjectName {
    /// What it is.
    pub kind: SubjectKind,
    /// The app's token.
    pub app_token: String,
    /// The chat's number, of a chat or a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_number: Option<u64>,
    /// The message's number, of a message.
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
    /// The stream whose events change it. That of an app also tells that its chats exist.
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
        let (kind, app, chat, message) = match subject {
            Subject::App(app) => (SubjectKind::App, app, None, None),
            Subject::Chat(app, chat) => (SubjectKind::Chat, app, Some(chat), None),
            Subject::Message(app, chat, message) => (SubjectKind::Message, app, Some(chat), Some(message)),
        };
        Self {
            kind,
            app_token: app.expose().to_owned(),
            chat_number: chat.map(ChatNumber::get),
            message_number: message.map(MessageNumber::get),
        }
    }
}
