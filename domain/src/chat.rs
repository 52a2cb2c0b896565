//! The decider of a chat's stream: MessageCreated, MessageEdited and MessageDeleted.
//!
//! That the chat exists is told by its app's stream ([`crate::app::State::has_chat`]); a chat without
//! messages has no events of its own.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::event::{MessageCreated, MessageDeleted, MessageEdited};
use crate::{Event, EvolveError, MessageBody, MessageNumber, Precondition, Version};

/// A chat as its stream tells it, as far as deciding needs it: its size grows with edits and deletions, not with
/// messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    last_message: Option<MessageNumber>,
    changed_messages: BTreeMap<MessageNumber, ChangedMessage>,
}

/// A message that is no longer as it was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChangedMessage {
    version: Version,
    deleted: bool,
}

/// What can be asked of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Create a message under a number that a counter handed out.
    CreateMessage {
        /// The message's number.
        number: MessageNumber,
        /// Its text.
        body: MessageBody,
    },
    /// Give a message another text.
    EditMessage {
        /// Which message.
        number: MessageNumber,
        /// The new text.
        body: MessageBody,
        /// What the client asks of the message first.
        precondition: Precondition,
    },
    /// Take a message away.
    DeleteMessage {
        /// Which message.
        number: MessageNumber,
    },
}

/// Why a command was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    /// The chat has no message of this number.
    #[error("the chat has no message {0}")]
    NotFound(MessageNumber),
    /// The message was deleted.
    #[error("message {0} was deleted")]
    Deleted(MessageNumber),
    /// The precondition does not hold.
    #[error("the message is at version {0} by now")]
    PreconditionFailed(Version),
    /// The number is not the next one.
    #[error("the next message is number {next}")]
    NumberOutOfOrder {
        /// The number that would be accepted.
        next: MessageNumber,
    },
}

impl State {
    /// A chat with messages up to `last_message`, none of them edited or deleted: where a fold of the later edits
    /// and deletions starts, so that deciding need not read every message.
    pub fn with_messages(last_message: Option<MessageNumber>) -> Self {
        Self { last_message, changed_messages: BTreeMap::new() }
    }

    /// The message created last.
    pub fn last_message_number(&self) -> Option<MessageNumber> {
        self.last_message
    }

    /// The number of the next message.
    pub fn next_message_number(&self) -> MessageNumber {
        MessageNumber::after(self.last_message)
    }

    /// Messages that exist: created and not deleted.
    pub fn message_count(&self) -> u64 {
        let deleted = self.changed_messages.values().filter(|changed| changed.deleted).count() as u64;
        self.last_message.map_or(0, MessageNumber::get) - deleted
    }

    /// How many messages were edited or deleted: what the state's memory grows with.
    pub fn changed_message_count(&self) -> usize {
        self.changed_messages.len()
    }

    fn message_version(&self, number: MessageNumber) -> Result<Version, Rejection> {
        if Some(number) > self.last_message {
            return Err(Rejection::NotFound(number));
        }
        match self.changed_messages.get(&number) {
            Some(ChangedMessage { deleted: true, .. }) => Err(Rejection::Deleted(number)),
            Some(ChangedMessage { version, .. }) => Ok(*version),
            None => Ok(Version::new(1)),
        }
    }
}

/// Decides a command against the chat as it is.
pub fn decide(state: &State, command: Command) -> Result<Event, Rejection> {
    match command {
        Command::CreateMessage { number, body } => {
            let next = state.next_message_number();
            if number != next {
                return Err(Rejection::NumberOutOfOrder { next });
            }
            Ok(MessageCreated { message_number: number, body }.into())
        }
        Command::EditMessage { number, body, precondition } => {
            let version = state.message_version(number)?;
            if !precondition.holds(version) {
                return Err(Rejection::PreconditionFailed(version));
            }
            Ok(MessageEdited { message_number: number, body }.into())
        }
        Command::DeleteMessage { number } => {
            state.message_version(number)?;
            Ok(MessageDeleted { message_number: number }.into())
        }
    }
}

/// Folds one event of the chat's stream into its state.
pub fn evolve(mut state: State, event: &Event) -> Result<State, EvolveError> {
    let evolve_error = |reason| EvolveError { event: event.event_type(), reason };
    let (number, deleted) = match event {
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
    state.changed_messages.insert(number, ChangedMessage { version, deleted });
    Ok(state)
}
