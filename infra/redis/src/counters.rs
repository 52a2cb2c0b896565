//! Counters in Redis or Valkey, shared by all processes.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::{RedisError, Value};
use thiserror::Error;

use crate::keys::Keys;
use crate::{Pipeline, RedisConnection, RedisUnavailable, Reply, Script};
use chat_ports::counters::{CounterKey, Counters, CountersError, ReservationRequest};
use chat_ports::event_store::LogId;

/// Counters in Redis, one key each:
///
/// - `chat:{APP}:LOG:chats`, the last chat number that was handed out in an app
/// - `chat:{APP}:LOG:messages:CHAT`, the last message number that was handed out in a chat
///
/// APP is a hash of the app's token, which is a credential; the braces keep the keys of an app in one slot of a
/// cluster. LOG is the end of the log's id, so that several logs can share a Redis server.
///
/// Counters need not be durable: a key that is unused for [`RedisCounters::EXPIRY`] expires, and Redis may evict keys.
/// A lost counter restarts from the floor of its next request.
#[derive(Clone)]
pub struct RedisCounters {
    connection: RedisConnection,
    keys: Keys,
}

/// Raises a stale counter to the floor, takes the range after the floor, and returns the last number of the range.
///
/// `ARGV` has the floor, the count of numbers, the expiry in seconds, and the counter's value after the increment that
/// found it stale. If the counter still has that value, no other request took a number meanwhile, and the range starts
/// after the floor. Otherwise the range starts after the numbers that were taken meanwhile. A value below the floor, or
/// one that is not an integer below 2^53 (the limit of exact integers in Lua), is replaced by the floor.
static RAISE_TO_FLOOR: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local found = redis.pcall('GET', KEYS[1])
        local last, floor = type(found) == 'string' and tonumber(found) or -1, tonumber(ARGV[1])
        if found == ARGV[4] or not (last >= floor and last < 2^53 and last % 1 == 0) then last = floor end
        last = last + ARGV[2]
        redis.call('SET', KEYS[1], string.format('%.0f', last), 'EX', ARGV[3])
        return last
        ",
    )
});

/// Sets a counter back from `ARGV[1]` to `ARGV[2]`, unless its value has changed. `ARGV[3]` is the expiry in seconds.
static REWIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
        return 1
        ",
    )
});

