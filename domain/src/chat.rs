//! The decider of a chat's stream: MessageCreated, MessageEdited and MessageDeleted.
//!
//! The existence of a chat follows from its app's stream ([`crate::app::State::has_chat`]); the stream of a chat
//! without messages is empty.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::event::{MessageCreated, MessageDeleted, MessageEdited};
use crate::{
    DataChange, Event, EvolveError, MessageBody, MessageData, MessageNumber, Precondition, Sender, Version,
};

/// The part of a chat's state that decisions depend on. Its size grows with the number of edited and deleted messages,
/// not with the number of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    last_message: Option<MessageNumber>,
    changed_messages: BTreeMap<MessageNumber, ChangedMessage>,
}

/// A message that was edited or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChangedMessage {
    version: Version,
    is_deleted: bool,
}

/// A command on a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Create a message under the given number.
    CreateMessage {
        /// The message's number.
        number: MessageNumber,
        /// The message's text.
        body: MessageBody,
        /// The sender, if the application names one.
        sender: Option<Sender>,
        /// The application's data, if there is any.
        data: Option<MessageData>,
    },
    /// Replace the body of a message, and possibly change its data.
    EditMessage {
        /// The message's number.
        number: MessageNumber,
        /// The new text.
        body: MessageBody,
        /// The change of the application's data.
        data: DataChange,
        /// The client's condition on the message.
        precondition: Precondition,
    },
    /// Delete a message.
    DeleteMessage {
        /// The message's number.
        number: MessageNumber,
        /// The client's condition on the message.
        precondition: Precondition,
    },
}

/// The reason why a command is rejected.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    /// The chat has no message of this number.
    #[error("the chat has no message {0}")]
    NotFound(MessageNumber),
    /// The message was deleted.
    #[error("message {0} was deleted")]
    Deleted(MessageNumber),
    /// The precondition does not hold.
    #[error("the message is at version {0}")]
    PreconditionFailed(Version),
    /// The number is not the next one.
    #[error("the next message is number {next}")]
    NumberOutOfOrder {
        /// The number that would be accepted.
        next: MessageNumber,
    },
}

impl State {
    /// The state of a chat with messages up to `last_message`, before any edit or deletion. Folding the edits and
    /// deletions into this state gives the full state. The creations of the messages need not be read.
    pub fn with_messages(last_message: Option<MessageNumber>) -> Self {
        Self { last_message, changed_messages: BTreeMap::new() }
    }

    /// The number of the last message.
    pub fn last_message_number(&self) -> Option<MessageNumber> {
        self.last_message
    }

    /// The number of the next message.
    pub fn next_message_number(&self) -> MessageNumber {
        MessageNumber::next_after(self.last_message)
    }

    /// The number of messages that were created and not deleted.
    pub fn message_count(&self) -> u64 {
        let deleted = self.changed_messages.values().filter(|changed| changed.is_deleted).count() as u64;
        self.last_message.map_or(0, MessageNumber::get) - deleted
    }

    /// The number of edited or deleted messages, which determines the size of the state.
    pub fn changed_message_count(&self) -> usize {
        self.changed_messages.len()
    }

    fn check_precondition(
        &self,
        number: MessageNumber,
        precondition: &Precondition,
    ) -> Result<(), Rejection> {
        let version = self.message_version(number)?;
        if precondition.holds(version) { Ok(()) } else { Err(Rejection::PreconditionFailed(version)) }
    }

    fn message_version(&self, number: MessageNumber) -> Result<Version, Rejection> {
        if Some(number) > self.last_message {
            return Err(Rejection::NotFound(number));
        }
        match self.changed_messages.get(&number) {
            Some(ChangedMessage { is_deleted: true, .. }) => Err(Rejection::Deleted(number)),
            Some(ChangedMessage { version, .. }) => Ok(*version),
            None => Ok(Version::new(1)),
        }
    }
}

/// Decides a command on a chat in this state.
pub fn decide(state: &State, command: Command) -> Result<Event, Rejection> {
    match command {
        Command::CreateMessage { number, body, sender, data } => {
            let next = state.next_message_number();
            if number != next {
                return Err(Rejection::NumberOutOfOrder { next });
            }
            Ok(MessageCreated { message_number: number, body, sender, data }.into())
        }
        Command::EditMessage { number, body, data, precondition } => {
            state.check_precondition(number, &precondition)?;
            Ok(MessageEdited { message_number: number, body, data }.into())
        }
        Command::DeleteMessage { number, precondition } => {
            state.check_precondition(number, &precondition)?;
            Ok(MessageDeleted { message_number: number }.into())
        }
    }
}

/// Applies one event of the chat's stream to its state.
pub fn evolve(mut state: State, event: &Event) -> Result<State, EvolveError> {
    let evolve_error = |reason| EvolveError { event: event.event_type(), reason };
    let (number, is_deleted) = match event {
        Event::MessageCreated(created) => {
            if created.message_number != state.next_message_number() {
                return Err(evolve_error("its number is not the next one"));
            }
            state.last_message = Some(created.message_number);
            return Ok(state);
        }
        Event::MessageEdited(edited) => (edited.message_number, false),
        Event::MessageDeleted(deleted) => (deleted.message_number, true),
        _ => return Err(evolve_error("it belongs in an app's stream")),
    };
    let version =
        state.message_version(number).map_err(|_| evolve_error("the message does not exist"))?.next();
    state.changed_messages.insert(number, ChangedMessage { version, is_deleted });
    Ok(state)
}
