//! Contract cases of senders and data of messages.

use chat_domain::{DataChange, MessageData, Sender, SenderId, SenderName, Version};

use super::rows::{
    Beyond, WriterAndReader, changes, chat_number, commit_chat_with_messages, message, message_number,
    page_contents, timestamp, token, tombstone,
};
use crate::read_model::{EditedMessage, MessageRow, MessageWindow, Missing, NewMessage, ReadModelChanges};

/// SQL that creates the tables as they were before messages had senders and data, with the rows that
/// [`commit_chat_with_messages`] commits for three messages. It is for Postgres; SQLite's tests replace the types and
/// the table options.
pub const TABLES_BEFORE_SENDERS: &str = include_str!("tables_before_senders.sql");

fn sender(id: &str, name: Option<&str>) -> Sender {
    Sender { id: sender_id(id), name: name.map(|name| SenderName::parse(name.to_owned()).unwrap()) }
}

fn sender_id(id: &str) -> SenderId {
    SenderId::parse(id.to_owned()).unwrap()
}

fn data(json: &str) -> MessageData {
    json.parse().unwrap()
}

async fn read_message(read_model: &WriterAndReader, number: u64) -> MessageRow {
    let found = read_model.reader.message(token('a'), chat_number(1), message_number(number)).await;
    found.unwrap().value.unwrap()
}

