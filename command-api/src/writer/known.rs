//! What the writer knows of a stream, and how it decides on it.

use chat_domain::{
    ChatNumber, Event, ExpectedRevision, MessageNumber, Position, Revision, StreamId, Unfoldable,
    application, chat,
};
use chat_ports::counters::CounterKey;
use quick_cache::Weighter;

use crate::command::{Command, Rejection};

/// A stream's state as of its last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) last: Option<Revision>,
    /// The position of the last event, or of one of the same append.
    pub(super) at: Position,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    App(application::State),
    Chat(chat::State, Depth),
}

/// How much of a chat's stream is folded into its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// The number of the last message: enough to create the next.
    Tail,
    /// Edits and deletions too.
    Full,
}

impl Known {
    /// An app's stream before its first event.
    pub(super) const NO_APP: Self =
        Self { last: None, at: Position::START, state: State::App(application::State::Absent) };

    /// The stream of a chat that has just been created.
    pub(super) fn empty_chat() -> Self {
        Self { last: None, at: Position::START, state: State::Chat(chat::State::default(), Depth::Full) }
    }

    pub(super) fn expected(&self) -> ExpectedRevision {
        ExpectedRevision::after(self.last)
    }

    /// The number of the next chat or message.
    pub(super) fn next_number(&self) -> u64 {
        match &self.state {
            State::App(app) => app.next_chat().get(),
            State::Chat(chat, _) => chat.next_message().get(),
        }
    }

    /// Whether numbers may be handed out: not in an app that does not exist.
    pub(super) fn takes_numbers(&self) -> bool {
        !matches!(self.state, State::App(application::State::Absent))
    }

    pub(super) fn suffices_for(&self, command: &Command) -> bool {
        !command.needs_changes() || !matches!(self.state, State::Chat(_, Depth::Tail))
    }

    /// Decides a command; `number` is the one handed out for it, if it takes one.
    pub(super) fn decide(&self, command: Command, number: u64) -> Result<Event, Rejection> {
        let out_of_order = |_| Rejection::NumberOutOfOrder;
        match (&self.state, command) {
            (State::App(app), Command::CreateApp { name, .. }) => {
                Ok(application::decide(app, application::Command::Create { name })?)
            }
            (State::App(app), Command::RenameApp { name, precondition, .. }) => {
                Ok(application::decide(app, application::Command::Rename { name, precondition })?)
            }
            (State::App(app), Command::CreateChat { .. }) => {
                let number = ChatNumber::try_from(number).map_err(out_of_order);
                // Without an app there is no number, and the rejection is that there is no app.
                let number = if self.takes_numbers() { number? } else { ChatNumber::FIRST };
                Ok(application::decide(app, application::Command::CreateChat { number })?)
            }
            (State::Chat(chat, _), Command::CreateMessage { body, .. }) => {
                let number = MessageNumber::try_from(number).map_err(out_of_order)?;
                Ok(chat::decide(chat, chat::Command::CreateMessage { number, body })?)
            }
            (State::Chat(chat, _), Command::EditMessage { message, body, precondition, .. }) => {
                let edit = chat::Command::EditMessage { number: message, body, precondition };
                Ok(chat::decide(chat, edit)?)
            }
            (State::Chat(chat, _), Command::DeleteMessage { message, .. }) => {
                Ok(chat::decide(chat, chat::Command::DeleteMessage { number: message })?)
            }
            // A command goes to the stream that it names, so these don't meet.
            (State::App(_), _) => Err(Rejection::ChatNotFound),
            (State::Chat(..), _) => Err(Rejection::AppNotFound),
        }
    }

    pub(super) fn evolve(self, event: &Event) -> Result<Self, Unfoldable> {
        let last = Some(self.expected().next());
        let state = match self.state {
            State::App(app) => State::App(application::evolve(app, event)?),
            State::Chat(chat, depth) => State::Chat(chat::evolve(chat, event)?, depth),
        };
        Ok(Self { last, at: self.at, state })
    }
}

pub(super) fn counter(stream: &StreamId) -> CounterKey {
    match stream {
        StreamId::App(app) => CounterKey::Chats(*app),
        StreamId::Chat(app, chat) => CounterKey::Messages(*app, *chat),
    }
}

/// Weighs a state by roughly the bytes it takes: a chat's grows with its edited and deleted messages.
#[derive(Clone)]
pub(super) struct ByBytes;

impl Weighter<StreamId, Known> for ByBytes {
    fn weight(&self, _: &StreamId, known: &Known) -> u64 {
        const ENTRY: u64 = 200;
        const CHANGED_MESSAGE: u64 = 40;
        match &known.state {
            State::App(_) => ENTRY,
            State::Chat(chat, _) => ENTRY + CHANGED_MESSAGE * chat.changed_messages() as u64,
        }
    }
}
