//! Tests of the decider of apps.

use chat_domain::app::{Command, Rejection, State};
use chat_domain::event::{AppCreated, AppRenamed, ChatCreated, MessageCreated};
use chat_domain::{Event, EvolveError, Precondition, Version};

use crate::given::{self, App, Decider, body, chat_number, message_number, name};

fn given(events: impl IntoIterator<Item = Event>) -> given::Given<App> {
    given::given(events)
}

fn created() -> Event {
    AppCreated { name: name("first") }.into()
}

fn renamed(to: &str) -> Event {
    AppRenamed { name: name(to) }.into()
}

fn chat_created(number: u64) -> Event {
    ChatCreated { chat_number: chat_number(number) }.into()
}

fn create() -> Command {
    Command::Create { name: name("first") }
}

fn rename(precondition: Precondition) -> Command {
    Command::Rename { name: name("second"), precondition }
}

fn create_chat(number: u64) -> Command {
    Command::CreateChat { number: chat_number(number) }
}

#[test]
fn an_app_is_created_once() {
    given([]).when(create()).then(created());
    given([created()]).when(create()).then_rejected(Rejection::AlreadyExists);
}

#[test]
fn rejects_commands_on_an_app_that_does_not_exist() {
    given([]).when(rename(Precondition::Unconditional)).then_rejected(Rejection::NotFound);
    given([]).when(rename(Precondition::Exists)).then_rejected(Rejection::NotFound);
    given([]).when(create_chat(1)).then_rejected(Rejection::NotFound);
}

#[test]
fn renames_an_app_repeatedly() {
    given([created()]).when(rename(Precondition::Unconditional)).then(renamed("second"));
    given([created(), renamed("second")]).when(rename(Precondition::Unconditional)).then(renamed("second"));
}

#[test]
fn renames_only_if_the_precondition_holds() {
    let history = || [created(), chat_created(1), renamed("other")];
    let versions = |list: &[u64]| Precondition::AnyOf(list.iter().copied().map(Version::new).collect());
    let rejection = Rejection::PreconditionFailed(Version::new(3));

    given(history()).when(rename(versions(&[2]))).then_rejected(rejection.clone());
    given(history()).when(rename(versions(&[4]))).then_rejected(rejection.clone());
    given(history()).when(rename(versions(&[]))).then_rejected(rejection);
    given(history()).when(rename(versions(&[3]))).then(renamed("second"));
    given(history()).when(rename(versions(&[1, 3]))).then(renamed("second"));
    given(history()).when(rename(Precondition::Exists)).then(renamed("second"));
}

#[test]
fn numbers_chats_from_one_without_gaps() {
    given([created()]).when(create_chat(1)).then(chat_created(1));
    given([created(), chat_created(1), renamed("x")]).when(create_chat(2)).then(chat_created(2));
}

#[test]
fn rejects_a_chat_number_out_of_order_and_reports_the_next_one() {
    for wrong in [2, 3, u64::from(u32::MAX)] {
        let next = chat_number(1);
        given([created()]).when(create_chat(wrong)).then_rejected(Rejection::NumberOutOfOrder { next });
    }
    for taken_or_ahead in [1, 2, 4] {
        let next = chat_number(3);
        given([created(), chat_created(1), chat_created(2)])
            .when(create_chat(taken_or_ahead))
            .then_rejected(Rejection::NumberOutOfOrder { next });
    }
}

#[test]
fn an_app_has_the_chats_up_to_the_last_number() {
    let state = given([created(), chat_created(1), chat_created(2)]).state();
    assert!(state.has_chat(chat_number(1)));
    assert!(state.has_chat(chat_number(2)));
    assert!(!state.has_chat(chat_number(3)));
    assert!(!given([created()]).state().has_chat(chat_number(1)));
    assert!(!State::Absent.has_chat(chat_number(1)));
    assert_eq!(State::Absent.next_chat_number(), chat_number(1));
}

#[test]
fn rejects_a_stream_that_does_not_start_with_app_created() {
    for first in [renamed("x"), chat_created(1)] {
        let reason = "the app was not created";
        let event = first.event_type();
        assert_eq!(App::fold(&[first]), Err(EvolveError { event, reason }));
    }
}

#[test]
fn rejects_events_that_do_not_follow_from_the_state() {
    let message = || {
        MessageCreated { message_number: message_number(1), body: body("x"), sender: None, data: None }.into()
    };
    let broken: [(&[Event], &str); 5] = [
        (&[created(), created()], "AppCreated"),
        (&[created(), chat_created(2)], "ChatCreated"),
        (&[created(), chat_created(1), chat_created(1)], "ChatCreated"),
        (&[created(), chat_created(1), chat_created(3)], "ChatCreated"),
        (&[created(), message()], "MessageCreated"),
    ];
    for (events, event_type) in broken {
        let error = App::fold(events).expect_err("the events should not fold");
        assert_eq!(error.event, event_type);
    }
}
