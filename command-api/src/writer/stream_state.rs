//! The state of one stream as the writer caches it, and the decisions on it.

use chat_domain::{
    ChatNumber, Event, EvolveError, ExpectedRevision, MessageNumber, Position, Revision, StreamId, app, chat,
};
use chat_ports::counters::CounterKey;
use quick_cache::Weighter;

use crate::command::{Command, Rejection};

/// A stream's state as of its last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamState {
    pub(super) last_revision: Option<Revision>,
    /// The position of the last event; the start of the log if there is none.
    pub(super) position: Position,
    pub(super) aggregate: AggregateState,
}

/// The state of the app or chat that the stream belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AggregateState {
    App(app::State),
    Chat(chat::State, FoldDepth),
}

/// The part of a chat's stream that is folded into its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FoldDepth {
    /// Only the number of the last message, which suffices to create the next one.
    LastNumber,
    /// Also edits and deletions.
    Full,
}

impl StreamState {
    /// An app's stream before its first event.
    pub(super) const ABSENT_APP: Self = Self {
        last_revision: None,
        position: Position::START,
        aggregate: AggregateState::App(app::State::Absent),
    };

    /// A chat's stream before its first event.
    pub(super) fn empty_chat() -> Self {
        Self {
            last_revision: None,
            position: Position::START,
            aggregate: AggregateState::Chat(chat::State::default(), FoldDepth::Full),
        }
    }

    pub(super) fn expected_revision(&self) -> ExpectedRevision {
        ExpectedRevision::from_last_revision(self.last_revision)
    }

    /// The number of the next chat or message.
    pub(super) fn next_number(&self) -> u64 {
        match &self.aggregate {
            AggregateState::App(app) => app.next_chat_number().get(),
            AggregateState::Chat(chat, _) => chat.next_message_number().get(),
        }
    }

    /// Whether this is the state of an app that does not exist. No numbers are reserved for such an app.
    pub(super) fn is_absent_app(&self) -> bool {
        matches!(self.aggregate, AggregateState::App(app::State::Absent))
    }

    /// Whether enough of the stream is folded to decide the command.
    pub(super) fn suffices_for(&self, command: &Command) -> bool {
        !command.needs_full_state()
            || !matches!(self.aggregate, AggregateState::Chat(_, FoldDepth::LastNumber))
    }

    /// Decides a command; `number` is the number of a new chat or message.
    pub(super) fn decide(&self, command: Command, number: u64) -> Result<Event, Rejection> {
        let out_of_order = |_| Rejection::NumberOutOfOrder;
        match (&self.aggregate, command) {
            (AggregateState::App(app), Command::CreateApp { name, .. }) => {
                Ok(app::decide(app, app::Command::Create { name })?)
            }
            (AggregateState::App(app), Command::RenameApp { name, precondition, .. }) => {
                Ok(app::decide(app, app::Command::Rename { name, precondition })?)
            }
            (AggregateState::App(app), Command::CreateChat { .. }) => {
                let number = ChatNumber::try_from(number).map_err(out_of_order);
                // An absent app has no reserved number. Any valid number will do, so that the rejection is "app not
                // found" and not "number out of order".
                let number = if self.is_absent_app() { ChatNumber::FIRST } else { number? };
                Ok(app::decide(app, app::Command::CreateChat { number })?)
            }
            (AggregateState::Chat(chat, _), Command::CreateMessage { body, sender, data, .. }) => {
                let number = MessageNumber::try_from(number).map_err(out_of_order)?;
                Ok(chat::decide(chat, chat::Command::CreateMessage { number, body, sender, data })?)
            }
            (
                AggregateState::Chat(chat, _),
                Command::EditMessage { message, body, data, precondition, .. },
            ) => {
                let edit = chat::Command::EditMessage { number: message, body, data, precondition };
                Ok(chat::decide(chat, edit)?)
            }
            (AggregateState::Chat(chat, _), Command::DeleteMessage { message, precondition, .. }) => {
                Ok(chat::decide(chat, chat::Command::DeleteMessage { number: message, precondition })?)
            }
            // Unreachable: a command is decided on its own stream.
            (AggregateState::App(_), _) => Err(Rejection::ChatNotFound),
            (AggregateState::Chat(..), _) => Err(Rejection::AppNotFound),
        }
    }

    /// Applies a decided event of the stream. The position stays unchanged, because the event is not appended yet: the
    /// writer sets it when the event store has assigned one.
    pub(super) fn evolve(self, event: &Event) -> Result<Self, EvolveError> {
        let last_revision = Some(self.expected_revision().next());
        let aggregate = match self.aggregate {
            AggregateState::App(app) => AggregateState::App(app::evolve(app, event)?),
            AggregateState::Chat(chat, depth) => AggregateState::Chat(chat::evolve(chat, event)?, depth),
        };
        Ok(Self { last_revision, position: self.position, aggregate })
    }
}

/// The counter of the numbers that are assigned in this stream.
pub(super) fn counter_key(stream: &StreamId) -> CounterKey {
    match stream {
        StreamId::App(app) => CounterKey::Chats(*app),
        StreamId::Chat(app, chat) => CounterKey::Messages(*app, *chat),
    }
}

/// Weighs a state by its approximate size in bytes: a chat's state grows with its edited and deleted messages.
#[derive(Clone)]
pub(super) struct ByteWeighter;

impl Weighter<StreamId, StreamState> for ByteWeighter {
    fn weight(&self, _: &StreamId, state: &StreamState) -> u64 {
        const ENTRY_BYTES: u64 = 200;
        const CHANGED_MESSAGE_BYTES: u64 = 40;
        match &state.aggregate {
            AggregateState::App(_) => ENTRY_BYTES,
            AggregateState::Chat(chat, _) => {
                ENTRY_BYTES + CHANGED_MESSAGE_BYTES * chat.changed_message_count() as u64
            }
        }
    }
}
