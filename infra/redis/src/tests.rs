//! Tests of [`RedisConnection`] with real servers, some of which are paused, killed or restarted.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use chat_testing::redis::{Redis, RedisCluster, RedisSentinel};
use redis::Value;
use tokio::time::Instant;

use super::link::Connector;
use super::{Pipeline, RedisConnection, RedisUnavailable, Reply, Script};

static ADD_TWICE: LazyLock<Script> =
    LazyLock::new(|| Script::new("return redis.call('INCRBY', KEYS[1], 2 * ARGV[1])"));

/// The time within which a Redis that has returned is used again, also on a busy machine.
const RECONNECT_LIMIT: Duration = Duration::from_secs(20);

/// The time within which calls fail while Redis is paused, also on a busy machine. [`MANY_CALLS`] calls would take
/// longer if each waited for its own time limit.
const FAILURE_LIMIT: Duration = Duration::from_secs(20);

const MANY_CALLS: usize = 100;

/// Connects with a long time limit: while Redis runs, it replies within this time, also on a busy machine.
fn connect(url: &str) -> RedisConnection {
    RedisConnection::open_with_timeout(&url.parse().unwrap(), Duration::from_secs(20)).unwrap()
}

fn connect_with_default_timeout(url: &str) -> RedisConnection {
    RedisConnection::open(&url.parse().unwrap()).unwrap()
}

fn increase(keys: &[&str]) -> Pipeline<'static> {
    let mut pipeline = Pipeline::default();
    for &key in keys {
        let mut command = redis::cmd("INCR");
        command.arg(key);
        pipeline.command(command);
    }
    pipeline
}

fn numbers(replies: Vec<Reply>) -> Vec<i64> {
    let number = |reply: Reply| match reply {
        Ok(Value::Int(number)) => number,
        other => panic!("{other:?}"),
    };
    replies.into_iter().map(number).collect()
}

