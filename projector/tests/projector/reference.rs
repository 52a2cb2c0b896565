//! A reference implementation of the read model: in memory, one event at a time, for valid logs only.

use std::collections::BTreeMap;

use chat_domain::{AppToken, ChatNumber, Event, MessageNumber, Position, StreamId, Version};
use chat_ports::event_store::RecordedEvent;
use chat_ports::read_model::{AppRow, ChatRow, MessageRow, MessageWindow, Missing, ReadModel};

/// The rows that queries can read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AllRows {
    /// By the position of the app's creation.
    pub apps: BTreeMap<Position, AppRow>,
    pub chats: BTreeMap<(AppToken, ChatNumber), ChatRow>,
    /// `None` for a deleted message.
    pub messages: BTreeMap<(AppToken, ChatNumber, MessageNumber), Option<MessageRow>>,
}

/// Folds a log.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> AllRows {
    let mut rows = AllRows::default();
    for recorded in events {
        let at = recorded.recorded_at;
        match (StreamId::parse(&recorded.stream).unwrap(), recorded.decode().unwrap()) {
            (StreamId::App(token), Event::AppCreated(created)) => {
                let row = AppRow {
                    created_position: recorded.position,
                    token,
                    name: created.name,
                    chat_count: 0,
                    last_chat: None,
                    version: Version::new(1),
                    created_at: at,
                    updated_at: at,
                };
                rows.apps.insert(recorded.position, row);
            }
            (StreamId::App(token), event) => {
                let app = rows.apps.values_mut().find(|app| app.token == token).unwrap();
                app.version = app.version.next();
                app.updated_at = at;
                match event {
                    Event::AppRenamed(renamed) => app.name = renamed.name,
                    Event::ChatCreated(created) => {
                        app.chat_count += 1;
                        app.last_chat = Some(created.chat_number);
                        let row = ChatRow {
                            number: created.chat_number,
                            message_count: 0,
                            version: Version::new(0),
                            created_at: at,
                            updated_at: at,
                        };
                        rows.chats.insert((token, created.chat_number), row);
                    }
                    other => panic!("{other:?}"),
                }
            }
            (StreamId::Chat(token, chat_number), event) => {
                let chat = rows.chats.get_mut(&(token, chat_number)).unwrap();
                chat.version = chat.version.next();
                chat.updated_at = at;
                match event {
                    Event::MessageCreated(created) => {
                        chat.message_count += 1;
                        let row = MessageRow {
                            number: created.message_number,
                            body: created.body.into_string(),
                            sender: created.sender,
                            data: created.data,
                            version: Version::new(1),
                            created_at: at,
                            updated_at: at,
                        };
                        rows.messages.insert((token, chat_number, row.number), Some(row));
                    }
                    Event::MessageEdited(edited) => {
                        let key = (token, chat_number, edited.message_number);
                        let row = rows.messages.get_mut(&key).unwrap().as_mut().unwrap();
                        row.body = edited.body.into_string();
                        row.data = edited.data.apply(row.data.take());
                        row.version = row.version.next();
                        row.updated_at = at;
                    }
                    Event::MessageDeleted(deleted) => {
                        chat.message_count -= 1;
                        rows.messages.insert((token, chat_number, deleted.message_number), None);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    rows
}

/// Reads all rows of a read model through its queries.
pub async fn read_all(model: &impl ReadModel) -> AllRows {
    let mut rows = AllRows::default();
    for app in model.apps(Position::START, 1_000).await.unwrap().value {
        assert_eq!(model.app(app.token).await.unwrap().value.as_ref(), Ok(&app));
        for chat in model.chats(app.token, None, 1_000).await.unwrap().value.unwrap() {
            let page = model.messages(app.token, chat.number, MessageWindow::Newest, 10_000).await.unwrap();
            let listed = page.value.unwrap().messages;
            let mut number = MessageNumber::FIRST;
            loop {
                let key = (app.token, chat.number, number);
                match model.message(app.token, chat.number, number).await.unwrap().value {
                    Ok(message) => drop(rows.messages.insert(key, Some(message))),
                    Err(Missing::Deleted) => drop(rows.messages.insert(key, None)),
                    Err(Missing::Message) => break,
                    Err(missing) => panic!("{missing:?}"),
                }
                number = MessageNumber::next_after(Some(number));
            }
            let read_singly: Vec<_> = rows
                .messages
                .range((app.token, chat.number, MessageNumber::FIRST)..(app.token, chat.number, number))
                .filter_map(|(_, message)| message.clone())
                .collect();
            assert_eq!(listed, read_singly, "the list differs from the messages read one by one");
            rows.chats.insert((app.token, chat.number), chat);
        }
        rows.apps.insert(app.created_position, app);
    }
    rows
}
