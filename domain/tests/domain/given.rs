//! The given–when–then helpers of the decider tests: given events, when a command is decided, then an event or a
//! rejection follows.

use std::fmt::Debug;

use chat_domain::{AppName, ChatNumber, Event, EvolveError, MessageBody, MessageNumber, app, chat};

/// A decider under test.
pub trait Decider {
    /// The folded state.
    type State: Clone + Debug + Default + PartialEq;
    /// The decider's commands.
    type Command: Clone + Debug;
    /// The decider's rejections.
    type Rejection: Debug + PartialEq;

    /// Decides a command.
    fn decide(state: &Self::State, command: Self::Command) -> Result<Event, Self::Rejection>;

    /// Applies an event.
    fn evolve(state: Self::State, event: &Event) -> Result<Self::State, EvolveError>;

    /// Folds a whole stream.
    fn fold(events: &[Event]) -> Result<Self::State, EvolveError> {
        events.iter().try_fold(Self::State::default(), Self::evolve)
    }
}

/// The decider of apps.
pub struct App;

impl Decider for App {
    type State = app::State;
    type Command = app::Command;
    type Rejection = app::Rejection;

    fn decide(state: &Self::State, command: Self::Command) -> Result<Event, Self::Rejection> {
        app::decide(state, command)
    }

    fn evolve(state: Self::State, event: &Event) -> Result<Self::State, EvolveError> {
        app::evolve(state, event)
    }
}

/// The decider of chats.
pub struct Chat;

impl Decider for Chat {
    type State = chat::State;
    type Command = chat::Command;
    type Rejection = chat::Rejection;

    fn decide(state: &Self::State, command: Self::Command) -> Result<Event, Self::Rejection> {
        chat::decide(state, command)
    }

    fn evolve(state: Self::State, event: &Event) -> Result<Self::State, EvolveError> {
        chat::evolve(state, event)
    }
}

/// The state after the given events.
pub struct Given<D: Decider> {
    state: D::State,
}

/// Folds the given events.
pub fn given<D: Decider>(events: impl IntoIterator<Item = Event>) -> Given<D> {
    let events: Vec<Event> = events.into_iter().collect();
    Given { state: D::fold(&events).expect("the given events should follow from each other") }
}

impl<D: Decider> Given<D> {
    /// Decides the command.
    pub fn when(self, command: D::Command) -> Decided<D> {
        Decided { outcome: D::decide(&self.state, command), state: self.state }
    }

    /// The state that the events fold to.
    pub fn state(self) -> D::State {
        self.state
    }
}

/// The decision on a command, and the state before the command.
pub struct Decided<D: Decider> {
    outcome: Result<Event, D::Rejection>,
    state: D::State,
}

impl<D: Decider> Decided<D> {
    /// Asserts that the command leads to this event, and that the event can be applied.
    #[track_caller]
    pub fn then(self, expected: impl Into<Event>) {
        let event = self.outcome.expect("the command should be accepted");
        assert_eq!(event, expected.into());
        D::evolve(self.state, &event).expect("the event should follow from the state");
    }

    /// Asserts that the command is rejected for this reason.
    #[track_caller]
    pub fn then_rejected(self, expected: D::Rejection) {
        assert_eq!(self.outcome, Err(expected));
    }
}

/// Parses an app's name.
pub fn name(text: &str) -> AppName {
    AppName::parse(text.to_owned()).expect("a valid name")
}

/// Parses a message's body.
pub fn body(text: &str) -> MessageBody {
    MessageBody::parse(text.to_owned()).expect("a valid body")
}

/// Converts an integer to a chat's number.
pub fn chat_number(number: u64) -> ChatNumber {
    number.try_into().expect("a valid number")
}

/// Converts an integer to a message's number.
pub fn message_number(number: u64) -> MessageNumber {
    number.try_into().expect("a valid number")
}
