//! Writers on a fake KurrentDB: truncated streams, faults of the server, and large appends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chat_command_api::command::{Command, CommandError};
use chat_domain::{AppToken, ChatNumber, Event, MessageBody, Position, StreamId};
use chat_kurrentdb::{KurrentDbEventStore, KurrentDbUrl};
use chat_ports::counters::{Counters, InProcessCounters};
use chat_ports::event_store::{EventStore, RecordedEvent};
use chat_testing::kurrentdb::{FakeKurrentDb, FaultPlan};
use futures::future::join_all;

use crate::test_log::{Client, PATIENT_TIMEOUTS, within_timeout, writer_on};

async fn open_log(server: &FakeKurrentDb) -> Arc<dyn EventStore> {
    let url = KurrentDbUrl::parse(&server.url()).unwrap();
    Arc::new(KurrentDbEventStore::open_with_timeouts(&url, PATIENT_TIMEOUTS).await.unwrap())
}

fn new_counters() -> Arc<dyn Counters> {
    Arc::new(InProcessCounters::default())
}

/// Reads the events of a stream. Called while the server injects no faults.
async fn read_stream_events(log: &dyn EventStore, stream: StreamId) -> Vec<RecordedEvent> {
    let (mut events, mut after) = (Vec::new(), Position::START);
    loop {
        let batch = log.read_all(after, 1_000).await.unwrap();
        let Some(last) = batch.last() else { return events };
        after = last.position;
        events.extend(batch.into_iter().filter(|event| *event.stream == *stream.to_string()));
    }
}

fn message_numbers(events: &[RecordedEvent]) -> Vec<u64> {
    let number = |event: &RecordedEvent| match event.decode().unwrap() {
        Event::MessageCreated(created) => created.message_number.get(),
        other => panic!("{other:?}"),
    };
    events.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_on_a_truncated_stream_are_refused_and_those_on_other_streams_are_not() {
    let server = FakeKurrentDb::start().unwrap();
    let log = open_log(&server).await;
    let client = writer_on(Arc::clone(&log), new_counters());
    let app = client.create_app().await;
    let (truncated, other) = (client.create_chat(app).await.unwrap(), client.create_chat(app).await.unwrap());
    client.create_message(app, truncated).await.unwrap();
    let stream = StreamId::Chat(app, truncated).to_string();
    server.set_stream_metadata(&stream, r#"{"$maxCount":2}"#);
    within_timeout(async {
        while log.truncated_streams().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // For the first command, the stream's state is in the writer's cache, and the append is refused. For the second
    // command, the writer has to read the stream, and the read is refused.
    for _ in 0..2 {
        let refused = client.create_message(app, truncated).await;
        assert!(matches!(refused, Err(CommandError::StreamTruncated(_))), "{refused:?}");
    }
    assert_eq!(client.create_message(app, other).await.unwrap(), 1);
    server.set_stream_metadata(&stream, "{}");
    client.service.writer().recheck_refused_streams().await;
    assert_eq!(client.create_message(app, truncated).await.unwrap(), 2);
}

async fn send_messages(
    writers: &[Client],
    app: AppToken,
    chat: ChatNumber,
    count: usize,
) -> Vec<Result<u64, CommandError>> {
    join_all((0..count).map(|index| writers[index % writers.len()].create_message(app, chat))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_acknowledged_number_is_one_event_despite_server_faults() {
    const ROUNDS: usize = 20;
    const MESSAGES_PER_ROUND: usize = 12;
    let server = FakeKurrentDb::start().unwrap();
    let shared_counters = new_counters();
    let writers = [
        writer_on(open_log(&server).await, Arc::clone(&shared_counters)),
        writer_on(open_log(&server).await, shared_counters),
        writer_on(open_log(&server).await, new_counters()),
    ];
    let app = writers[0].create_app().await;
    let chats = [writers[0].create_chat(app).await.unwrap(), writers[1].create_chat(app).await.unwrap()];
    server.set_fault_plan(FaultPlan {
        seed: 11,
        lost_answers: 5,
        dropped: 7,
        not_leader: 11,
        not_ready: 11,
        timed_out: 13,
        ..FaultPlan::default()
    });
    let mut acknowledged_by_chat = [const { Vec::new() }; 2];
    let mut failed = 0;
    for _ in 0..ROUNDS {
        let outcomes_by_chat =
            join_all(chats.map(|chat| send_messages(&writers, app, chat, MESSAGES_PER_ROUND))).await;
        for (acknowledged, outcomes) in acknowledged_by_chat.iter_mut().zip(outcomes_by_chat) {
            for outcome in outcomes {
                match outcome {
                    Ok(number) => acknowledged.push(number),
                    Err(_) => failed += 1,
                }
            }
        }
    }
    server.set_fault_plan(FaultPlan::default());
    let log = open_log(&server).await;
    for (chat, acknowledged) in chats.into_iter().zip(acknowledged_by_chat) {
        let stored = message_numbers(&read_stream_events(&*log, StreamId::Chat(app, chat)).await);
        assert_eq!(stored, (1..=stored.len() as u64).collect::<Vec<_>>());
        let distinct: BTreeSet<u64> = acknowledged.iter().copied().collect();
        assert_eq!(distinct.len(), acknowledged.len(), "a number was acknowledged twice");
        assert!(
            distinct.iter().all(|number| stored.contains(number)),
            "an acknowledged number is not stored"
        );
    }
    // Commands are retried until their appends are answered; otherwise half of them would fail. A command that a
    // stalled machine delays for more than five seconds is not retried.
    let sent = ROUNDS * MESSAGES_PER_ROUND * chats.len();
    assert!(failed * 4 < sent, "{failed} of {sent} commands failed");
}

#[tokio::test]
async fn splits_large_messages_to_one_chat_into_appends_that_the_server_accepts() {
    const MESSAGES: u64 = 40;
    let server = FakeKurrentDb::start().unwrap();
    let log = open_log(&server).await;
    let writer = writer_on(Arc::clone(&log), new_counters());
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();
    // This character takes six bytes in JSON.
    let body = MessageBody::parse("\u{1}".repeat(65_536)).unwrap();
    let create = |body| writer.send(Command::CreateMessage { app, chat, body, sender: None, data: None });
    let outcomes = join_all((0..MESSAGES).map(|_| create(body.clone()))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let stored = message_numbers(&read_stream_events(&*log, StreamId::Chat(app, chat)).await);
    assert_eq!(stored, (1..=MESSAGES + 1).collect::<Vec<_>>());
}
