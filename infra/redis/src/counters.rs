//! Counters in Redis or Valkey, shared by all processes.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::{RedisError, Value};
use thiserror::Error;

use crate::{Pipeline, RedisConnection, RedisUnavailable, Reply, Script, key_parts};
use chat_ports::counters::{CounterKey, Counters, CountersError, ReservationRequest};
use chat_ports::event_store::LogId;

/// Counters in Redis, one key each:
///
/// - `chat:{APP}:LOG:chats`, the last number of a chat that was handed out in an app
/// - `chat:{APP}:LOG:messages:CHAT`, the last number of a message that was handed out in a chat
///
/// APP is a hash of the app's token, which is a credential; the braces keep an app's keys in one slot of a cluster. LOG
/// is the end of the log's id: numbers of another log, in a Redis that is shared or left over, are not met.
///
/// Any of it may be lost at any time, and so a key that is not used for [`RedisCounters::EXPIRY`] goes, and Redis may
/// evict keys that it has no room for. A counter that is gone starts again from the floor of its next reservation.
#[derive(Clone)]
pub struct RedisCounters {
    connection: RedisConnection,
    log_key_part: String,
}

/// Takes a range behind a floor that a counter was found to be behind, and answers the last number of it. ARGV[4] is
/// what the counter was after counting up in vain: where it is still that, nobody was given a number meanwhile, and the
/// range starts at the floor; otherwise behind whatever others were given. A counter that is not a number, or not one
/// that a script counts exactly (2^53), starts from the floor.
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

/// Sets a counter back, unless it has moved on.
static REWIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
        return 1
        ",
    )
});

/// Why there are no numbers.
#[derive(Debug, Error)]
enum RedisCountersError {
    #[error(transparent)]
    Unavailable(#[from] RedisUnavailable),
    #[error("Redis refuses to count")]
    Refused(#[source] RedisError),
    #[error("Redis answers with what is no number to go on from: {0:?}")]
    UnexpectedReply(Value),
}

impl From<RedisCountersError> for CountersError {
    fn from(failure: RedisCountersError) -> Self {
        Self(Box::new(failure))
    }
}

impl RedisCounters {
    /// How long a counter is kept that is not used.
    pub const EXPIRY: Duration = Duration::from_hours(7 * 24);

    /// Each time a counter passes a multiple of this, its expiry starts anew. One that does not get that far in time
    /// expires although it is used, and starts again from its floor.
    const EXPIRY_RENEWAL_INTERVAL: u64 = 64;

    /// The counters of a log.
    pub fn new(connection: RedisConnection, log: LogId) -> Self {
        Self { connection, log_key_part: key_parts::for_log(log) }
    }

    fn redis_key(&self, key: CounterKey) -> String {
        let Self { log_key_part: log, .. } = self;
        match key {
            CounterKey::Chats(app) => format!("chat:{{{}}}:{log}:chats", key_parts::for_app(app)),
            CounterKey::Messages(app, chat) => {
                format!("chat:{{{}}}:{log}:messages:{}", key_parts::for_app(app), chat.get())
            }
        }
    }

    /// Counts up. The first answers are the counters', in order.
    async fn increment(
        &self,
        names: &[String],
        wishes: &[ReservationRequest],
    ) -> Result<Vec<Reply>, RedisCountersError> {
        let mut pipeline = Pipeline::default();
        for (name, wish) in names.iter().zip(wishes) {
            let mut increase = redis::cmd("INCRBY");
            increase.arg(name).arg(wish.count);
            pipeline.command(increase);
        }
        for (name, wish) in names.iter().zip(wishes) {
            let passes_a_multiple = wish.floor / Self::EXPIRY_RENEWAL_INTERVAL
                != (wish.floor + wish.count) / Self::EXPIRY_RENEWAL_INTERVAL;
            if wish.floor == 0 || passes_a_multiple {
                let mut renew = redis::cmd("EXPIRE");
                renew.arg(name).arg(Self::EXPIRY.as_secs());
                pipeline.command(renew);
            }
        }
        Ok(self.connection.run(&pipeline).await?)
    }

    /// Raises counters to their floors and takes the ranges behind these: the first number of each, with its place.
    async fn raise_to_floor(
        &self,
        behind: &[StaleCounter<'_>],
    ) -> Result<Vec<(usize, u64)>, RedisCountersError> {
        let mut pipeline = Pipeline::default();
        for StaleCounter { name, request: wish, stored: found, .. } in behind {
            let numbers = [wish.floor, wish.count, Self::EXPIRY.as_secs()].map(|number| number.to_string());
            let [floor, count, expiry] = &numbers;
            pipeline.script(&RAISE_TO_FLOOR, name, &[floor, count, expiry, found]);
        }
        let replies = self.connection.run(&pipeline).await?;
        tracing::info!(counters = behind.len(), "counters were behind the log; they follow it again");
        let first =
            |(reply, StaleCounter { index: place, request: wish, .. }): (Reply, &StaleCounter<'_>)| {
                let last = reply.map_err(RedisCountersError::Refused)?;
                let first = first_in_range(&last, wish).ok_or(RedisCountersError::UnexpectedReply(last))?;
                Ok((*place, first))
            };
        replies.into_iter().zip(behind).map(first).collect()
    }
}

/// A counter that can't be gone on from.
struct StaleCounter<'a> {
    /// Which of the reservations asks for it.
    index: usize,
    name: &'a str,
    request: &'a ReservationRequest,
    /// What it was after counting up, nothing where it could not be counted up.
    stored: String,
}

#[async_trait]
impl Counters for RedisCounters {
    async fn reserve(&self, reservations: &[ReservationRequest]) -> Result<Vec<u64>, CountersError> {
        if reservations.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = reservations.iter().map(|request| self.redis_key(request.key)).collect();
        let replies = self.increment(&names, reservations).await?;
        let mut firsts = vec![0; reservations.len()];
        let mut behind = Vec::new();
        for (index, (reply, request)) in replies.iter().zip(reservations).enumerate() {
            // A key that can't be counted up is as good as one that is behind.
            let last = reply.as_ref().unwrap_or(&Value::Nil);
            match first_in_range(last, request) {
                Some(first) => firsts[index] = first,
                None => behind.push(StaleCounter {
                    index,
                    name: &names[index],
                    request,
                    stored: stored_text(last),
                }),
            }
        }
        if !behind.is_empty() {
            for (index, first) in self.raise_to_floor(&behind).await? {
                firsts[index] = first;
            }
        }
        Ok(firsts)
    }

    async fn rewind(&self, key: CounterKey, from: u64, to: u64) -> Result<(), CountersError> {
        let mut pipeline = Pipeline::default();
        pipeline.script(&REWIND, &self.redis_key(key), &[from, to, Self::EXPIRY.as_secs()]);
        for reply in self.connection.run(&pipeline).await.map_err(RedisCountersError::from)? {
            reply.map_err(RedisCountersError::Refused)?;
        }
        Ok(())
    }
}

/// The first number of a range that ends where the counter is now, if that is after the floor.
fn first_in_range(last: &Value, wish: &ReservationRequest) -> Option<u64> {
    let Value::Int(last) = last else { return None };
    let before = u64::try_from(*last).ok()?.checked_sub(wish.count)?;
    (before >= wish.floor).then_some(before + 1)
}

/// A counter as Redis keeps it.
fn stored_text(last: &Value) -> String {
    if let Value::Int(last) = last { last.to_string() } else { String::new() }
}
