//! The rate limiter in Redis or Valkey.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::AppToken;
use chat_ports::event_store::LogId;
use chat_ports::rate_limit::{Quota, RateLimitStatus, SharedRateLimiter, SharedRateLimiterError};
use redis::Value;
use thiserror::Error;

use crate::keys::Keys;
use crate::{Pipeline, RedisConnection, Script};

/// Rate limits in Redis or Valkey, with a key for each app with recent requests: `chat:{APP}:LOG:limit`.
#[derive(Clone)]
pub struct RedisRateLimiter {
    connection: RedisConnection,
    keys: Keys,
}

/// The generic cell rate algorithm, by the clock of Redis, in microseconds. The key holds the time at which the quota
/// will be full again. A request moves this time forward by the refill time of one request. The request is refused if
/// the new time would be more than the window away.
///
/// Returns 1 if the request passes and 0 if it is refused, the time until the quota is full again, and the time until a
/// refused request would pass.
static GCRA: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local refill, window = tonumber(ARGV[1]), tonumber(ARGV[2])
        local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now) or now)
        local full_after = full_at + refill
        if full_after - now > window then return {0, full_at - now, full_after - window - now} end
        redis.call('SET', KEYS[1], string.format('%.0f', full_after), 'PX', math.ceil((full_after - now) / 1000))
        return {1, full_after - now, 0}
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
        Self { connection, keys: Keys::new(log) }
    }
}

#[async_trait]
impl SharedRateLimiter for RedisRateLimiter {
    async fn count(&self, app: AppToken, quota: Quota) -> Result<RateLimitStatus, SharedRateLimiterError> {
        // At least 1, because Redis counts whole microseconds: at most a million requests per second can pass.
        let refill = (micros(quota.window) / u64::from(quota.requests.get())).max(1);
        // The refill time of the whole quota: the window without the remainder of the division.
        let window = refill * u64::from(quota.requests.get());
        let key = self.keys.rate_limit(app);
        let mut pipeline = Pipeline::default();
        pipeline.script(&GCRA, &key, &[refill, window]);
        let reply =
            self.connection.run(&pipeline).await.map_err(|error| SharedRateLimiterError(error.into()))?.pop();
        let value = reply.unwrap_or(Ok(Value::Nil)).map_err(|error| SharedRateLimiterError(error.into()))?;
        let Some((passes, until_full, wait)) = parse_reply(&value) else {
            return Err(SharedRateLimiterError(UnexpectedReply(value).into()));
        };
        let remaining = (window.saturating_sub(until_full)) / refill;
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

/// The three numbers that [`GCRA`] returns.
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
