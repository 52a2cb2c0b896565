//! The rules of the chat API, without I/O, async or a clock of their own.
//!
//! A command is decided against the state folded from one stream, and yields events:
//!
//! ```
//! use chat_domain::{MessageBody, chat};
//!
//! let state = chat::State::default();
//! let command = chat::Command::CreateMessage {
//!     number: state.next_message(),
//!     body: MessageBody::parse("Hi".to_owned())?,
//! };
//! let event = chat::decide(&state, command)?;
//! let state = chat::evolve(state, &event)?;
//! assert_eq!(state.message_count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`application`] and [`chat`] are the two deciders. [`event`] is what they emit and how it is stored;
//! [`stream`] says where. [`operation`] is what operators do. The other modules are types that can't hold a wrong value.

pub mod app;
pub mod chat;
pub mod event;
pub mod metadata;
pub mod number;
pub mod operator_action;
pub mod position;
pub mod stream;
pub mod text;
pub mod timestamp;
pub mod token;
pub mod version;

pub use event::Event;
pub use metadata::{Actor, Metadata};
pub use number::{ChatNumber, MessageNumber};
pub use operator_action::OperatorAction;
pub use position::{ExpectedRevision, Position, Revision};
pub use stream::StreamId;
pub use text::{AppName, MessageBody};
pub use timestamp::Timestamp;
pub use token::AppToken;
pub use version::{Precondition, Version};

use thiserror::Error;

/// An event that does not follow from the state before it. No decider emits one; a log that holds one was
/// damaged or written by something else.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{event} does not follow from the events before it: {reason}")]
pub struct EvolveError {
    /// The event's type, such as `MessageCreated`.
    pub event: &'static str,
    /// What does not fit.
    pub reason: &'static str,
}
