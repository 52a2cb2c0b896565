//! Events that can't be read: commands on their streams are refused until an operator has discarded them.

use chat_command_api::command::CommandError;
use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::operator_action::{self, DeadLetterDiscarded};
use chat_domain::projection::ProjectionName;
use chat_domain::{
    AppToken, ChatNumber, ExpectedRevision, OperatorAction, Position, Precondition, StreamId, Timestamp,
};
use chat_ports::event_store::{NewEvent, StreamAppend, StreamRead};
use uuid::Uuid;

use crate::test_log::{Client, TestLog};

/// Appends an event to the end of a stream. The event's type and data may be unreadable.
async fn append(test_log: &TestLog, stream: &str, event_type: &'static str, data: &str) -> Position {
    let last = test_log.log.read_stream(StreamRead::last_event(stream)).await.unwrap().pop();
    let append = StreamAppend {
        stream: stream.into(),
        expected_revision: ExpectedRevision::from_last_revision(last.map(|event| event.revision)),
        events: vec![NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type,
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(1_790_000_000_000),
            data: data.to_owned(),
            metadata: "{}".into(),
        }],
    };
    test_log.log.append(vec![append]).await.remove(0).unwrap().position
}

async fn discard(test_log: &TestLog, projection: ProjectionName, position: Position) {
    let discarded = DeadLetterDiscarded { projection, position, reason: "it holds no text".to_owned() };
    let action = OperatorAction::from(discarded);
    append(test_log, operator_action::STREAM, action.event_type(), &action.payload()).await;
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, CommandError>) {
    let error = outcome.expect_err("the command should be refused");
    assert!(matches!(error, CommandError::UnreadableEvent(_)), "{error:?}");
}

/// Creates an app with a chat of two messages, and edits the second message. Returns the app, the chat, and the names
/// of their streams.
async fn app_with_messages(test_log: &TestLog) -> (AppToken, ChatNumber, String, String) {
    let writer = test_log.writer();
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    for _ in 0..2 {
        writer.create_message(app, chat).await.unwrap();
    }
    writer.edit(app, chat, 2, Precondition::Unconditional).await.unwrap();
    (app, chat, StreamId::App(app).to_string(), StreamId::Chat(app, chat).to_string())
}

async fn assert_all_refused(writer: &Client, app: AppToken, chat: ChatNumber) {
    assert_refused(writer.create_message(app, chat).await);
    assert_refused(writer.edit(app, chat, 1, Precondition::Unconditional).await);
    assert_refused(writer.delete(app, chat, 1).await);
}

