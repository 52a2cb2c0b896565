//! Tests of the decider of chats.

use chat_domain::chat::{Command, Rejection};
use chat_domain::event::{ChatCreated, MessageCreated, MessageDeleted, MessageEdited};
use chat_domain::{DataChange, Event, Precondition, Version};

use crate::given::{self, Chat, Decider, body, chat_number, message_number};

fn given(events: impl IntoIterator<Item = Event>) -> given::Given<Chat> {
    given::given(events)
}

fn created(number: u64) -> Event {
    MessageCreated { message_number: message_number(number), body: body("Hi"), sender: None, data: None }
        .into()
}

fn edited(number: u64) -> Event {
    MessageEdited { message_number: message_number(number), body: body("Hello"), data: DataChange::Keep }
        .into()
}

fn deleted(number: u64) -> Event {
    MessageDeleted { message_number: message_number(number) }.into()
}

fn create(number: u64) -> Command {
    Command::CreateMessage { number: message_number(number), body: body("Hi"), sender: None, data: None }
}

fn edit_if(number: u64, precondition: Precondition) -> Command {
    Command::EditMessage {
        number: message_number(number),
        body: body("Hello"),
        data: DataChange::Keep,
        precondition,
    }
}

fn edit(number: u64) -> Command {
    edit_if(number, Precondition::Unconditional)
}

fn delete(number: u64) -> Command {
    delete_if(number, Precondition::Unconditional)
}

fn delete_if(number: u64, precondition: Precondition) -> Command {
    Command::DeleteMessage { number: message_number(number), precondition }
}

#[test]
fn numbers_messages_from_one_without_gaps() {
    given([]).when(create(1)).then(created(1));
    given([created(1)]).when(create(2)).then(created(2));
    given([created(1), edited(1), created(2), deleted(1)]).when(create(3)).then(created(3));
}

#[test]
fn a_precondition_also_applies_to_a_deletion() {
    let stale = Precondition::AnyOf(vec![Version::new(1)]);
    let current = Precondition::AnyOf(vec![Version::new(2)]);
    let excluded = Precondition::NoneOf(vec![Version::new(2)]);
    for refused in [stale, excluded] {
        let rejection = Rejection::PreconditionFailed(Version::new(2));
        given([created(1), edited(1)]).when(delete_if(1, refused)).then_rejected(rejection);
    }
    given([created(1), edited(1)]).when(delete_if(1, current)).then(deleted(1));
}

#[test]
fn rejects_a_message_number_out_of_order_and_reports_the_next_one() {
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
fn does_not_reuse_the_number_of_a_deleted_message() {
    let next = message_number(2);
    given([created(1), deleted(1)]).when(create(1)).then_rejected(Rejection::NumberOutOfOrder { next });
    given([created(1), deleted(1)]).when(create(2)).then(created(2));
}

#[test]
fn edits_a_message_repeatedly() {
    given([created(1)]).when(edit(1)).then(edited(1));
    given([created(1), edited(1)]).when(edit(1)).then(edited(1));
}

#[test]
fn rejects_edits_and_deletions_of_a_missing_message() {
    given([]).when(edit(1)).then_rejected(Rejection::NotFound(message_number(1)));
    given([]).when(delete(1)).then_rejected(Rejection::NotFound(message_number(1)));
    given([created(1)]).when(edit(2)).then_rejected(Rejection::NotFound(message_number(2)));
    given([created(1)]).when(delete(2)).then_rejected(Rejection::NotFound(message_number(2)));
}

#[test]
fn rejects_an_edit_of_a_deleted_message() {
    given([created(1), deleted(1)]).when(edit(1)).then_rejected(Rejection::Deleted(message_number(1)));
    let precondition = Precondition::AnyOf(vec![Version::new(2)]);
    given([created(1), deleted(1)])
        .when(edit_if(1, precondition))
        .then_rejected(Rejection::Deleted(message_number(1)));
}

#[test]
fn deletes_a_message_only_once() {
    given([created(1)]).when(delete(1)).then(deleted(1));
    given([created(1), edited(1)]).when(delete(1)).then(deleted(1));
    given([created(1), deleted(1)]).when(delete(1)).then_rejected(Rejection::Deleted(message_number(1)));
}

#[test]
fn edits_only_if_the_precondition_holds() {
    let history = || [created(1), edited(1), created(2), edited(2), edited(2)];
    let versions = |list: &[u64]| Precondition::AnyOf(list.iter().copied().map(Version::new).collect());
    let rejection = |version| Rejection::PreconditionFailed(Version::new(version));

    given(history()).when(edit_if(1, versions(&[1]))).then_rejected(rejection(2));
    given(history()).when(edit_if(1, versions(&[3]))).then_rejected(rejection(2));
    given(history()).when(edit_if(1, versions(&[]))).then_rejected(rejection(2));
    given(history()).when(edit_if(2, versions(&[2]))).then_rejected(rejection(3));
    given(history()).when(edit_if(1, versions(&[2]))).then(edited(1));
    given(history()).when(edit_if(2, versions(&[1, 3]))).then(edited(2));
    given(history()).when(edit_if(2, Precondition::Exists)).then(edited(2));
    given([created(1)]).when(edit_if(1, versions(&[1]))).then(edited(1));
}

#[test]
fn does_not_count_deleted_messages() {
    assert_eq!(given([]).state().message_count(), 0);
    let state = given([created(1), created(2), created(3), edited(1), deleted(2)]).state();
    assert_eq!(state.message_count(), 2);
    assert_eq!(state.last_message_number(), Some(message_number(3)));
    assert_eq!(state.changed_message_count(), 2);
}

#[test]
fn rejects_events_that_do_not_follow_from_the_state() {
    let chat_created = || ChatCreated { chat_number: chat_number(1) }.into();
    let broken: [(&[Event], &str); 8] = [
        (&[created(2)], "MessageCreated"),
        (&[created(1), created(1)], "MessageCreated"),
        (&[created(1), created(3)], "MessageCreated"),
        (&[created(1), deleted(1), created(1)], "MessageCreated"),
        (&[edited(1)], "MessageEdited"),
        (&[created(1), deleted(1), edited(1)], "MessageEdited"),
        (&[created(1), deleted(1), deleted(1)], "MessageDeleted"),
        (&[created(1), chat_created()], "ChatCreated"),
    ];
    for (events, event_type) in broken {
        let error = Chat::fold(events).expect_err("the events should not fold");
        assert_eq!(error.event, event_type);
    }
}
