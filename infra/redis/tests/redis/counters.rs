//! The contract suite of the Redis counters on a single server, in a cluster and under a sentinel, and further tests of
//! these counters.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chat_domain::AppToken;
use chat_ports::counters::{CounterKey, Counters, ReservationRequest};
use chat_ports::event_store::LogId;
use chat_redis::RedisCounters;
use chat_redis::{RedisConnection, RedisUrl};
use chat_testing::redis::{Redis, RedisCluster, RedisSentinel};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;
use uuid::Uuid;

use chat_ports::contract_tests::counters::{Handle, messages_key, random_app, reserve_range};
use chat_ports::counters_contract;

// The cases of the contract suite share a server, each with a log of its own. The servers stop with the process.

mod one_server {
    use super::*;

    static REDIS: LazyLock<Redis> = LazyLock::new(|| Redis::start().unwrap());

    counters_contract!(open);

    fn open() -> impl Fn() -> Handle {
        handles(&REDIS.url())
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn nagles_algorithm_is_off() {
        assert_nagle_is_off(&REDIS.url()).await;
    }
}

mod cluster {
    use super::*;

    static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(|| RedisCluster::start().unwrap());

    counters_contract!(open);

    fn open() -> impl Fn() -> Handle {
        handles(&CLUSTER.url())
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn nagles_algorithm_is_off() {
        assert_nagle_is_off(&CLUSTER.url()).await;
    }
}

mod under_a_sentinel {
    use super::*;

    static SENTINEL: LazyLock<RedisSentinel> = LazyLock::new(|| RedisSentinel::start().unwrap());

    counters_contract!(open);

