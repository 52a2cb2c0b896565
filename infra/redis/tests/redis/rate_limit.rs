//! Tests of the rate limiter against a real Redis server.

use std::time::Duration;

use chat_domain::AppToken;
use chat_ports::event_store::LogId;
use chat_ports::rate_limit::{Quota, RateLimitStatus, SharedRateLimiter};
use chat_redis::RedisConnection;
use chat_redis::RedisRateLimiter;
use chat_testing::redis::Redis;
use uuid::Uuid;

fn app(letter: char) -> AppToken {
    AppToken::parse(&letter.to_string().repeat(36)).unwrap()
}

fn quota(requests: u32, seconds: u64) -> Quota {
    Quota { requests: requests.try_into().unwrap(), window: Duration::from_secs(seconds) }
}

/// While Redis runs, it replies within this time, also on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Creates a rate limiter with a connection of its own, as in a separate process.
fn open_limiter(redis: &Redis) -> RedisRateLimiter {
    new_limiter(RedisConnection::open_with_timeout(&redis.url().parse().unwrap(), TIME_LIMIT).unwrap())
}

fn new_limiter(connection: RedisConnection) -> RedisRateLimiter {
    RedisRateLimiter::new(connection, LogId(Uuid::from_u128(1)))
}

#[tokio::test]
async fn a_quota_of_more_than_a_request_per_microsecond_lets_requests_pass() {
    let redis = Redis::start().unwrap();
    let status = open_limiter(&redis).count(app('a'), quota(2_000_000, 1)).await.unwrap();
    assert_eq!(status.retry_after, None);
}

#[tokio::test]
async fn processes_share_the_quota_of_an_app() {
    let redis = Redis::start().unwrap();
    let (one, other) = (open_limiter(&redis), open_limiter(&redis));
    let hourly = quota(3, 3_600);
    for (limiter, expected_remaining) in [(&one, 2), (&other, 1), (&one, 0)] {
        let RateLimitStatus { remaining, reset_after, retry_after } =
            limiter.count(app('a'), hourly).await.unwrap();
        assert_eq!((remaining, retry_after), (expected_remaining, None));
        let refill_time = Duration::from_mins(20) * (3 - expected_remaining);
        assert!(
            reset_after <= refill_time && reset_after + Duration::from_mins(1) > refill_time,
            "the quota is full after {reset_after:?}, not after {refill_time:?}"
        );
    }
    let refused = other.count(app('a'), hourly).await.unwrap();
    assert_eq!(refused.remaining, 0);
    let wait = refused.retry_after.unwrap();
    assert!(wait <= Duration::from_mins(20) && wait > Duration::from_mins(19), "{wait:?}");
    // Another app has a quota of its own.
    assert_eq!(other.count(app('b'), hourly).await.unwrap().remaining, 2);
}

#[tokio::test]
async fn a_used_quota_refills() {
    let redis = Redis::start().unwrap();
    let limiter = open_limiter(&redis);
    let hourly = quota(3, 3_600);
    for _ in 0..3 {
        limiter.count(app('a'), hourly).await.unwrap();
    }
    let wait = limiter.count(app('a'), hourly).await.unwrap().retry_after.unwrap();
    assert!(wait <= Duration::from_mins(20), "{wait:?}");
    // The key holds the time at which the quota is full again. An earlier time there has the same effect as waiting.
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    redis.command(&["DECRBY", &keys[0], &wait.as_micros().to_string()]).unwrap();
    assert_eq!(limiter.count(app('a'), hourly).await.unwrap().retry_after, None);
}

#[tokio::test]
async fn keys_expire_when_the_quota_is_full_again_and_contain_no_token() {
    let redis = Redis::start().unwrap();
    let limiter = open_limiter(&redis);
    limiter.count(app('a'), quota(10, 3_600)).await.unwrap();
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    assert_eq!(keys.len(), 1);
    assert!(!keys[0].contains("aaaa"), "{keys:?}");
    let left: u64 = redis.command(&["PTTL", &keys[0]]).unwrap()[0].parse().unwrap();
    // One of ten requests is used, so the quota is full again after a tenth of the hour.
    assert!(left <= 360_000, "{left} ms");
}

#[tokio::test]
async fn counting_fails_while_redis_is_unavailable() {
    let mut redis = Redis::start().unwrap();
    let limiter = new_limiter(RedisConnection::open(&redis.url().parse().unwrap()).unwrap());
    let counted = async {
        while limiter.count(app('a'), quota(10, 60)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIME_LIMIT, counted).await.unwrap();
    redis.kill().unwrap();
    assert!(limiter.count(app('a'), quota(10, 60)).await.is_err());
}