/// Retries until Redis replies.
async fn wait_until_available(connection: &RedisConnection) {
    let started = Instant::now();
    while connection.ping().await.is_err() {
        assert!(started.elapsed() < RECONNECT_LIMIT, "Redis does not reply");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Retries until a ping fails for a cause whose text contains `cause`. The first pings may fail for another cause: no
/// attempt to connect has ended yet, or one has met a server that is about to end.
async fn wait_for_failure(connection: &RedisConnection, cause: &str) -> RedisUnavailable {
    let started = Instant::now();
    loop {
        let failure = connection.ping().await.unwrap_err();
        if format!("{failure:?}").contains(cause) {
            return failure;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{failure:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn assert_takes_at_most<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let result = future.await;
    assert!(started.elapsed() <= limit, "took {:?}", started.elapsed());
    result
}

async fn assert_answers_in_order(url: &str) {
    let connection = connect(url);
    let keys: Vec<String> = (0..100).map(|key| format!("{{{key}}}:n")).collect();
    let mut pipeline = increase(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    for (count, key) in keys.iter().enumerate() {
        pipeline.script(&ADD_TWICE, key, count);
    }
    let replies = numbers(connection.run(&pipeline).await.unwrap());
    let expected: Vec<i64> = [1; 100].into_iter().chain((0..100).map(|count| 1 + 2 * count)).collect();
    assert_eq!(replies, expected);
}

#[tokio::test]
async fn a_server_answers_in_order() {
    let redis = Redis::start().unwrap();
    assert_answers_in_order(&redis.url()).await;
}

#[tokio::test]
async fn a_cluster_answers_in_order() {
    let cluster = RedisCluster::start().unwrap();
    assert_answers_in_order(&cluster.url()).await;
    assert!(cluster.key_counts().unwrap().into_iter().all(|keys| keys > 0), "not every server has keys");
}

#[tokio::test]
async fn a_paused_server_of_a_cluster_does_not_block_the_others() {
    let cluster = RedisCluster::start().unwrap();
    // Longer than any delay of a reply on a busy machine.
    let timeout = Duration::from_secs(5);
    let connection = RedisConnection::open_with_timeout(&cluster.url().parse().unwrap(), timeout).unwrap();
    wait_until_available(&connection).await;
    let keys: Vec<String> = (0..20).map(|key| format!("{{{key}}}:n")).collect();
    connection.run(&increase(&keys.iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
    let (paused, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| cluster.has_key(0, key).unwrap());
    cluster.pause(0).unwrap();
    assert_takes_at_most(FAILURE_LIMIT, connection.run(&increase(&[paused[0]]))).await.unwrap_err();
    // If each call waited for the paused server, the calls would take several times the limit below.
    let all_others = async {
        for key in &others {
            connection.run(&increase(&[key])).await.unwrap();
        }
    };
    assert_takes_at_most(2 * timeout, all_others).await;
    cluster.resume(0).unwrap();
    let started = Instant::now();
    while connection.run(&increase(&[paused[0]])).await.is_err() {
        assert!(started.elapsed() < RECONNECT_LIMIT, "the resumed server is not used");
    }
}

#[tokio::test]
async fn follows_a_sentinel_failover() {
    let redis = RedisSentinel::start().unwrap();
    assert_answers_in_order(&redis.url()).await;
    let connection = connect(&redis.url());
    connection.ping().await.unwrap();
    redis.fail_over().unwrap();
    let started = Instant::now();
    while connection.run(&increase(&["a"])).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "the new master is not found");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn sentinels_may_need_the_password_of_the_servers_or_none() {
    for protects_sentinels in [false, true] {
        let redis = RedisSentinel::start().unwrap();
        let url = redis.set_password("secret", protects_sentinels).unwrap();
        assert_answers_in_order(&url).await;
    }
}

#[tokio::test]
async fn reloads_an_unknown_script_and_runs_it_once() {
    let redis = Redis::start().unwrap();
    let connection = connect(&redis.url());
    let mut pipeline = increase(&["a"]);
    pipeline.script(&ADD_TWICE, "a", 5);
    pipeline.script(&ADD_TWICE, "b", 1);
    assert_eq!(numbers(connection.run(&pipeline).await.unwrap()), [1, 11, 2]);
    redis.command(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(numbers(connection.run(&pipeline).await.unwrap()), [12, 22, 4]);
}

#[tokio::test]
async fn a_refused_command_does_not_affect_the_others() {
    let redis = Redis::start().unwrap();
    redis.command(&["SET", "text", "text"]).unwrap();
    let mut replies = connect(&redis.url()).run(&increase(&["a", "text", "b"])).await.unwrap();
    assert!(replies.remove(1).is_err());
    assert_eq!(numbers(replies), [1, 1]);
}

#[tokio::test]
async fn fails_fast_while_paused_and_recovers_on_resume() {
    let redis = Redis::start().unwrap();
    let connection = connect_with_default_timeout(&redis.url());
    wait_until_available(&connection).await;
    redis.pause().unwrap();
    assert_takes_at_most(FAILURE_LIMIT, connection.run(&increase(&["a"]))).await.unwrap_err();
    // The connection is reported as failed now, so later calls fail without a wait.
    let many = async {
        for _ in 0..MANY_CALLS {
            connection.run(&increase(&["a"])).await.unwrap_err();
        }
    };
    assert_takes_at_most(FAILURE_LIMIT, many).await;
    redis.resume().unwrap();
    wait_until_available(&connection).await;
}

#[tokio::test]
async fn a_restarted_server_is_used_again() {
    let mut redis = Redis::start().unwrap();
    let connection = connect(&redis.url());
    assert_eq!(numbers(connection.run(&increase(&["a"])).await.unwrap()), [1]);
    redis.restart().unwrap();
    wait_until_available(&connection).await;
    assert_eq!(numbers(connection.run(&increase(&["a"])).await.unwrap()), [2]);
}

#[tokio::test]
async fn treats_a_read_only_server_as_unavailable() {
    let (redis, master) = (Redis::start().unwrap(), Redis::start().unwrap());
    let connection = connect(&redis.url());
    connection.run(&increase(&["a"])).await.unwrap();
    redis.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).unwrap();
    connection.run(&increase(&["a"])).await.unwrap_err();
    redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    connection.run(&increase(&["a"])).await.unwrap();
}

#[tokio::test]
async fn retries_if_the_connection_was_closed_while_idle() {
    let redis = Redis::start().unwrap();
    let connection = connect(&redis.url());
    for round in 1..=20 {
        assert_eq!(numbers(connection.run(&increase(&["a"])).await.unwrap()), [round]);
        redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
    }
}

#[tokio::test]
async fn connects_when_the_server_becomes_available() {
    let mut redis = Redis::start().unwrap();
    redis.kill().unwrap();
    let connection = connect_with_default_timeout(&redis.url());
    let unavailable = wait_for_failure(&connection, "refused").await;
    assert_eq!(unavailable.to_string(), "there is no connection to Redis");
    let cause = std::error::Error::source(&unavailable).unwrap().to_string();
    assert!(cause.contains("refused"), "{cause}");
    redis.restart().unwrap();
    wait_until_available(&connection).await;
}

#[tokio::test]
async fn authenticates_with_user_and_password() {
    let redis = Redis::start().unwrap();
    redis.command(&["ACL", "SETUSER", "chat", "on", ">p@ss", "~*", "+@all"]).unwrap();
    let url = |password: &str| redis.url().replace("://", &format!("://chat:{password}@"));
    connect(&url("p%40ss")).ping().await.unwrap();
    let refused =
        wait_for_failure(&connect_with_default_timeout(&url("other")), "AuthenticationFailed").await;
    let text = format!("{refused:?}");
    assert!(!text.contains("other"), "{text}");
}

#[tokio::test]
async fn a_server_without_tls_is_an_error_not_a_panic() {
    let redis = Redis::start().unwrap();
    connect_with_default_timeout(&redis.url().replace("redis:", "rediss:")).ping().await.unwrap_err();
}

#[tokio::test]
async fn connects_again_after_sentinels_begin_or_cease_to_ask_for_a_password() {
    let redis = RedisSentinel::start().unwrap();
    let url = redis.set_password("secret", true).unwrap();
    let mut connector = Connector::new(&url.parse().unwrap(), RedisConnection::TIMEOUT).unwrap();
    assert!(connector.connect().await.is_ok());

    let sentinel = url.replace("redis+sentinel", "redis").rsplit_once('/').unwrap().0.to_owned();
    let client = redis::Client::open(sentinel).unwrap();
    let mut at_sentinel = client.get_multiplexed_async_connection().await.unwrap();
    let command = async |words: &[&str], connection: &mut redis::aio::MultiplexedConnection| {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async::<Value>(connection).await.unwrap();
    };
    let disconnect_others: &[&str] = &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    for default_user in [&["nopass"][..], &["resetpass", ">secret"]] {
        let set_user = [&["ACL", "SETUSER", "default"], default_user].concat();
        command(&set_user, &mut at_sentinel).await;
        command(disconnect_others, &mut at_sentinel).await;
        assert!(connector.connect().await.is_ok(), "{default_user:?}");
    }
}

#[tokio::test]
async fn a_master_that_refuses_the_password_of_its_sentinels_is_reported_each_time() {
    let redis = RedisSentinel::start().unwrap();
    // The servers have the password `other`. The sentinels and the URL have `secret`.
    let url = redis.set_password("other", false).unwrap().replace("other", "secret");
    let sentinel = redis.url().replace("redis+sentinel", "redis").rsplit_once('/').unwrap().0.to_owned();
    let client = redis::Client::open(sentinel).unwrap();
    let mut at_sentinel = client.get_multiplexed_async_connection().await.unwrap();
    let mut set_user = redis::cmd("ACL");
    set_user.arg(&["SETUSER", "default", "resetpass", ">secret"]);
    set_user.query_async::<Value>(&mut at_sentinel).await.unwrap();

    let mut connector = Connector::new(&url.parse().unwrap(), RedisConnection::TIMEOUT).unwrap();
    for attempt in 1..=3 {
        let error = connector.connect().await.err().unwrap();
        assert_eq!(error.kind(), redis::ErrorKind::AuthenticationFailed, "attempt {attempt}: {error}");
    }
}
