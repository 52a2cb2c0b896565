//! Tests of the private Redis instances.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use chat_testing::redis::{Redis, RedisCluster, RedisSentinel};

fn get(redis: &Redis, key: &str) -> Vec<String> {
    redis.command(&["GET", key]).unwrap()
}

#[test]
fn a_restarted_server_keeps_its_data_on_the_same_port() {
    let mut redis = Redis::start().unwrap();
    let url = redis.url();
    redis.command(&["SET", "a", "1"]).unwrap();
    redis.restart().unwrap();
    assert_eq!(get(&redis, "a"), ["1"]);
    redis.kill().unwrap();
    redis.restart().unwrap();
    assert_eq!(get(&redis, "a"), ["1"]);
    assert_eq!(redis.url(), url);
}

#[test]
fn a_flush_or_an_empty_restart_removes_all_keys() {
    let mut redis = Redis::start().unwrap();
    redis.command(&["SET", "a", "1"]).unwrap();
    redis.flush().unwrap();
    assert!(get(&redis, "a").is_empty());
    redis.command(&["SET", "a", "1"]).unwrap();
    redis.restart_empty().unwrap();
    assert!(get(&redis, "a").is_empty());
}

#[test]
fn a_paused_server_answers_after_it_is_resumed() {
    let redis = Redis::start().unwrap();
    redis.command(&["SET", "a", "1"]).unwrap();
    redis.pause().unwrap();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| get(&redis, "a"));
        redis.resume().unwrap();
        assert_eq!(answer.join().unwrap(), ["1"]);
    });
}

#[test]
fn dropping_a_server_ends_it_and_removes_its_folder() {
    let redis = Redis::start().unwrap();
    let folder = redis.command(&["CONFIG", "GET", "dir"]).unwrap().pop().unwrap();
    assert!(Path::new(&folder).is_dir());
    let url = redis.url();
    drop(redis);
    assert!(!Path::new(&folder).exists());
    assert!(std::net::TcpStream::connect(url.trim_start_matches("redis://")).is_err());
}

#[test]
fn a_cluster_of_three_empty_servers_starts() {
    let cluster = RedisCluster::start().unwrap();
    assert_eq!(cluster.key_counts().unwrap(), [0, 0, 0]);
    assert_eq!(cluster.url().matches("127.0.0.1:").count(), 3);
    cluster.flush().unwrap();
}

#[test]
fn a_sentinel_fails_over_to_the_replica() {
    let redis = RedisSentinel::start().unwrap();
    redis.fail_over().unwrap();
    redis.flush().unwrap();
    redis.fail_over().unwrap();
}
