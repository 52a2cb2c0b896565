//! Properties of the deciders and of the stored form of events, for arbitrary commands and events.

use chat_domain::event::{
    AppCreated, AppRenamed, ChatCreated, MessageCreated, MessageDeleted, MessageEdited,
};
use chat_domain::{AppName, DataChange, Event, MessageBody, Precondition, Version, app, chat};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::given::{App, Chat, Decider, body, chat_number, message_number, name};

/// A small number, so that commands hit both existing and missing messages.
fn small_number() -> impl Strategy<Value = u64> {
    1..12_u64
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        3 => Just(Precondition::Unconditional),
        1 => Just(Precondition::Exists),
        2 => vec((0..6_u64).prop_map(Version::new), 0..3).prop_map(Precondition::AnyOf),
    ]
}

/// A step of a test: a command that creates the app, the next chat or the next message, or an arbitrary command.
#[derive(Clone, Debug)]
enum Step<C> {
    CreateNext,
    Send(C),
}

fn app_step() -> impl Strategy<Value = Step<app::Command>> {
    use app::Command;
    prop_oneof![
        4 => Just(Step::CreateNext),
        1 => Just(Step::Send(Command::Create { name: name("an app") })),
        2 => precondition()
            .prop_map(|precondition| Step::Send(Command::Rename { name: name("renamed"), precondition })),
        2 => small_number().prop_map(|number| Step::Send(Command::CreateChat { number: chat_number(number) })),
    ]
}

fn chat_step() -> impl Strategy<Value = Step<chat::Command>> {
    use chat::Command;
    prop_oneof![
        4 => Just(Step::CreateNext),
        2 => small_number().prop_map(|number| {
            Step::Send(Command::CreateMessage { number: message_number(number), body: body("any"), sender: None, data: None })
        }),
        3 => (small_number(), precondition()).prop_map(|(number, precondition)| {
            Step::Send(Command::EditMessage { number: message_number(number), body: body("edit"), data: DataChange::Keep, precondition })
        }),
        2 => (small_number(), precondition()).prop_map(|(number, precondition)| {
            Step::Send(Command::DeleteMessage { number: message_number(number), precondition })
        }),
    ]
}

/// Decides the command of every step and applies the accepted events. Returns the stream and its state.
fn run_steps<D: Decider>(
    steps: Vec<Step<D::Command>>,
    next: impl Fn(&D::State) -> D::Command,
) -> Result<(Vec<Event>, D::State), TestCaseError> {
    let (mut stream, mut state) = (Vec::new(), D::State::default());
    for step in steps {
        let command = match step {
            Step::CreateNext => next(&state),
            Step::Send(command) => command,
        };
        if let Ok(event) = D::decide(&state, command) {
            state = D::evolve(state, &event).map_err(|error| TestCaseError::fail(error.to_string()))?;
            stream.push(event);
        }
    }
    Ok((stream, state))
}

fn run_app(steps: Vec<Step<app::Command>>) -> Result<(Vec<Event>, app::State), TestCaseError> {
    run_steps::<App>(steps, |state| match state {
        app::State::Absent => app::Command::Create { name: name("an app") },
        app::State::Present { .. } => app::Command::CreateChat { number: state.next_chat_number() },
    })
}

fn run_chat(steps: Vec<Step<chat::Command>>) -> Result<(Vec<Event>, chat::State), TestCaseError> {
    run_steps::<Chat>(steps, |state| chat::Command::CreateMessage {
        number: state.next_message_number(),
        body: body("next"),
        sender: None,
        data: None,
    })
}

/// An arbitrary event.
fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(AppCreated { name: name("n") }.into()),
        Just(AppRenamed { name: name("m") }.into()),
        small_number().prop_map(|n| ChatCreated { chat_number: chat_number(n) }.into()),
        small_number().prop_map(|n| MessageCreated {
            message_number: message_number(n),
            body: body("b"),
            sender: None,
            data: None
        }
        .into()),
        small_number().prop_map(|n| MessageEdited {
            message_number: message_number(n),
            body: body("c"),
            data: DataChange::Keep
        }
        .into()),
        small_number().prop_map(|n| MessageDeleted { message_number: message_number(n) }.into()),
    ]
}