    fn open() -> impl Fn() -> Handle {
        handles(&SENTINEL.url())
    }
}

fn handles(url: &str) -> impl Fn() -> Handle + use<> {
    let (url, log) = (url.to_owned(), random_log());
    move || Arc::new(RedisCounters::new(connect(&url), log))
}

/// Checks the connections of this process to the servers of a URL.
#[cfg(target_os = "linux")]
async fn assert_nagle_is_off(url: &str) {
    let counters = handles(url)();
    reserve_range(&*counters, messages_key(random_app(), 1), 1, 0).await;
    let port = |server: &str| server.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let ports: Vec<u16> = url.split(',').map(port).collect();
    chat_testing::sockets::wait_until_nagle_is_off(&ports, 1).await;
}

/// Connects with a long time limit: while Redis runs, it replies within this time, also on a busy machine.
fn connect(url: &str) -> RedisConnection {
    let url: RedisUrl = url.parse().unwrap();
    RedisConnection::open_with_timeout(&url, Duration::from_secs(20)).unwrap()
}

/// Counters with the default time limit.
fn impatient_counters(redis: &Redis) -> RedisCounters {
    let url: RedisUrl = redis.url().parse().unwrap();
    RedisCounters::new(RedisConnection::open(&url).unwrap(), random_log())
}

fn random_log() -> LogId {
    LogId(Uuid::new_v4())
}

/// A new server with counters.
fn new_server() -> (Redis, RedisCounters) {
    let redis = Redis::start().unwrap();
    let counters = RedisCounters::new(connect(&redis.url()), random_log());
    (redis, counters)
}

/// The only key on the server.
fn only_key(redis: &Redis) -> String {
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

fn set(redis: &Redis, key: &str, value: &str) {
    redis.command(&["SET", key, value]).unwrap();
}

fn seconds_to_live(redis: &Redis, key: &str) -> i64 {
    redis.command(&["TTL", key]).unwrap()[0].parse().unwrap()
}

/// Reserves one number. Retries until Redis replies.
async fn reserve_one_with_retries(counters: &dyn Counters, key: CounterKey, floor: u64) -> u64 {
    const TIME_LIMIT: Duration = Duration::from_secs(20);
    let started = Instant::now();
    loop {
        match counters.reserve(&[ReservationRequest { key, count: 1, floor }]).await {
            Ok(firsts) => return firsts[0],
            Err(error) => assert!(started.elapsed() < TIME_LIMIT, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_flushed_counter_is_raised_to_the_floor() {
    let (redis, counters) = new_server();
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 10, 0).await;
    redis.flush().unwrap();
    assert_eq!(reserve_range(&counters, key, 3, 10).await, 11);
    assert_eq!(reserve_range(&counters, key, 1, 13).await, 14);
}

#[tokio::test]
async fn the_metric_of_repairs_counts_each_counter_that_was_behind_the_log() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (redis, counters) = new_server();
    let keys = [messages_key(random_app(), 1), messages_key(random_app(), 2)];
    for key in keys {
        reserve_range(&counters, key, 10, 0).await;
    }
    redis.flush().unwrap();
    for key in keys {
        reserve_range(&counters, key, 1, 10).await;
    }
    let repairs = r#"chat_counter_repairs_total{found="behind"} 2"#;
    assert!(rendered.render().contains(repairs), "{}", rendered.render());
}

#[tokio::test]
async fn a_counter_of_a_server_that_was_restarted_empty_is_raised_to_the_floor() {
    let (mut redis, counters) = new_server();
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 10, 0).await;
    redis.restart_empty().unwrap();
    assert_eq!(reserve_one_with_retries(&counters, key, 10).await, 11);
}

#[tokio::test]
async fn a_counter_of_a_server_that_was_restarted_goes_on() {
    let (mut redis, counters) = new_server();
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 10, 0).await;
    redis.restart().unwrap();
    assert_eq!(reserve_one_with_retries(&counters, key, 0).await, 11);
}

#[tokio::test]
async fn a_counter_from_an_old_copy_is_raised_to_the_floor() {
    let (redis, counters) = new_server();
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 10, 0).await;
    set(&redis, &only_key(&redis), "7");
    assert_eq!(reserve_range(&counters, key, 2, 10).await, 11);
    set(&redis, &only_key(&redis), "11");
    assert_eq!(reserve_range(&counters, key, 5, 12).await, 13);
}

#[tokio::test]
async fn a_value_that_is_not_a_counter_is_replaced() {
    let (redis, counters) = new_server();
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 10, 0).await;
    let name = only_key(&redis);
    for garbage in ["text", "", "1.5", "-3", "nan", "inf", "1e300", "9223372036854775807"] {
        set(&redis, &name, garbage);
        assert_eq!(reserve_range(&counters, key, 1, 10).await, 11, "{garbage:?}");
        assert_eq!(reserve_range(&counters, key, 1, 11).await, 12, "{garbage:?}");
    }
    redis.command(&["DEL", &name]).unwrap();
    redis.command(&["RPUSH", &name, "a", "list"]).unwrap();
    // A list can't be rewound.
    counters.rewind(key, 10, 5).await.unwrap();
    assert_eq!(reserve_range(&counters, key, 1, 10).await, 11);
}

#[tokio::test]
async fn a_very_large_counter_is_rewound_exactly() {
    const AHEAD: u64 = (1 << 60) + 1;
    let (redis, counters) = new_server();
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 1, 0).await;
    set(&redis, &only_key(&redis), &AHEAD.to_string());
    assert_eq!(reserve_range(&counters, key, 1, 5).await, AHEAD + 1);
    counters.rewind(key, AHEAD, 5).await.unwrap();
    assert_eq!(reserve_range(&counters, key, 1, 5).await, AHEAD + 2);
    counters.rewind(key, AHEAD + 2, 5).await.unwrap();
    assert_eq!(reserve_range(&counters, key, 1, 5).await, 6);
}

#[tokio::test]
async fn a_stale_counter_does_not_affect_the_others_of_its_batch() {
    let (redis, counters) = new_server();
    let app = random_app();
    reserve_range(&counters, messages_key(app, 1), 10, 0).await;
    redis.flush().unwrap();
    reserve_range(&counters, messages_key(app, 2), 10, 0).await;
    let request = |chat| ReservationRequest { key: messages_key(app, chat), count: 1, floor: 10 };
    assert_eq!(counters.reserve(&[request(2), request(1), request(2)]).await.unwrap(), [11, 11, 12]);
}

#[tokio::test]
async fn requests_fail_fast_while_paused_and_succeed_after_resume() {
    let redis = Redis::start().unwrap();
    let counters = impatient_counters(&redis);
    let key = messages_key(random_app(), 1);
    reserve_one_with_retries(&counters, key, 0).await;
    redis.pause().unwrap();
    for _ in 0..5 {
        let started = Instant::now();
        let error = counters.reserve(&[ReservationRequest { key, count: 1, floor: 1 }]).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(20), "waited {:?}", started.elapsed());
        assert_eq!(error.to_string(), "the counters can't be reached now");
    }
    redis.resume().unwrap();
    assert!(reserve_one_with_retries(&counters, key, 1).await > 1);
}