#[tokio::test]
async fn a_stream_takes_commands_again_after_its_unreadable_last_event_is_discarded() {
    for (event_type, data, next) in [
        // A discarded creation uses number 3, even if its payload has another number.
        ("MessageCreated", r#"{"message_number":3,"body":7}"#, 4),
        ("MessageCreated", "not JSON", 4),
        ("MessageCreated", r#"{"message_number":4000000,"body":"a number of another stream"}"#, 4),
        ("MessageEdited", "not JSON", 3),
        ("MessagePinned", "{}", 3),
    ] {
        let test_log = TestLog::new();
        let (app, chat, _, stream) = app_with_messages(&test_log).await;
        let position = append(&test_log, &stream, event_type, data).await;
        let writer = test_log.writer();
        assert_all_refused(&writer, app, chat).await;
        assert_eq!(writer.service.writer().refused_positions(), [position], "{event_type} {data}");
        // A discard for the search index does not count.
        discard(&test_log, ProjectionName::SearchIndex, position).await;
        assert_all_refused(&writer, app, chat).await;

        discard(&test_log, ProjectionName::ReadModel, position).await;
        writer.service.writer().recheck_refused_streams().await;
        assert!(writer.service.writer().refused_positions().is_empty());
        writer.edit(app, chat, 1, Precondition::Unconditional).await.unwrap();
        assert_eq!(writer.create_message(app, chat).await.unwrap(), next, "{event_type} {data}");
        writer.delete(app, chat, next).await.unwrap();
        // Another process, without a cache, folds the same state.
        let other = test_log.writer();
        assert_eq!(other.create_message(app, chat).await.unwrap(), next + 1);
        let deleted = other.delete(app, chat, next).await;
        assert!(matches!(deleted, Err(CommandError::Rejected(_))), "{deleted:?}");
    }
}

#[tokio::test]
async fn several_discarded_creations_at_the_end_use_a_number_each() {
    let test_log = TestLog::new();
    let (app, chat, _, stream) = app_with_messages(&test_log).await;
    for _ in 0..3 {
        let position = append(&test_log, &stream, "MessageCreated", "{}").await;
        discard(&test_log, ProjectionName::ReadModel, position).await;
    }
    assert_eq!(test_log.writer().create_message(app, chat).await.unwrap(), 6);
}

#[tokio::test]
async fn a_stream_of_nothing_but_discarded_creations_is_continued() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    let stream = StreamId::Chat(app, chat).to_string();
    let position = append(&test_log, &stream, "MessageCreated", "{}").await;
    assert_refused(test_log.writer().create_message(app, chat).await);
    discard(&test_log, ProjectionName::ReadModel, position).await;
    assert_eq!(test_log.writer().create_message(app, chat).await.unwrap(), 2);
}

#[tokio::test]
async fn an_app_takes_commands_again_after_its_unreadable_last_event_is_discarded() {
    for (event_type, next) in [("ChatCreated", 3), ("AppRenamed", 2), ("AppSold", 2)] {
        let test_log = TestLog::new();
        let (app, chat, stream, _) = app_with_messages(&test_log).await;
        let position = append(&test_log, &stream, event_type, "not JSON").await;
        let writer = test_log.writer();
        assert_refused(writer.create_chat(app).await);
        // Commands on a chat with messages need the stream of the chat only, so they are accepted.
        assert_eq!(writer.create_message(app, chat).await.unwrap(), 3);
        discard(&test_log, ProjectionName::ReadModel, position).await;
        let created = writer.create_chat(app).await.unwrap();
        assert_eq!(created.get(), next, "{event_type}");
        assert_eq!(writer.create_message(app, created).await.unwrap(), 1);
        assert!(writer.service.writer().refused_positions().is_empty());
    }
}

#[tokio::test]
async fn an_app_whose_creation_is_discarded_does_not_exist() {
    let test_log = TestLog::new();
    let app = AppToken::generate(|bytes| getrandom::fill(bytes).unwrap());
    let position = append(&test_log, &StreamId::App(app).to_string(), "AppCreated", "not JSON").await;
    let writer = test_log.writer();
    assert_refused(writer.create_chat(app).await);
    discard(&test_log, ProjectionName::ReadModel, position).await;
    let outcome = writer.create_chat(app).await;
    assert!(matches!(outcome, Err(CommandError::Rejected(_))), "{outcome:?}");
}

#[tokio::test]
async fn an_unreadable_change_in_the_middle_of_a_stream_refuses_deletions_but_no_creations() {
    let test_log = TestLog::new();
    let (app, chat, _, stream) = app_with_messages(&test_log).await;
    // This event can be decoded, but there is no message 99.
    let wrong = append(&test_log, &stream, "MessageDeleted", r#"{"message_number":99}"#).await;
    let broken = append(&test_log, &stream, "MessageEdited", "not JSON").await;
    append(&test_log, &stream, "MessageCreated", r#"{"message_number":3,"body":"three"}"#).await;
    let writer = test_log.writer();
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 4);
    assert_refused(writer.delete(app, chat, 1).await);
    discard(&test_log, ProjectionName::ReadModel, wrong).await;
    assert_refused(writer.delete(app, chat, 1).await);
    assert_eq!(writer.service.writer().refused_positions(), [broken]);
    discard(&test_log, ProjectionName::ReadModel, broken).await;
    writer.delete(app, chat, 1).await.unwrap();
    // A message that was edited before the discarded events can be edited again.
    let edited = writer.edit(app, chat, 2, Precondition::Unconditional).await;
    assert!(edited.is_ok(), "{edited:?}");
}
