//! What a chat accepts and refuses.

use chat_domain::chat::{Command, Rejection};
use chat_domain::event::{ChatCreated, MessageCreated, MessageDeleted, MessageEdited};
use chat_domain::{Event, Precondition, Version};

use crate::given::{self, Chat, Decider, body, chat_number, message_number};

fn given(events: impl IntoIterator<Item = Event>) -> given::Given<Chat> {
    given::given(events)
}

fn created(number: u64) -> Event {
    MessageCreated { message_number: message_number(number), body: body("Hi") }.into()
}

fn edited(number: u64) -> Event {
    MessageEdited { message_number: message_number(number), body: body("Hello") }.into()
}

fn deleted(number: u64) -> Event {
    MessageDeleted { message_number: message_number(number) }.into()
}

fn create(number: u64) -> Command {
    Command::CreateMessage { number: message_number(number), body: body("Hi") }
}

fn edit_if(number: u64, precondition: Precondition) -> Command {
    Command::EditMessage { number: message_number(number), body: body("Hello"), precondition }
}

fn edit(number: u64) -> Command {
    edit_if(number, Precondition::None)
}

fn delete(number: u64) -> Command {
    Command::DeleteMessage { number: message_number(number) }
}

#[test]
fn messages_are_numbered_from_one_without_a_gap() {
    given([]).when(create(1)).then(created(1));
    given([created(1)]).when(create(2)).then(created(2));
    given([created(1), edited(1), created(2), deleted(1)]).when(create(3)).then(created(3));
}

#[test]
fn a_message_number_out_of_order_is_refused_with_the_one_that_is_next() {
    let next = message_number(1);
    given([]).when(create(2)).then_rejected(Rejection::NumberOutOfOrder { next });
    for wrong in [1, 2, 4] {
        let next = message_number(3);
        given([created(1), created(2)])
            .when(create(wrong))
            .then_rejected(Rejection::NumberOutOfOrder { next });
    }
}

#[test]
fn the_number_of_a_deleted_message_is_never_given_out_again() {
    let next = message_number(2);
    given([created(1), deleted(1)]).when(create(1)).then_rejected(Rejection::NumberOutOfOrder { next });
    given([created(1), deleted(1)]).when(create(2)).then(created(2));
}

#[test]
fn a_message_is_edited_and_edited_again() {
    given([created(1)]).when(edit(1)).then(edited(1));
    given([created(1), edited(1)]).when(edit(1)).then(edited(1));
}

#[test]
fn a_message_that_was_never_created_can_be_neither_edited_nor_deleted() {
    given([]).when(edit(1)).then_rejected(Rejection::NotFound(message_number(1)));
    given([]).when(delete(1)).then_rejected(Rejection::NotFound(message_number(1)));
    given([created(1)]).when(edit(2)).then_rejected(Rejection::NotFound(message_number(2)));
    given([created(1)]).when(delete(2)).then_rejected(Rejection::NotFound(message_number(2)));
}

#[test]
fn a_deleted_message_cannot_be_edited() {
    given([created(1), deleted(1)]).when(edit(1)).then_rejected(Rejection::Deleted(message_number(1)));
    let any = Precondition::AnyOf(vec![Version::new(2)]);
    given([created(1), deleted(1)])
        .when(edit_if(1, any))
        .then_rejected(Rejection::Deleted(message_number(1)));
}

#[test]
fn a_message_is_deleted_once() {
    given([created(1)]).when(delete(1)).then(deleted(1));
    given([created(1), edited(1)]).when(delete(1)).then(deleted(1));
    given([created(1), deleted(1)]).when(delete(1)).then_rejected(Rejection::Deleted(message_number(1)));
}

#[test]
fn an_edit_based_on_a_stale_version_is_refused() {
    let past = || [created(1), edited(1), created(2), edited(2), edited(2)];
    let at = |versions: &[u64]| Precondition::AnyOf(versions.iter().copied().map(Version::new).collect());
    let stale = |version| Rejection::PreconditionFailed(Version::new(version));

    given(past()).when(edit_if(1, at(&[1]))).then_rejected(stale(2));
    given(past()).when(edit_if(1, at(&[3]))).then_rejected(stale(2));
    given(past()).when(edit_if(1, at(&[]))).then_rejected(stale(2));
    given(past()).when(edit_if(2, at(&[2]))).then_rejected(stale(3));
    given(past()).when(edit_if(1, at(&[2]))).then(edited(1));
    given(past()).when(edit_if(2, at(&[1, 3]))).then(edited(2));
    given(past()).when(edit_if(2, Precondition::Exists)).then(edited(2));
    given([created(1)]).when(edit_if(1, at(&[1]))).then(edited(1));
}

#[test]
fn deleted_messages_are_not_counted() {
    assert_eq!(given([]).state().message_count(), 0);
    let state = given([created(1), created(2), created(3), edited(1), deleted(2)]).state();
    assert_eq!(state.message_count(), 2);
    assert_eq!(state.last_message_number(), Some(message_number(3)));
    assert_eq!(state.changed_message_count(), 2);
}

#[test]
fn events_that_do_not_follow_do_not_fold() {
    let chat = || ChatCreated { chat_number: chat_number(1) }.into();
    let broken: [(&[Event], &str); 8] = [
        (&[created(2)], "MessageCreated"),
        (&[created(1), created(1)], "MessageCreated"),
        (&[created(1), created(3)], "MessageCreated"),
        (&[created(1), deleted(1), created(1)], "MessageCreated"),
        (&[edited(1)], "MessageEdited"),
        (&[created(1), deleted(1), edited(1)], "MessageEdited"),
        (&[created(1), deleted(1), deleted(1)], "MessageDeleted"),
        (&[created(1), chat()], "ChatCreated"),
    ];
    for (events, culprit) in broken {
        let refused = Chat::fold(events).expect_err("it must not fold");
        assert_eq!(refused.event, culprit);
    }
}
