//! Several writers on one log, as in several processes.

use std::collections::BTreeSet;
use std::sync::Arc;

use chat_command_api::command::Command;
use chat_domain::{AppName, AppToken, ChatNumber, Precondition, Version};
use chat_ports::counters::{CounterKey, Counters, InProcessCounters, ReservationRequest};
use chat_ports::event_store::EventStore;
use futures::future::join_all;
use tokio::sync::Notify;

use crate::faults::FaultyLog;
use crate::test_log::{Client, TestLog, rejection_name, writer_on};

async fn create_messages(writers: &[Client], app: AppToken, chat: ChatNumber, count: usize) -> BTreeSet<u64> {
    let creates = (0..count).map(|index| writers[index % writers.len()].create_message(app, chat));
    join_all(creates).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_with_shared_counters_share_a_chat() {
    let test_log = TestLog::new();
    let counters = Arc::clone(&test_log.counters);
    let writers = [test_log.writer(), writer_on(test_log.another_handle(), counters)];
    let app = writers[0].create_app().await;
    let chat = writers[1].create_chat(app).await.unwrap();
    assert_eq!(create_messages(&writers, app, chat, 200).await, (1..=200).collect());
    assert_eq!(test_log.events().await.len(), 202);
}

#[tokio::test]
async fn a_rejection_does_not_hide_an_app_that_another_writer_creates_later() {
    let test_log = TestLog::new();
    let writers = [test_log.writer(), writer_on(test_log.another_handle(), Arc::clone(&test_log.counters))];
    let app = AppToken::generate(|bytes| bytes.fill(7));
    assert_eq!(rejection_name(writers[1].create_chat(app).await), "AppNotFound");
    let name = AppName::parse("app".to_owned()).unwrap();
    writers[0].send(Command::CreateApp { app, name }).await.unwrap();
    assert_eq!(writers[1].create_chat(app).await.unwrap(), ChatNumber::FIRST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_with_separate_counters_share_a_chat() {
    let test_log = TestLog::new();
    let separate_counters = Arc::new(InProcessCounters::default());
    let writers = [test_log.writer(), writer_on(test_log.another_handle(), separate_counters)];
    let app = writers[0].create_app().await;
    let chat = writers[1].create_chat(app).await.unwrap();
    assert_eq!(create_messages(&writers, app, chat, 200).await, (1..=200).collect());
    let chats: BTreeSet<u64> = join_all((0..100).map(|index| writers[index % 2].create_chat(app)))
        .await
        .into_iter()
        .map(|chat| chat.unwrap().get())
        .collect();
    assert_eq!(chats, (2..=101).collect());
    assert_eq!(test_log.events().await.len(), 302);
}

#[tokio::test]
async fn reuses_the_numbers_of_a_dead_writer() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    // Another writer reserved numbers 2 to 6 and died.
    let key = CounterKey::Messages(app, chat);
    test_log.counters.reserve(&[ReservationRequest { key, count: 5, floor: 0 }]).await.unwrap();

    assert_eq!(
        writer.create_message(app, chat).await.unwrap(),
        2,
        "the writer did not reuse the first number of the dead writer"
    );
    // The counter was rewound to the log, so the next reserved number follows the last event.
    let next = test_log.counters.reserve(&[ReservationRequest { key, count: 1, floor: 0 }]).await.unwrap();
    assert_eq!(next, [3]);
}

#[tokio::test]
async fn waits_for_the_append_of_the_number_before_its_own() {
    let test_log = TestLog::new();
    let (predecessor_counters, writer_counters) =
        (Arc::new(InProcessCounters::default()), Arc::clone(&test_log.counters));
    let predecessor = writer_on(test_log.another_handle(), predecessor_counters);
    let log = Arc::new(FaultyLog::on(Arc::clone(&test_log.log)));
    let writer = writer_on(Arc::clone(&log) as Arc<dyn EventStore>, Arc::clone(&writer_counters));
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    // Number 1 is reserved for the predecessor, so the writer gets number 2. While the writer waits, the predecessor
    // appends number 1.
    let key = CounterKey::Messages(app, chat);
    writer_counters.reserve(&[ReservationRequest { key, count: 1, floor: 0 }]).await.unwrap();
    let release = Arc::new(Notify::new());
    log.hold_next_read(Arc::clone(&release));
    let append_of_predecessor = async {
        log.until_held().await;
        let first = predecessor.create_message(app, chat).await;
        release.notify_one();
        first
    };
    let (second, first) = tokio::join!(writer.create_message(app, chat), append_of_predecessor);
    assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
}

#[tokio::test]
async fn counters_that_lost_their_data_continue_from_the_log() {
    let test_log = TestLog::new();
    let writer = test_log.writer();
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    create_messages(&[writer], app, chat, 10).await;
    let empty_counters = Arc::new(InProcessCounters::default());
    let writer = writer_on(Arc::clone(&test_log.log), Arc::clone(&empty_counters) as Arc<dyn Counters>);
    assert_eq!(writer.create_message(app, chat).await.unwrap(), 11);
}

#[tokio::test]
async fn accepts_a_command_that_another_writer_has_just_made_valid() {
    let test_log = TestLog::new();
    let separate_counters = Arc::new(InProcessCounters::default());
    let (writer, other) = (test_log.writer(), writer_on(test_log.another_handle(), separate_counters));
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    // The writer caches the chat with one message.
    writer.edit(app, chat, 1, Precondition::Exists).await.unwrap();
    other.create_message(app, chat).await.unwrap();
    other.edit(app, chat, 1, Precondition::Exists).await.unwrap();

    writer.edit(app, chat, 2, Precondition::Unconditional).await.unwrap();
    writer.edit(app, chat, 1, Precondition::AnyOf(vec![Version::new(3)])).await.unwrap();
    let new_chat = other.create_chat(app).await.unwrap();
    assert_eq!(writer.create_message(app, new_chat).await.unwrap(), 1);
    assert_eq!(
        rejection_name(writer.edit(app, new_chat, 2, Precondition::Unconditional).await),
        "MessageNotFound"
    );
}

#[tokio::test]
async fn rejects_a_command_that_another_writer_has_just_made_invalid() {
    let test_log = TestLog::new();
    let separate_counters = Arc::new(InProcessCounters::default());
    let (writer, other) = (test_log.writer(), writer_on(test_log.another_handle(), separate_counters));
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    writer.edit(app, chat, 1, Precondition::Unconditional).await.unwrap();
    other.delete(app, chat, 1).await.unwrap();
    assert_eq!(
        rejection_name(writer.edit(app, chat, 1, Precondition::Unconditional).await),
        "MessageDeleted"
    );
}
