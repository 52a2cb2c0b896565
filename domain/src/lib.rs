//! The rules of the chat API. This crate does no I/O, has no async code, and reads no clock.
//!
//! A decider checks a command against the state that is folded from one stream, and returns an event:
//!
//! ```
//! use chat_domain::{MessageBody, chat};
//!
//! let state = chat::State::default();
//! let command = chat::Command::CreateMessage {
//!     number: state.next_message_number(),
//!     body: MessageBody::parse("Hi".to_owned())?,
//!     sender: None,
//!     data: None,
//! };
//! let event = chat::decide(&state, command)?;
//! let state = chat::evolve(state, &event)?;
//! assert_eq!(state.message_count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`app`] and [`chat`] are the two deciders. [`event`] defines the events and their stored form, and [`stream`] the
//! streams that hold them. [`operator_action`] defines the events of operators. The other modules define the types of
//! the values in commands and events, such as numbers, texts and positions.

pub mod app;
pub mod chat;
pub mod event;
pub mod message_data;
pub mod metadata;
pub mod number;
pub mod operator_action;
pub mod position;
pub mod projection;
pub mod sender;
pub mod stream;
pub mod text;
pub mod timestamp;
pub mod token;
pub mod version;

pub use event::Event;
pub use message_data::{DataChange, MessageData};
pub use metadata::{Actor, Metadata};
pub use number::{ChatNumber, MessageNumber};
pub use operator_action::OperatorAction;
pub use position::{ExpectedRevision, Position, Revision};
pub use sender::{Sender, SenderId, SenderName};
pub use stream::StreamId;
pub use text::{AppName, MessageBody};
pub use timestamp::Timestamp;
pub use token::AppToken;
pub use version::{Precondition, Version};

use thiserror::Error;

/// An event that does not follow from the state before it. No decider returns such an event: a log that holds one was
/// damaged or written by another program.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{event} does not follow from the events before it: {reason}")]
pub struct EvolveError {
    /// The event's type, such as `MessageCreated`.
    pub event: &'static str,
    /// The contradiction.
    pub reason: &'static str,
}