pub async fn senders_and_data_are_read_back_as_they_were_written(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (_, chat, _) = commit_chat_with_messages(&read_model, 0).await;
    let large = format!(r#"{{"a":"{}"}}"#, "\u{1f98a}".repeat(1_000));
    let given = [
        (None, None),
        (
            Some(sender("u-17", Some("Nadia \u{1f98a}"))),
            Some(data(r#"{"b":1.50,"a":[12345678901234567890]}"#)),
        ),
        (Some(sender(" %/'\u{202e}", None)), None),
        (None, Some(data(&large))),
        (Some(sender("u-18", Some(""))), Some(data("{}"))),
    ];
    let new_messages = (1..).zip(&given).map(|(number, (sender, data))| NewMessage {
        sender: sender.clone(),
        data: data.clone(),
        ..message(10 + number, &chat, number)
    });
    let new_messages = new_messages.collect();
    read_model.writer.commit(ReadModelChanges { new_messages, ..changes(1_000, 1_001) }).await.unwrap();

    let page = read_model.reader.messages(token('a'), chat_number(1), MessageWindow::Newest, 10).await;
    let listed = page.unwrap().value.unwrap().messages;
    assert_eq!(listed.len(), given.len());
    for ((number, expected), listed) in (1..).zip(given).zip(listed) {
        let found = read_message(&read_model, number).await;
        assert_eq!(found, listed);
        assert_eq!((found.sender, found.data), expected);
    }
}

pub async fn an_edit_keeps_replaces_or_removes_the_data(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (_, chat, _) = commit_chat_with_messages(&read_model, 0).await;
    let given = Some(data(r#"{"a":1}"#));
    let new_messages = (1..=3).map(|number| NewMessage {
        sender: Some(sender("u-17", None)),
        data: given.clone(),
        ..message(10 + number, &chat, number)
    });
    let new_messages: Vec<NewMessage> = new_messages.collect();
    let update = ReadModelChanges { new_messages: new_messages.clone(), ..changes(1_000, 1_001) };
    read_model.writer.commit(update).await.unwrap();
    let replacement = data(r#"{"b":2}"#);
    let edits = [DataChange::Keep, DataChange::Remove, DataChange::Replace(replacement.clone())];
    let edited_messages = new_messages.iter().zip(edits).map(|(message, data)| EditedMessage {
        id: message.id,
        body: "edited".to_owned(),
        data,
        version: Version::new(2),
        updated_at: timestamp(22),
    });
    let update = ReadModelChanges { edited_messages: edited_messages.collect(), ..changes(1_001, 1_002) };
    read_model.writer.commit(update).await.unwrap();
    for (number, expected) in [(1, given), (2, None), (3, Some(replacement))] {
        let found = read_message(&read_model, number).await;
        assert_eq!((found.body.as_str(), found.data), ("edited", expected));
        assert_eq!(found.sender, Some(sender("u-17", None)));
    }
}

/// Reads a page of one sender's messages, and returns its [`page_contents`].
async fn read_page_of_sender(
    read_model: &WriterAndReader,
    id: &str,
    window: MessageWindow,
    limit: usize,
) -> (Vec<u64>, Beyond) {
    let page =
        read_model.reader.messages_of_sender(token('a'), chat_number(1), sender_id(id), window, limit).await;
    page_contents(&page.unwrap().value.unwrap())
}

pub async fn pages_of_one_sender_hold_no_other_messages(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (_, chat, _) = commit_chat_with_messages(&read_model, 0).await;
    // Messages 3, 6, 9 … 30 are those of `c`.
    let senders = [Some("c"), Some("A"), None];
    let new_messages: Vec<_> = (1..=30)
        .map(|number| NewMessage {
            sender: senders[number % 3].map(|id| sender(id, None)),
            ..message(10 + number as u64, &chat, number as u64)
        })
        .collect();
    let update = ReadModelChanges { new_messages: new_messages.clone(), ..changes(1_000, 1_001) };
    read_model.writer.commit(update).await.unwrap();
    let number = message_number;
    for (window, limit, expected) in [
        (MessageWindow::Newest, 3, (vec![24, 27, 30], Beyond::Older)),
        (MessageWindow::Oldest, 3, (vec![3, 6, 9], Beyond::Newer)),
        (MessageWindow::Before(number(10)), 2, (vec![6, 9], Beyond::OlderAndNewer)),
        (MessageWindow::After(number(25)), 5, (vec![27, 30], Beyond::Older)),
        (MessageWindow::Around(number(15)), 4, (vec![9, 12, 15, 18], Beyond::OlderAndNewer)),
        (MessageWindow::Around(number(29)), 4, (vec![21, 24, 27, 30], Beyond::Older)),
        (MessageWindow::Before(number(3)), 4, (vec![], Beyond::Newer)),
    ] {
        assert_eq!(read_page_of_sender(&read_model, "c", window, limit).await, expected, "{window:?}");
    }
    for id in ["C", "a", "none"] {
        assert_eq!(
            read_page_of_sender(&read_model, id, MessageWindow::Newest, 5).await,
            (vec![], Beyond::Nothing),
            "{id}"
        );
    }
    let deleted_messages = [3, 30].map(|number: usize| tombstone(&new_messages[number - 1])).to_vec();
    let update = ReadModelChanges { deleted_messages, ..changes(1_001, 1_002) };
    read_model.writer.commit(update).await.unwrap();
    assert_eq!(
        read_page_of_sender(&read_model, "c", MessageWindow::Newest, 1).await,
        (vec![27], Beyond::Older)
    );
    assert_eq!(
        read_page_of_sender(&read_model, "c", MessageWindow::Oldest, 1).await,
        (vec![6], Beyond::Newer)
    );
    let missing = read_model.reader.messages_of_sender(
        token('a'),
        chat_number(2),
        sender_id("c"),
        MessageWindow::Newest,
        1,
    );
    assert_eq!(missing.await.unwrap().value, Err(Missing::Chat));
}

/// Checks that a read model with extended tables has the same content as a new one, and accepts the same changes.
/// [`TABLES_BEFORE_SENDERS`] created the tables of `extended`, and a writer of this version then opened it. `fresh` is
/// an empty read model.
pub async fn tables_without_senders_are_extended_in_place(
    extended: &WriterAndReader,
    fresh: &WriterAndReader,
) {
    let (_, chat, messages) = commit_chat_with_messages(fresh, 3).await;
    let digest = extended.reader.digest().await.unwrap();
    assert_eq!(digest, fresh.reader.digest().await.unwrap(), "the extension changed the content");
    let found = read_message(extended, 2).await;
    assert_eq!((found.body.as_str(), found.sender, found.data), ("message 2", None, None));
    assert_eq!(
        read_page_of_sender(extended, "u-17", MessageWindow::Newest, 5).await,
        (vec![], Beyond::Nothing)
    );

    let new = NewMessage {
        sender: Some(sender("u-17", Some("Nadia"))),
        data: Some(data(r#"{"a":1}"#)),
        ..message(1_001, &chat, 4)
    };
    let edit = EditedMessage {
        id: messages[0].id,
        body: "edited".to_owned(),
        data: DataChange::Replace(data(r#"{"b":2}"#)),
        version: Version::new(2),
        updated_at: timestamp(22),
    };
    let update = ReadModelChanges {
        new_messages: vec![new],
        edited_messages: vec![edit],
        deleted_messages: vec![tombstone(&messages[1])],
        ..changes(1_000, 1_001)
    };
    for read_model in [extended, fresh] {
        read_model.writer.commit(update.clone()).await.unwrap();
        assert_eq!(
            read_page_of_sender(read_model, "u-17", MessageWindow::Newest, 5).await,
            (vec![4], Beyond::Nothing)
        );
        assert_eq!(read_message(read_model, 1).await.data, Some(data(r#"{"b":2}"#)));
    }
    assert_eq!(extended.reader.digest().await.unwrap(), fresh.reader.digest().await.unwrap());
}
