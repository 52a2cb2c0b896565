//! Contract cases of message pages.

use super::rows::{
    Beyond, WriterAndReader, changes, commit_chat_with_messages, delete, message, message_number, read_page,
};
use crate::MAX_PAGE_BYTES;
use crate::read_model::{MessageWindow, NewMessage, ReadModelChanges};

pub async fn pages_report_whether_older_and_newer_messages_exist(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    commit_chat_with_messages(&read_model, 5).await;
    let (before, after) =
        (|n| MessageWindow::Before(message_number(n)), |n| MessageWindow::After(message_number(n)));
    for (window, limit, expected) in [
        (MessageWindow::Newest, 10, (vec![1, 2, 3, 4, 5], Beyond::Nothing)),
        (MessageWindow::Newest, 5, (vec![1, 2, 3, 4, 5], Beyond::Nothing)),
        (MessageWindow::Newest, 2, (vec![4, 5], Beyond::Older)),
        (before(4), 2, (vec![2, 3], Beyond::OlderAndNewer)),
        (before(3), 2, (vec![1, 2], Beyond::Newer)),
        (before(99), 2, (vec![4, 5], Beyond::Older)),
        (after(1), 2, (vec![2, 3], Beyond::OlderAndNewer)),
        (after(3), 2, (vec![4, 5], Beyond::Older)),
        (after(3), 1, (vec![4], Beyond::OlderAndNewer)),
    ] {
        assert_eq!(read_page(&read_model, window, limit).await, expected, "{window:?}, {limit}");
    }
}

pub async fn a_page_around_a_message_fills_up_from_the_other_side(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    commit_chat_with_messages(&read_model, 9).await;
    for (number, limit, expected) in [
        (5, 4, (vec![3, 4, 5, 6], Beyond::OlderAndNewer)),
        (5, 1, (vec![5], Beyond::OlderAndNewer)),
        (1, 4, (vec![1, 2, 3, 4], Beyond::Newer)),
        (9, 4, (vec![6, 7, 8, 9], Beyond::Older)),
        (99, 4, (vec![6, 7, 8, 9], Beyond::Older)),
        (5, 100, (vec![1, 2, 3, 4, 5, 6, 7, 8, 9], Beyond::Nothing)),
    ] {
        let window = MessageWindow::Around(message_number(number));
        assert_eq!(read_page(&read_model, window, limit).await, expected, "{number}, {limit}");
    }
}

pub async fn pages_skip_deleted_messages(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (_, _, messages) = commit_chat_with_messages(&read_model, 100).await;
    delete(&read_model, &messages, 3..99).await;
    assert_eq!(read_page(&read_model, MessageWindow::Newest, 2).await, (vec![99, 100], Beyond::Older));
    assert_eq!(
        read_page(&read_model, MessageWindow::After(message_number(2)), 1).await,
        (vec![99], Beyond::OlderAndNewer)
    );
    assert_eq!(
        read_page(&read_model, MessageWindow::Before(message_number(99)), 1).await,
        (vec![2], Beyond::OlderAndNewer)
    );
    assert_eq!(
        read_page(&read_model, MessageWindow::Around(message_number(50)), 2).await,
        (vec![2, 99], Beyond::OlderAndNewer)
    );
}

pub async fn an_empty_page_reports_the_messages_beyond_its_window(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (_, _, messages) = commit_chat_with_messages(&read_model, 2).await;
    assert_eq!(
        read_page(&read_model, MessageWindow::Before(message_number(1)), 5).await,
        (vec![], Beyond::Newer)
    );
    assert_eq!(
        read_page(&read_model, MessageWindow::After(message_number(2)), 5).await,
        (vec![], Beyond::Older)
    );
    delete(&read_model, &messages, [1, 2]).await;
    assert_eq!(read_page(&read_model, MessageWindow::Newest, 5).await, (vec![], Beyond::Nothing));
    assert_eq!(
        read_page(&read_model, MessageWindow::Around(message_number(1)), 5).await,
        (vec![], Beyond::Nothing)
    );
}

pub async fn a_page_of_large_messages_ends_early_and_reports_the_messages_beyond_it(
    open: impl Fn() -> WriterAndReader,
) {
    let read_model = open();
    let (_, chat, mut messages) = commit_chat_with_messages(&read_model, 0).await;
    // Four of the messages 1 to 10 fit on a page. Message 11 is larger than a page may be, and gets a page of its own.
    messages.extend((1..=10).map(|number| NewMessage {
        body: "x".repeat(MAX_PAGE_BYTES / 4),
        ..message(10 + number, &chat, number)
    }));
    messages.push(NewMessage { body: "x".repeat(MAX_PAGE_BYTES + 1), ..message(21, &chat, 11) });
    read_model
        .writer
        .commit(ReadModelChanges { new_messages: messages, ..changes(1_000, 1_001) })
        .await
        .unwrap();
    for (window, expected) in [
        (MessageWindow::Newest, (vec![11], Beyond::Older)),
        (MessageWindow::Before(message_number(11)), (vec![7, 8, 9, 10], Beyond::OlderAndNewer)),
        (MessageWindow::Before(message_number(4)), (vec![1, 2, 3], Beyond::Newer)),
        (MessageWindow::Oldest, (vec![1, 2, 3, 4], Beyond::Newer)),
        (MessageWindow::After(message_number(8)), (vec![9, 10], Beyond::OlderAndNewer)),
        (MessageWindow::Around(message_number(5)), (vec![3, 4, 5, 6], Beyond::OlderAndNewer)),
        (MessageWindow::Around(message_number(1)), (vec![1, 2, 3, 4], Beyond::Newer)),
        (MessageWindow::Around(message_number(11)), (vec![11], Beyond::Older)),
    ] {
        assert_eq!(read_page(&read_model, window, 100).await, expected, "{window:?}");
    }
}
