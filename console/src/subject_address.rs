//! The addresses of apps, chats and messages, and links to their parents and events.

use chat_domain::{ChatNumber, MessageNumber, Position};
use chat_operations::audit::Subject;

use crate::app_address::{app_at, app_path};
use crate::console::Console;
use crate::event_view::app_name;
use crate::page::ConsoleError;

/// An app, a chat or a message, with its address in the console.
pub(crate) struct SubjectAddress {
    /// The position of the app's creation.
    pub(crate) app: Position,
    pub(crate) app_name: String,
    pub(crate) subject: Subject,
}

/// A link in the path that a page shows above its title.
pub(crate) struct TrailLink {
    pub(crate) name: String,
    pub(crate) path: String,
}

impl SubjectAddress {
    /// Resolves the numbers of an address: `[app]`, `[app, chat]` or `[app, chat, message]`. The number of the app is
    /// the position of its creation. Does not check whether the chat and the message exist.
    pub(crate) async fn resolve(console: &Console, numbers: &[&str]) -> Result<Self, ConsoleError> {
        let missing = || ConsoleError::not_found("The address has no app, chat or message of this number.");
        let (app, chat, message) = match numbers {
            [app] => (app, None, None),
            [app, chat] => (app, Some(chat), None),
            [app, chat, message] => (app, Some(chat), Some(message)),
            _ => return Err(missing()),
        };
        let position = Position::parse(app).map_err(|_| missing())?;
        let token = app_at(console, position).await?;
        let chat = chat.map(|chat| ChatNumber::parse(chat)).transpose().map_err(|_| missing())?;
        let message =
            message.map(|message| MessageNumber::parse(message)).transpose().map_err(|_| missing())?;
        let subject = match (chat, message) {
            (Some(chat), Some(message)) => Subject::Message(token, chat, message),
            (Some(chat), None) => Subject::Chat(token, chat),
            (None, _) => Subject::App(token),
        };
        Ok(Self { app: position, app_name: app_name(console, token).await, subject })
    }

    /// The path of the app's page.
    pub(crate) fn app_path(&self) -> String {
        app_path(self.app)
    }

    /// The path of the subject's page.
    pub(crate) fn path(&self) -> String {
        let app = app_path(self.app);
        match self.subject {
            Subject::App(_) => app,
            Subject::Chat(_, chat) => format!("{app}/chats/{chat}"),
            Subject::Message(_, chat, message) => format!("{app}/chats/{chat}/messages/{message}"),
        }
    }

    /// The name of the subject: an app's name, or `Chat 3` or `Message 5`.
    pub(crate) fn name(&self) -> String {
        match self.subject {
            Subject::App(_) => self.app_name.clone(),
            Subject::Chat(_, chat) => format!("Chat {chat}"),
            Subject::Message(_, _, message) => format!("Message {message}"),
        }
    }

    /// The number of the chat, or of the chat that the message is in; empty for an app.
    pub(crate) fn chat_number(&self) -> String {
        self.subject.chat().map(|chat| chat.to_string()).unwrap_or_default()
    }

    /// The number of the message; empty for an app or a chat.
    pub(crate) fn message_number(&self) -> String {
        self.subject.message().map(|message| message.to_string()).unwrap_or_default()
    }

    /// The title of a page of the subject: its name, with the chat and the app that it is in.
    pub(crate) fn title(&self) -> String {
        match self.subject {
            Subject::App(_) => self.app_name.clone(),
            Subject::Chat(..) => format!("{} of {}", self.name(), self.app_name),
            Subject::Message(_, chat, _) => format!("{} of chat {chat} of {}", self.name(), self.app_name),
        }
    }

    /// The links to the parents of the subject.
    pub(crate) fn trail(&self) -> Vec<TrailLink> {
        let mut trail = vec![TrailLink { name: "Apps".to_owned(), path: "/console/apps".to_owned() }];
        if self.subject.chat().is_some() {
            trail.push(TrailLink { name: self.app_name.clone(), path: self.app_path() });
        }
        if let Subject::Message(_, chat, _) = self.subject {
            let path = format!("{}/chats/{chat}", self.app_path());
            trail.push(TrailLink { name: format!("Chat {chat}"), path });
        }
        trail
    }

    /// The links to the parents of the subject, and to the subject itself.
    pub(crate) fn trail_with_self(&self) -> Vec<TrailLink> {
        let mut trail = self.trail();
        trail.push(TrailLink { name: self.name(), path: self.path() });
        trail
    }

    /// The address of the events of the app, or of the chat if the subject is a chat or a message.
    pub(crate) fn events_href(&self) -> String {
        match self.subject.chat() {
            None => format!("/console/events?app={}", self.app),
            Some(chat) => format!("/console/events?app={}&chat={chat}", self.app),
        }
    }
}