/// An error of the Redis counters.
#[derive(Debug, Error)]
enum RedisCountersError {
    #[error(transparent)]
    Unavailable(#[from] RedisUnavailable),
    #[error("Redis refused a command on a counter")]
    Refused(#[source] RedisError),
    #[error("unexpected counter value from Redis: {0:?}")]
    UnexpectedReply(Value),
}

impl From<RedisCountersError> for CountersError {
    fn from(failure: RedisCountersError) -> Self {
        Self(Box::new(failure))
    }
}

impl RedisCounters {
    /// The time after which an unused counter expires.
    pub const EXPIRY: Duration = Duration::from_hours(7 * 24);

    /// A request renews the expiry of its counter if its floor is 0, or if a multiple of this number is among the
    /// [`ReservationRequest::count`] numbers after the floor. A counter that is used but not renewed in time expires,
    /// and restarts from the floor of the next request.
    const EXPIRY_RENEWAL_INTERVAL: u64 = 64;

    /// Creates the counters of a log.
    pub fn new(connection: RedisConnection, log: LogId) -> Self {
        Self { connection, keys: Keys::new(log) }
    }

    /// Increments counters. The first replies are the new values, in order; replies to expiry renewals follow.
    async fn increment(
        &self,
        names: &[String],
        requests: &[ReservationRequest],
    ) -> Result<Vec<Reply>, RedisCountersError> {
        let mut pipeline = Pipeline::default();
        for (name, request) in names.iter().zip(requests) {
            let mut increase = redis::cmd("INCRBY");
            increase.arg(name).arg(request.count);
            pipeline.command(increase);
        }
        for (name, request) in names.iter().zip(requests) {
            let passes_a_multiple = request.floor / Self::EXPIRY_RENEWAL_INTERVAL
                != (request.floor + request.count) / Self::EXPIRY_RENEWAL_INTERVAL;
            if request.floor == 0 || passes_a_multiple {
                let mut renew = redis::cmd("EXPIRE");
                renew.arg(name).arg(Self::EXPIRY.as_secs());
                pipeline.command(renew);
            }
        }
        Ok(self.connection.run(&pipeline).await?)
    }

    /// Raises stale counters to their floors and takes the ranges after them. Returns the first number of each range,
    /// with the index of its request.
    async fn raise_to_floor(
        &self,
        stale: &[StaleCounter<'_>],
    ) -> Result<Vec<(usize, u64)>, RedisCountersError> {
        let mut pipeline = Pipeline::default();
        for StaleCounter { name, request, incremented, .. } in stale {
            let numbers =
                [request.floor, request.count, Self::EXPIRY.as_secs()].map(|number| number.to_string());
            let [floor, count, expiry] = &numbers;
            pipeline.script(&RAISE_TO_FLOOR, name, &[floor, count, expiry, incremented]);
        }
        let replies = self.connection.run(&pipeline).await?;
        let indexed_first = |(reply, StaleCounter { index, request, .. }): (Reply, &StaleCounter<'_>)| {
            let last = reply.map_err(RedisCountersError::Refused)?;
            let first = first_in_range(&last, request).ok_or(RedisCountersError::UnexpectedReply(last))?;
            Ok((*index, first))
        };
        let firsts = replies
            .into_iter()
            .zip(stale)
            .map(indexed_first)
            .collect::<Result<Vec<_>, RedisCountersError>>()?;
        tracing::info!(counters = firsts.len(), "raised counters that were behind the log");
        metrics::counter!("chat_counter_repairs_total", "found" => "behind").increment(firsts.len() as u64);
        Ok(firsts)
    }
}

/// A counter below the floor of its request, or without a usable value.
struct StaleCounter<'a> {
    /// The index of the request.
    index: usize,
    name: &'a str,
    request: &'a ReservationRequest,
    /// The value after the increment; empty if the increment failed.
    incremented: String,
}

#[async_trait]
impl Counters for RedisCounters {
    async fn reserve(&self, requests: &[ReservationRequest]) -> Result<Vec<u64>, CountersError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = requests.iter().map(|request| self.keys.counter(request.key)).collect();
        let replies = self.increment(&names, requests).await?;
        let mut firsts = vec![0; requests.len()];
        let mut stale = Vec::new();
        for (index, (reply, request)) in replies.iter().zip(requests).enumerate() {
            // A key that can't be incremented is treated as a stale counter.
            let last = reply.as_ref().unwrap_or(&Value::Nil);
            match first_in_range(last, request) {
                Some(first) => firsts[index] = first,
                None => stale.push(StaleCounter {
                    index,
                    name: &names[index],
                    request,
                    incremented: value_text(last),
                }),
            }
        }
        if !stale.is_empty() {
            for (index, first) in self.raise_to_floor(&stale).await? {
                firsts[index] = first;
            }
        }
        Ok(firsts)
    }

    async fn rewind(&self, key: CounterKey, from: u64, to: u64) -> Result<(), CountersError> {
        let mut pipeline = Pipeline::default();
        pipeline.script(&REWIND, &self.keys.counter(key), &[from, to, Self::EXPIRY.as_secs()]);
        for reply in self.connection.run(&pipeline).await.map_err(RedisCountersError::from)? {
            reply.map_err(RedisCountersError::Refused)?;
        }
        Ok(())
    }
}

/// The first number of a range that ends at the counter's value, if the range is above the floor.
fn first_in_range(last: &Value, request: &ReservationRequest) -> Option<u64> {
    let Value::Int(last) = last else { return None };
    let before = u64::try_from(*last).ok()?.checked_sub(request.count)?;
    (before >= request.floor).then_some(before + 1)
}

/// The text of a counter's value, as Redis stores it; empty if the value is not an integer.
fn value_text(last: &Value) -> String {
    if let Value::Int(last) = last { last.to_string() } else { String::new() }
}
