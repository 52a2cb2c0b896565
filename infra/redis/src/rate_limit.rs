//! The rate limiter in Redis or Valkey.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::AppToken;
use chat_ports::event_store::LogId;
use chat_ports::rate_limit::{Quota, RateLimitStatus, SharedRateLimiter, SharedRateLimiterError};
use redis::Value;
use thiserror::Error;

use crate::{Pipeline, RedisConnection, Script, key_parts};

/// Rate limits in Redis or Valkey, with a key for each app with recent requests: `chat:{APP}:LOG:limit`.
#[derive(Clone)]
pub struct RedisRateLimiter {
    connection: RedisConnection,
    log_key_part: String,
}

/// The generic cell rate algorithm, by the clock of Redis, in microseconds. The key holds the time at which the quota will
/// be full again. A request adds the refill time of one request, and is refused if the result exceeds the window.
static GCRA: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local each, window = tonumber(ARGV[1]), tonumber(ARGV[2])
        local back = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now) or now)
        local after = back + each
        if after - now > window then return {0, back - now, after - window - now} end
        redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
        return {1, after - now, 0}
        ",
    )
});

/// A reply other than the three numbers of the script.
#[derive(Debug, Error)]
#[error("unexpected rate-limit reply from Redis: {0:?}")]
struct UnexpectedReply(Value);

impl RedisRateLimiter {
    /// Creates the rate limiter for the apps of a log.
    pub fn new(connection: RedisConnection, log: LogId) -> Self {
        Self { connection, log_key_part: key_parts::for_log(log) }
    }
}

#[async_trait]
impl SharedRateLimiter for RedisRateLimiter {
    async fn count(&self, app: AppToken, quota: Quota) -> Result<RateLimitStatus, SharedRateLimiterError> {
        let each = micros(quota.window) / u64::from(quota.requests.get());
        // The refill time of the whole quota: the window without the remainder of the division.
        let window = each * u64::from(quota.requests.get());
        let key = format!("chat:{{{}}}:{}:limit", key_parts::for_app(app), self.log_key_part);
        let mut pipeline = Pipeline::default();
        pipeline.script(&GCRA, &key, &[each, window]);
        let reply =
            self.connection.run(&pipeline).await.map_err(|error| SharedRateLimiterError(error.into()))?.pop();
        let value = reply.unwrap_or(Ok(Value::Nil)).map_err(|error| SharedRateLimiterError(error.into()))?;
        let Some((passes, until_full, wait)) = parse_reply(&value) else {
            return Err(SharedRateLimiterError(UnexpectedReply(value).into()));
        };
        let remaining = (window.saturating_sub(until_full)) / each;
        Ok(RateLimitStatus {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_after: Duration::from_micros(until_full),
            retry_after: (passes == 0).then(|| Duration::from_micros(wait)),
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn parse_reply(value: &Value) -> Option<(u64, u64, u64)> {
    let Value::Array(values) = value else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    match &values[..] {
        [passes, until_full, wait] => Some((number(passes)?, number(until_full)?, number(wait)?)),
        _ => None,
    }
}
