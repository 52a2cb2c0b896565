//! The sample log of the targets: an app, two chats and some messages.

use std::path::Path;
use std::sync::Arc;

use chat_domain::event::{
    AppCreated, AppRenamed, ChatCreated, MessageCreated, MessageDeleted, MessageEdited,
};
use chat_domain::metadata::EventId;
use chat_domain::{
    Actor, AppName, AppToken, ChatNumber, DataChange, Event, ExpectedRevision, MessageBody, MessageNumber,
    Metadata, Position, Revision, StreamId, Timestamp,
};
use chat_ports::event_store::{EventStore as _, NewEvent, StreamAppend};
use chat_sqlite::SqliteEventStore;
use uuid::Uuid;

/// The time of the first event, in milliseconds. Each further event is a second later than the one before it.
const FIRST_EVENT_AT: i64 = 1_790_000_000_007;

const BODIES: [&str; 8] = [
    "The quick brown fox",
    "jumps over the lazy dog, and l'homme at <b>the \"gate\" & 3.14</b>",
    "Crème brûlée für alle; наша лиса и صباح الخير",
    "我喜欢吃苹果 東京タワーへ行く 안녕하세요 세계",
    "👩‍👩‍👧 said: foxes, outfoxed!",
    "fox fox fox",
    "a line\nand another\tone",
    "the last of them",
];

/// The token of the only app.
pub fn app_token() -> AppToken {
    AppToken::parse(&"k".repeat(AppToken::LENGTH)).expect("a token")
}

/// The events, stream by stream.
fn events() -> Vec<(StreamId, Vec<Event>)> {
    let name = |text: &str| AppName::parse(text.to_owned()).expect("a name");
    let body = |text: &str| MessageBody::parse(text.to_owned()).expect("a body");
    let chat = |number: u64| ChatNumber::try_from(number).expect("a number");
    let message = |number: u64| MessageNumber::try_from(number).expect("a number");
    let mut messages: Vec<Event> = (1..)
        .zip(BODIES)
        .map(|(number, text)| {
            MessageCreated { message_number: message(number), body: body(text), sender: None, data: None }
                .into()
        })
        .collect();
    messages.push(
        MessageEdited { message_number: message(6), body: body("an edited fox"), data: DataChange::Keep }
            .into(),
    );
    messages.push(MessageDeleted { message_number: message(7) }.into());
    vec![
        (
            StreamId::App(app_token()),
            vec![
                AppCreated { name: name("first_app") }.into(),
                ChatCreated { chat_number: chat(1) }.into(),
                ChatCreated { chat_number: chat(2) }.into(),
                AppRenamed { name: name("renamed") }.into(),
            ],
        ),
        (StreamId::Chat(app_token(), chat(1)), messages),
    ]
}

/// Creates the log in a new file, and returns it with its last position.
pub async fn create(path: &Path) -> (Arc<SqliteEventStore>, Position) {
    let log = Arc::new(SqliteEventStore::open(path).expect("a new log"));
    let metadata = Metadata {
        command: "CreateMessage".to_owned(),
        actor: Actor { address: Some("127.0.0.1".to_owned()), ..Actor::default() },
        correlation_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        causation_id: "a-request".to_owned(),
        idempotency: None,
    };
    let metadata: Arc<str> = serde_json::to_string(&metadata).expect("metadata as JSON").into();
    let mut position = Position::START;
    for (stream, events) in events() {
        let stream: Arc<str> = stream.to_string().into();
        for (revision, event) in (0..).zip(events) {
            let new = NewEvent {
                id: EventId::new(Uuid::new_v5(&Uuid::NAMESPACE_OID, &position.get().to_be_bytes())),
                event_type: event.event_type(),
                schema_version: event.schema_version(),
                recorded_at: Timestamp::from_millis(
                    FIRST_EVENT_AT + 1_000 * i64::try_from(position.get()).unwrap_or(0),
                ),
                data: event.payload(),
                metadata: Arc::clone(&metadata),
            };
            let last: Option<u64> = u64::checked_sub(revision, 1);
            let append = StreamAppend {
                stream: Arc::clone(&stream),
                expected_revision: ExpectedRevision::from_last_revision(last.map(Revision::new)),
                events: vec![new],
            };
            position = log.append(vec![append]).await.remove(0).expect("an append").position;
        }
    }
    (log, position)
}
