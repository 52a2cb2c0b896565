//! Several writers on one log whose counters are in Redis, which forgets.

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

use crate::stage::{Client, Stage, writer_on};

/// How long a client that was refused rests.
const AGAIN: Duration = Duration::from_millis(10);

/// A writer with a connection and a handle on the log of its own, as a process has.
async fn writer(stage: &Stage, redis: &Redis) -> Client {
    let url: RedisUrl = redis.url().parse().unwrap();
    let log = stage.another_handle();
    let counters = RedisCounters::new(RedisConnection::open(&url).unwrap(), log.log_id().await.unwrap());
    writer_on(log, Arc::new(counters))
}

/// Clients that create messages one after the other, and try again where the counters are away.
async fn fill(writers: &[Client], app: AppToken, chat: ChatNumber, done: &AtomicUsize) -> Vec<u64> {
    const CLIENTS: usize = 12;
    const MESSAGES: usize = 100;
    let client = async |writer: Client| {
        let mut numbers = Vec::with_capacity(MESSAGES);
        while numbers.len() < MESSAGES {
            match writer.create_message(app, chat).await {
                Ok(number) => {
                    numbers.push(number);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Err(CommandError::CountersUnavailable(_)) => tokio::time::sleep(AGAIN).await,
                Err(error) => panic!("{error:?}"),
            }
        }
        numbers
    };
    let clients = (0..CLIENTS).map(|index| client(writers[index % writers.len()].clone()));
    join_all(clients).await.concat()
}

/// Makes Redis forget each time that so many messages more are there.
async fn forget_again_and_again(redis: &mut Redis, done: &AtomicUsize, forget: impl Fn(&mut Redis)) {
    const TIMES: usize = 8;
    const MESSAGES: usize = 200;
    for time in 1..=TIMES {
        while done.load(Ordering::Relaxed) < time * MESSAGES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::block_in_place(|| forget(redis));
    }
}

async fn writers_share_chats_while_redis_forgets(forget: impl Fn(&mut Redis)) {
    let stage = Stage::new();
    let mut redis = Redis::start().unwrap();
    let writers = [writer(&stage, &redis).await, writer(&stage, &redis).await, writer(&stage, &redis).await];
    let app = writers[0].create_app().await;
    let chats = [writers[1].create_chat(app).await.unwrap(), writers[2].create_chat(app).await.unwrap()];
    let done = AtomicUsize::new(0);
    let filled = join_all(chats.map(|chat| fill(&writers, app, chat, &done)));
    let all = join(filled, forget_again_and_again(&mut redis, &done, forget));
    let (numbers, ()) = tokio::time::timeout(Duration::from_mins(1), all).await.unwrap();
    for numbers in numbers {
        let last = numbers.len() as u64;
        assert_eq!(numbers.into_iter().collect::<BTreeSet<u64>>(), (1..=last).collect());
    }
    assert_eq!(stage.events().await.len(), 3 + done.into_inner());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_gap_and_no_double_while_redis_is_flushed() {
    writers_share_chats_while_redis_forgets(|redis| redis.flush().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_gap_and_no_double_while_redis_is_restarted_empty() {
    writers_share_chats_while_redis_forgets(|redis| redis.restart_empty().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_a_second_for_a_redis_that_is_paused_and_edits_go_on() {
    const LONGEST: Duration = Duration::from_secs(1);
    let stage = Stage::new();
    let redis = Redis::start().unwrap();
    let writer = writer(&stage, &redis).await;
    let app = writer.create_app().await;
    let chat = writer.create_chat(app).await.unwrap();
    writer.create_message(app, chat).await.unwrap();

    redis.pause().unwrap();
    let create = async || {
        let asked = Instant::now();
        let error = writer.create_message(app, chat).await.unwrap_err();
        assert!(matches!(error, CommandError::CountersUnavailable(_)), "{error:?}");
        asked.elapsed()
    };
    let waits = join_all((0..20).map(|_| create())).await;
    assert!(waits.iter().all(|wait| *wait < LONGEST), "{waits:?}");
    writer.edit(app, chat, 1, Precondition::None).await.unwrap();

    redis.resume().unwrap();
    let back = Instant::now();
    while let Err(error) = writer.create_message(app, chat).await {
        assert!(back.elapsed() < LONGEST, "{error:?}");
        tokio::time::sleep(AGAIN).await;
    }
    let numbers =
        [writer.create_message(app, chat).await.unwrap(), writer.create_message(app, chat).await.unwrap()];
    assert_eq!(numbers, [3, 4]);
}
