//! One writer: the numbers it assigns, the commands it rejects, and the metadata it stores.

use chat_domain::metadata::ActorKind;
use chat_domain::{Actor, AppName, AppToken, ChatNumber, Metadata, Precondition, Version};
use futures::future::join_all;

use chat_command_api::command::Command;

use crate::test_log::{TestLog, rejection_name};

#[tokio::test]
async fn numbers_start_at_one_in_each_app_and_each_chat() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    for _ in 0..2 {
        let app = writer.create_app().await;
        for expected_chat in 1..=2 {
            let chat = writer.create_chat(app).await.unwrap();
            assert_eq!(chat.get(), expected_chat);
            for expected_message in 1..=3 {
                assert_eq!(writer.create_message(app, chat).await.unwrap(), expected_message);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_concurrent_messages_in_one_chat_get_consecutive_numbers() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    let mut numbers: Vec<u64> = join_all((0..200).map(|_| writer.create_message(app, chat)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restarted_writer_continues_from_the_log() {
    let test_log = TestLog::new();
    let first = test_log.writer();
    let app = first.create_app().await;
    let chat = first.create_chat(app).await.unwrap();
    for _ in 0..3 {
        first.create_message(app, chat).await.unwrap();
    }
    first.delete(app, chat, 3).await.unwrap();
    first.edit(app, chat, 1, Precondition::Unconditional).await.unwrap();
    drop(first);
    // The restarted process has empty counters.
    let test_log = TestLog { counters: TestLog::new().counters, ..test_log };
    let second = test_log.writer();
    assert_eq!(second.create_message(app, chat).await.unwrap(), 4);
    assert_eq!(second.create_chat(app).await.unwrap().get(), 2);
    assert_eq!(
        rejection_name(second.edit(app, chat, 3, Precondition::Unconditional).await),
        "MessageDeleted"
    );
}

#[tokio::test]
async fn rejects_commands_on_missing_apps_chats_and_messages_without_using_a_number() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let missing_app = AppToken::generate(|bytes| bytes.fill(7));
    let name = AppName::parse("new".to_owned()).unwrap();
    assert_eq!(rejection_name(writer.create_chat(missing_app).await), "AppNotFound");
    let rename = Command::RenameApp { app: missing_app, name, precondition: Precondition::Unconditional };
    assert_eq!(rejection_name(writer.send(rename).await), "AppNotFound");
    assert_eq!(rejection_name(writer.create_message(missing_app, ChatNumber::FIRST).await), "AppNotFound");

    let app = writer.create_app().await;
    assert_eq!(rejection_name(writer.create_message(app, ChatNumber::FIRST).await), "ChatNotFound");
    assert_eq!(rejection_name(writer.delete(app, ChatNumber::FIRST, 1).await), "ChatNotFound");
    let chat = writer.create_chat(app).await.unwrap();
    assert_eq!(chat, ChatNumber::FIRST);
    assert_eq!(
        rejection_name(writer.edit(app, chat, 1, Precondition::Unconditional).await),
        "MessageNotFound"
    );
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 1);
    assert_eq!(test_log.events().await.len(), 3);
}

#[tokio::test]
async fn rejects_changes_of_a_deleted_message_and_does_not_reuse_its_number() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    writer.delete(app, chat, 1).await.unwrap();
    assert_eq!(rejection_name(writer.delete(app, chat, 1).await), "MessageDeleted");
    assert_eq!(
        rejection_name(writer.edit(app, chat, 1, Precondition::Unconditional).await),
        "MessageDeleted"
    );
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 2);
}

#[tokio::test]
async fn rejects_a_stale_version() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    let at_version = |version| Precondition::AnyOf(vec![Version::new(version)]);
    writer.edit(app, chat, 1, at_version(1)).await.unwrap();
    assert_eq!(rejection_name(writer.edit(app, chat, 1, at_version(1)).await), "PreconditionFailed");
    writer.edit(app, chat, 1, at_version(2)).await.unwrap();
    writer.edit(app, chat, 1, Precondition::Exists).await.unwrap();

    let rename = |precondition| {
        let name = AppName::parse("new".to_owned()).unwrap();
        writer.send(Command::RenameApp { app, name, precondition })
    };
    // The app is at version 2: its stream holds AppCreated and ChatCreated.
    assert_eq!(rejection_name(rename(at_version(1)).await), "PreconditionFailed");
    rename(at_version(2)).await.unwrap();
}

#[tokio::test]
async fn stores_the_metadata_with_the_event() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let metadata = Metadata {
        command: "CreateApp".to_owned(),
        actor: Actor {
            kind: ActorKind::Admin,
            name: Some("alice".to_owned()),
            address: Some("::1".to_owned()),
            user_agent: Some("curl/8".to_owned()),
        },
        correlation_id: "trace".to_owned(),
        causation_id: "request".to_owned(),
        idempotency: None,
    };
    let app = AppToken::generate(|bytes| bytes.fill(7));
    let name = AppName::parse("app".to_owned()).unwrap();
    let outcome =
        writer.service.execute(Command::CreateApp { app, name }, metadata.clone(), None).await.unwrap();
    let events = test_log.events().await;
    assert_eq!(events[0].position, outcome.position);
    assert_eq!(events[0].decode().unwrap(), outcome.event);
    assert_eq!(serde_json::from_slice::<Metadata>(&events[0].metadata).unwrap(), metadata);
    assert_eq!(writer.service.writer().observed_position(), outcome.position);
}
