//! Writers with counters in a Redis that loses its data, pauses, or refuses writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chat_command_api::command::CommandError;
use chat_domain::{AppToken, ChatNumber, Precondition};
use chat_redis::RedisCounters;
use chat_redis::{RedisConnection, RedisUrl};
use chat_testing::redis::Redis;
use futures::future::{join, join_all};

use crate::test_log::{Client, TIMEOUT, TestLog, within_timeout, writer_on};

/// The pause of a client after an error.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Starts a writer with a separate Redis connection and a separate handle on the log, as in another process.
async fn start_writer(test_log: &TestLog, redis: &Redis) -> Client {
    let url: RedisUrl = redis.url().parse().unwrap();
    let log = test_log.another_handle();
    let counters = RedisCounters::new(RedisConnection::open(&url).unwrap(), log.log_id().await.unwrap());
    writer_on(log, Arc::new(counters))
}

/// Creates a chat or a message. Retries while the counters are unavailable, as they are when Redis replies too late.
async fn create_with_retries<T>(create: impl AsyncFn() -> Result<T, CommandError>) -> T {
    let attempts = async {
        loop {
            match create().await {
                Ok(created) => return created,
                Err(CommandError::CountersUnavailable(_)) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    within_timeout(attempts).await
}

/// Creates messages with concurrent clients. Each client creates its messages in sequence. It repeats a command if the
/// counters were unavailable, or if the command waited too long behind the commands of other writers.
async fn create_messages(
    writers: &[Client],
    app: AppToken,
    chat: ChatNumber,
    created_count: &AtomicUsize,
) -> Vec<u64> {
    const CLIENTS: usize = 12;
    const MESSAGES: usize = 100;
    let client = async |writer: Client| {
        let mut numbers = Vec::with_capacity(MESSAGES);
        while numbers.len() < MESSAGES {
            match writer.create_message(app, chat).await {
                Ok(number) => {
                    numbers.push(number);
                    created_count.fetch_add(1, Ordering::Relaxed);
                }
                Err(CommandError::CountersUnavailable(_) | CommandError::Overloaded) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        numbers
    };
    let clients = (0..CLIENTS).map(|index| client(writers[index % writers.len()].clone()));
    join_all(clients).await.concat()
}

/// Makes Redis lose its data after every 200 messages.
async fn lose_data_repeatedly(
    redis: &mut Redis,
    created_count: &AtomicUsize,
    lose_data: impl Fn(&mut Redis),
) {
    const TIMES: usize = 8;
    const MESSAGES: usize = 200;
    for time in 1..=TIMES {
        while created_count.load(Ordering::Relaxed) < time * MESSAGES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::block_in_place(|| lose_data(redis));
    }
}

async fn writers_share_chats_while_redis_loses_data(lose_data: impl Fn(&mut Redis)) {
    let test_log = TestLog::new();
    let mut redis = Redis::start().unwrap();
    let writers = [
        start_writer(&test_log, &redis).await,
        start_writer(&test_log, &redis).await,
        start_writer(&test_log, &redis).await,
    ];
    let app = writers[0].create_app().await;
    let chats = [
        create_with_retries(async || writers[1].create_chat(app).await).await,
        create_with_retries(async || writers[2].create_chat(app).await).await,
    ];
    let created_count = AtomicUsize::new(0);
    let creations = join_all(chats.map(|chat| create_messages(&writers, app, chat, &created_count)));
    let creations_and_losses = join(creations, lose_data_repeatedly(&mut redis, &created_count, lose_data));
    let (numbers_by_chat, ()) =
        tokio::time::timeout(Duration::from_mins(3), creations_and_losses).await.unwrap();
    for numbers in numbers_by_chat {
        let last = numbers.len() as u64;
        assert_eq!(numbers.into_iter().collect::<BTreeSet<u64>>(), (1..=last).collect());
    }
    // The app and the two chats are three more events.
    assert_eq!(test_log.events().await.len(), 3 + created_count.into_inner());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_gaps_or_duplicates_while_redis_is_flushed() {
    writers_share_chats_while_redis_loses_data(|redis| redis.flush().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_gaps_or_duplicates_while_redis_is_restarted_empty() {
    writers_share_chats_while_redis_loses_data(|redis| redis.restart_empty().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creations_fail_and_edits_succeed_while_redis_is_paused() {
    let test_log = TestLog::new();
    let redis = Redis::start().unwrap();
    let writer = start_writer(&test_log, &redis).await;
    let app = writer.create_app().await;
    let chat = create_with_retries(async || writer.create_chat(app).await).await;
    let number = create_with_retries(async || writer.create_message(app, chat).await).await;
    assert_eq!(number, 1);

    redis.pause().unwrap();
    let create = async || {
        let started = Instant::now();
        let error = writer.create_message(app, chat).await.unwrap_err();
        assert!(matches!(error, CommandError::CountersUnavailable(_)), "{error:?}");
        started.elapsed()
    };
    let waits = join_all((0..20).map(|_| create())).await;
    assert!(waits.iter().all(|wait| *wait < TIMEOUT), "a command waited too long: {waits:?}");
    writer.edit(app, chat, 1, Precondition::Unconditional).await.unwrap();

    redis.resume().unwrap();
    for expected in 2..=4 {
        let number = create_with_retries(async || writer.create_message(app, chat).await).await;
        assert_eq!(number, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_refuses_writes_is_reported_until_it_takes_them() {
    let test_log = TestLog::new();
    let redis = Redis::start().unwrap();
    let writer = start_writer(&test_log, &redis).await;
    let app = writer.create_app().await;
    assert_eq!(writer.service.write_failure(), None);
    // With this limit, Redis refuses writes and still answers PING.
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let refused = writer.create_chat(app).await;
    assert!(matches!(refused, Err(CommandError::CountersUnavailable(_))), "{refused:?}");
    assert!(writer.service.write_failure().is_some());
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    let wait = async {
        while writer.service.write_failure().is_some() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait)
        .await
        .expect("the failure should no longer be reported");
}
