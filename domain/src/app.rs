//! The decider of an app's stream: AppCreated, then AppRenamed and ChatCreated.

use thiserror::Error;

use crate::event::{AppCreated, AppRenamed, ChatCreated};
use crate::{AppName, ChatNumber, Event, EvolveError, Precondition, Version};

/// The part of an app's state that decisions depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The app was not created.
    #[default]
    Absent,
    /// The app exists.
    Present {
        /// The number of the last chat.
        last_chat: Option<ChatNumber>,
        /// The number of events in the stream.
        version: Version,
    },
}

/// A command on an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Create the app.
    Create {
        /// The app's name.
        name: AppName,
    },
    /// Rename the app.
    Rename {
        /// The new name.
        name: AppName,
        /// The client's condition on the app.
        precondition: Precondition,
    },
    /// Create a chat under the given number.
    CreateChat {
        /// The chat's number.
        number: ChatNumber,
    },
}

/// The reason why a command is rejected.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    /// An app with the token exists already.
    #[error("the app exists already")]
    AlreadyExists,
    /// No app has the token.
    #[error("no app has this token")]
    NotFound,
    /// The precondition does not hold.
    #[error("the app is at version {0}")]
    PreconditionFailed(Version),
    /// The number is not the next one.
    #[error("the next chat is number {next}")]
    NumberOutOfOrder {
        /// The number that would be accepted.
        next: ChatNumber,
    },
}

impl State {
    /// The number of the next chat.
    pub fn next_chat_number(&self) -> ChatNumber {
        match self {
            Self::Absent => ChatNumber::FIRST,
            Self::Present { last_chat, .. } => ChatNumber::next_after(*last_chat),
        }
    }

    /// Whether the app has this chat: chats are numbered without gaps, so the last number suffices.
    pub fn has_chat(&self, number: ChatNumber) -> bool {
        matches!(self, Self::Present { last_chat: Some(last), .. } if number <= *last)
    }
}

/// Decides a command on an app in this state.
pub fn decide(state: &State, command: Command) -> Result<Event, Rejection> {
    match (state, command) {
        (State::Absent, Command::Create { name }) => Ok(AppCreated { name }.into()),
        (State::Present { .. }, Command::Create { .. }) => Err(Rejection::AlreadyExists),
        (State::Absent, _) => Err(Rejection::NotFound),
        (State::Present { version, .. }, Command::Rename { name, precondition }) => {
            if !precondition.holds(*version) {
                return Err(Rejection::PreconditionFailed(*version));
            }
            Ok(AppRenamed { name }.into())
        }
        (State::Present { .. }, Command::CreateChat { number }) => {
            let next = state.next_chat_number();
            if number != next {
                return Err(Rejection::NumberOutOfOrder { next });
            }
            Ok(ChatCreated { chat_number: number }.into())
        }
    }
}

/// Applies one event of the app's stream to its state.
pub fn evolve(state: State, event: &Event) -> Result<State, EvolveError> {
    let evolve_error = |reason| EvolveError { event: event.event_type(), reason };
    match (state, event) {
        (State::Absent, Event::AppCreated(_)) => {
            Ok(State::Present { last_chat: None, version: Version::new(1) })
        }
        (State::Present { last_chat, version }, Event::AppRenamed(_)) => {
            Ok(State::Present { last_chat, version: version.next() })
        }
        (State::Present { version, .. }, Event::ChatCreated(created)) => {
            if created.chat_number != state.next_chat_number() {
                return Err(evolve_error("its number is not the next one"));
            }
            Ok(State::Present { last_chat: Some(created.chat_number), version: version.next() })
        }
        (State::Absent, _) => Err(evolve_error("the app was not created")),
        (State::Present { .. }, Event::AppCreated(_)) => Err(evolve_error("the app exists already")),
        (State::Present { .. }, _) => Err(evolve_error("it belongs in a chat's stream")),
    }
}