#[tokio::test]
async fn counters_work_when_the_server_becomes_available() {
    let mut redis = Redis::start().unwrap();
    redis.kill().unwrap();
    let counters = impatient_counters(&redis);
    let key = messages_key(random_app(), 1);
    counters.reserve(&[ReservationRequest { key, count: 1, floor: 5 }]).await.unwrap_err();
    redis.restart().unwrap();
    // An attempt whose reply came too late may have taken a number.
    assert!(reserve_one_with_retries(&counters, key, 5).await > 5);
}

#[tokio::test]
async fn counters_work_after_a_failover() {
    let redis = RedisSentinel::start().unwrap();
    let counters = RedisCounters::new(connect(&redis.url()), random_log());
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 10, 0).await;
    redis.fail_over().unwrap();
    // The old master may still reserve this number. The new master then does not know it.
    let number = reserve_one_with_retries(&counters, key, 10).await;
    assert!(number > 10);
    assert!(reserve_range(&counters, key, 1, number).await > number);
}

#[tokio::test]
async fn two_logs_in_one_redis_are_separate() {
    let redis = Redis::start().unwrap();
    let key = messages_key(random_app(), 1);
    let (one, other) = (
        RedisCounters::new(connect(&redis.url()), random_log()),
        RedisCounters::new(connect(&redis.url()), random_log()),
    );
    assert_eq!(reserve_range(&one, key, 100, 0).await, 1);
    assert_eq!(reserve_range(&other, key, 1, 0).await, 1);
}

#[tokio::test]
async fn keys_contain_no_token_and_share_a_slot_per_app() {
    let (redis, counters) = new_server();
    let app: AppToken = random_app();
    for key in [CounterKey::Chats(app), messages_key(app, 1), messages_key(app, 2)] {
        reserve_range(&counters, key, 1, 0).await;
    }
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    assert_eq!(keys.len(), 3, "{keys:?}");
    let tag = |key: &String| key.split(['{', '}']).nth(1).unwrap().to_owned();
    for key in &keys {
        assert!(!key.contains(app.expose()), "{key}");
        assert_eq!(tag(key).len(), 32, "{key}");
        assert_eq!(tag(key), tag(&keys[0]));
    }
}

#[tokio::test]
async fn the_use_of_a_counter_renews_its_expiry() {
    let expiry = i64::try_from(RedisCounters::EXPIRY.as_secs()).unwrap();
    let renewed = expiry - 60..=expiry;
    let (redis, counters) = new_server();
    let key = messages_key(random_app(), 1);
    reserve_range(&counters, key, 1, 0).await;
    let name = only_key(&redis);
    let assert_renewed = |by: &str| {
        let seconds = seconds_to_live(&redis, &name);
        assert!(renewed.contains(&seconds), "{seconds} s: {by} did not renew the expiry");
    };
    let shorten_expiry = || redis.command(&["EXPIRE", &name, "1000"]).map(drop).unwrap();
    assert_renewed("the first reservation");

    shorten_expiry();
    reserve_range(&counters, key, 10, 1).await;
    assert!(seconds_to_live(&redis, &name) <= 1_000);
    reserve_range(&counters, key, 60, 11).await;
    assert_renewed("a reservation that passes a multiple of the renewal interval");

    shorten_expiry();
    counters.rewind(key, 71, 70).await.unwrap();
    assert_renewed("a rewind");

    redis.flush().unwrap();
    reserve_range(&counters, key, 1, 70).await;
    assert_renewed("a raise to the floor");
}

#[tokio::test]
async fn urls_errors_and_requests_show_no_secret() {
    let redis = Redis::start().unwrap();
    let url: RedisUrl = redis.url().replace("://", "://user:secret@").parse().unwrap();
    let counters = RedisCounters::new(RedisConnection::open(&url).unwrap(), random_log());
    let app = random_app();
    let request = ReservationRequest { key: CounterKey::Chats(app), count: 1, floor: 0 };
    let error = counters.reserve(&[request]).await.unwrap_err();
    let shown = format!("{url} {url:?} {error} {error:?} {request:?}");
    assert!(!shown.contains("secret") && !shown.contains(app.expose()), "{shown}");
}