/// Folds the events that follow from the state, and skips the others.
fn fold_applicable<D: Decider>(events: &[Event]) -> D::State {
    events.iter().fold(D::State::default(), |state, event| D::evolve(state.clone(), event).unwrap_or(state))
}

proptest! {
    #[test]
    fn numbers_the_chats_of_an_app_from_one_to_n(steps in vec(app_step(), 0..60)) {
        let (stream, state) = run_app(steps)?;
        let numbers: Vec<u64> = stream.iter().filter_map(|event| match event {
            Event::ChatCreated(created) => Some(created.chat_number.get()),
            _ => None,
        }).collect();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        prop_assert_eq!(&numbers, &expected);
        prop_assert_eq!(state.next_chat_number().get(), numbers.len() as u64 + 1);
        if let app::State::Present { version, .. } = state {
            prop_assert_eq!(version.get(), stream.len() as u64);
        }
    }

    #[test]
    fn numbers_the_messages_of_a_chat_from_one_to_n_and_counts_them(steps in vec(chat_step(), 0..80)) {
        let (stream, state) = run_chat(steps)?;
        let numbers: Vec<u64> = stream.iter().filter_map(|event| match event {
            Event::MessageCreated(created) => Some(created.message_number.get()),
            _ => None,
        }).collect();
        let deleted = stream.iter().filter(|event| matches!(event, Event::MessageDeleted(_))).count();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        prop_assert_eq!(&numbers, &expected);
        prop_assert_eq!(state.next_message_number().get(), numbers.len() as u64 + 1);
        prop_assert_eq!(state.message_count(), (numbers.len() - deleted) as u64);
    }

    #[test]
    fn an_app_accepts_only_commands_whose_events_can_be_applied(
        events in vec(any_event(), 0..30),
        steps in vec(app_step(), 1..10),
    ) {
        let state = fold_applicable::<App>(&events);
        for step in steps {
            let Step::Send(command) = step else { continue };
            if let Ok(event) = app::decide(&state, command) {
                prop_assert!(app::evolve(state, &event).is_ok(), "the state does not accept {event:?}");
            }
        }
    }

    #[test]
    fn a_chat_accepts_only_commands_whose_events_can_be_applied(
        events in vec(any_event(), 0..40),
        steps in vec(chat_step(), 1..10),
    ) {
        let state = fold_applicable::<Chat>(&events);
        for step in steps {
            let Step::Send(command) = step else { continue };
            if let Ok(event) = chat::decide(&state, command) {
                prop_assert!(chat::evolve(state.clone(), &event).is_ok(), "the state does not accept {event:?}");
            }
        }
    }

    #[test]
    fn the_last_number_with_all_edits_and_deletions_gives_the_state_of_the_whole_stream(
        steps in vec(chat_step(), 0..80),
    ) {
        let (stream, folded) = run_chat(steps)?;
        let started = chat::State::with_messages(folded.last_message_number());
        let changes = stream.iter().filter(|event| !matches!(event, Event::MessageCreated(_)));
        let resumed = changes.into_iter().try_fold(started, chat::evolve)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(resumed, folded);
    }

    #[test]
    fn decodes_events_as_they_were_encoded(
        app in "\\PC{1,255}",
        text in any::<String>(),
        number in 1..=i64::MAX as u64,
    ) {
        let mut events: Vec<Event> = vec![
            ChatCreated { chat_number: chat_number(number) }.into(),
            MessageDeleted { message_number: message_number(number) }.into(),
        ];
        if let Ok(name) = AppName::parse(app) {
            events.push(AppCreated { name: name.clone() }.into());
            events.push(AppRenamed { name }.into());
        }
        if let Ok(body) = MessageBody::parse(text) {
            let message_number = message_number(number);
            events.push(MessageCreated { message_number, body: body.clone(), sender: None, data: None }.into());
            events.push(MessageEdited { message_number, body, data: DataChange::Keep }.into());
        }
        for event in events {
            let payload = event.payload();
            let decoded = Event::decode(event.event_type(), event.schema_version(), payload.as_bytes());
            prop_assert_eq!(decoded.map_err(|error| TestCaseError::fail(error.to_string()))?, event);
        }
    }
}
