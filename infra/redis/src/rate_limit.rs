//! Rate limits in Redis or Valkey.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::AppToken;
use chat_ports::event_store::LogId;
use chat_ports::rate_limit::{Quota, RateLimitStatus, SharedRateLimiter, SharedRateLimiterError};
use redis::Value;
use thiserror::Error;

use crate::{Pipeline, RedisConnection, Script, key_parts};

/// Rate limits in Redis or Valkey, a key for each app that has sent a request lately: `chat:{APP}:LOG:limit`.
#[derive(Clone)]
pub struct RedisRateLimiter {
    connection: RedisConnection,
    log_key_part: String,
}

/// The generic cell rate algorithm, by Redis's clock, in microseconds. The key holds the time at which everything will
/// have grown back; a request adds what one takes to grow back, unless that leads further than the window.
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

/// Redis answers with something else than the script's three numbers.
#[derive(Debug, Error)]
#[error("Redis answers with what is no allowance: {0:?}")]
struct UnexpectedReply(Value);

impl RedisRateLimiter {
    /// The rate limits of a log's apps.
    pub fn new(connection: RedisConnection, log: LogId) -> Self {
        Self { connection, log_key_part: key_parts::for_log(log) }
    }
}

#[async_trait]
impl SharedRateLimiter for RedisRateLimiter {
    async fn count(&self, app: AppToken, quota: Quota) -> Result<RateLimitStatus, SharedRateLimiterError> {
        let each = micros(quota.window) / u64::from(quota.requests.get());
        // As long as all requests take to grow back, which is the window but for what the division leaves.
        let window = each * u64::from(quota.requests.get());
        let key = format!("chat:{{{}}}:{}:limit", key_parts::for_app(app), self.log_key_part);
        let mut pipeline = Pipeline::default();
        pipeline.script(&GCRA, &key, &[each, window]);
        let reply =
            self.connection.run(&pipeline).await.map_err(|error| SharedRateLimiterError(error.into()))?.pop();
        let value = reply.unwrap_or(Ok(Value::Nil)).map_err(|error| SharedRateLimiterError(error.into()))?;
        let Some((passes, until_back, wait)) = parse_reply(&value) else {
            return Err(SharedRateLimiterError(UnexpectedReply(value).into()));
        };
        let left = (window.saturating_sub(until_back)) / each;
        Ok(RateLimitStatus {
            remaining: u32::try_from(left).unwrap_or(u32::MAX),
            reset_after: Duration::from_micros(until_back),
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
        [passes, until_back, wait] => Some((number(passes)?, number(until_back)?, number(wait)?)),
        _ => None,
    }
}
