//! Counters in Redis or Valkey, shared by all processes.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::{RedisError, Value};
use thiserror::Error;

use crate::{Pipeline, RedisConnection, RedisUnavailable, Reply, Script, names};
use chat_ports::counters::{CounterKey, Counters, CountersError, Reservation};
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
    log: String,
}

/// Takes a range behind a floor that a counter was found to be behind, and answers the last number of it. ARGV[4] is
/// what the counter was after counting up in vain: where it is still that, nobody was given a number meanwhile, and the
/// range starts at the floor; otherwise behind whatever others were given. A counter that is not a number, or not one
/// that a script counts exactly (2^53), starts from the floor.
static RAISE: LazyLock<Script> = LazyLock::new(|| {
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
enum Failure {
    #[error(transparent)]
    Unavailable(#[from] RedisUnavailable),
    #[error("Redis refuses to count")]
    Refused(#[source] RedisError),
    #[error("Redis answers with what is no number to go on from: {0:?}")]
    NoNumber(Value),
}

impl From<Failure> for CountersError {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure))
    }
}

impl RedisCounters {
    /// How long a counter is kept that is not used.
    pub const EXPIRY: Duration = Duration::from_hours(7 * 24);

    /// Each time a counter passes a multiple of this, its expiry starts anew. One that does not get that far in time
    /// expires although it is used, and starts again from its floor.
    const RENEWAL: u64 = 64;

    /// The counters of a log.
    pub fn new(connection: RedisConnection, log: LogId) -> Self {
        Self { connection, log: names::log(log) }
    }

    fn name(&self, key: CounterKey) -> String {
        let Self { log, .. } = self;
        match key {
            CounterKey::Chats(app) => format!("chat:{{{}}}:{log}:chats", names::app(app)),
            CounterKey::Messages(app, chat) => {
                format!("chat:{{{}}}:{log}:messages:{}", names::app(app), chat.get())
            }
        }
    }

    /// Counts up. The first answers are the counters', in order.
    async fn count_up(&self, names: &[String], wishes: &[Reservation]) -> Result<Vec<Reply>, Failure> {
        let mut pipeline = Pipeline::default();
        for (name, wish) in names.iter().zip(wishes) {
            let mut increase = redis::cmd("INCRBY");
            increase.arg(name).arg(wish.count);
            pipeline.command(increase);
        }
        for (name, wish) in names.iter().zip(wishes) {
            let passes_a_multiple = wish.floor / Self::RENEWAL != (wish.floor + wish.count) / Self::RENEWAL;
            if wish.floor == 0 || passes_a_multiple {
                let mut renew = redis::cmd("EXPIRE");
                renew.arg(name).arg(Self::EXPIRY.as_secs());
                pipeline.command(renew);
            }
        }
        Ok(self.connection.run(&pipeline).await?)
    }

    /// Raises counters to their floors and takes the ranges behind these: the first number of each, with its place.
    async fn raise(&self, behind: &[Behind<'_>]) -> Result<Vec<(usize, u64)>, Failure> {
        let mut pipeline = Pipeline::default();
        for Behind { name, wish, found, .. } in behind {
            let numbers = [wish.floor, wish.count, Self::EXPIRY.as_secs()].map(|number| number.to_string());
            let [floor, count, expiry] = &numbers;
            pipeline.script(&RAISE, name, &[floor, count, expiry, found]);
        }
        let replies = self.connection.run(&pipeline).await?;
        tracing::info!(counters = behind.len(), "counters were behind the log; they follow it again");
        let first = |(reply, Behind { place, wish, .. }): (Reply, &Behind<'_>)| {
            let last = reply.map_err(Failure::Refused)?;
            let first = first_of(&last, wish).ok_or(Failure::NoNumber(last))?;
            Ok((*place, first))
        };
        replies.into_iter().zip(behind).map(first).collect()
    }
}

/// A counter that can't be gone on from.
struct Behind<'a> {
    /// Which of the reservations asks for it.
    place: usize,
    name: &'a str,
    wish: &'a Reservation,
    /// What it was after counting up, nothing where it could not be counted up.
    found: String,
}

#[async_trait]
impl Counters for RedisCounters {
    async fn reserve(&self, reservations: &[Reservation]) -> Result<Vec<u64>, CountersError> {
        if reservations.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = reservations.iter().map(|wish| self.name(wish.key)).collect();
        let replies = self.count_up(&names, reservations).await?;
        let mut firsts = vec![0; reservations.len()];
        let mut behind = Vec::new();
        for (place, (reply, wish)) in replies.iter().zip(reservations).enumerate() {
            // A key that can't be counted up is as good as one that is behind.
            let last = reply.as_ref().unwrap_or(&Value::Nil);
            match first_of(last, wish) {
                Some(first) => firsts[place] = first,
                None => behind.push(Behind { place, name: &names[place], wish, found: text(last) }),
            }
        }
        if !behind.is_empty() {
            for (place, first) in self.raise(&behind).await? {
                firsts[place] = first;
            }
        }
        Ok(firsts)
    }

    async fn rewind(&self, key: CounterKey, from: u64, to: u64) -> Result<(), CountersError> {
        let mut pipeline = Pipeline::default();
        pipeline.script(&REWIND, &self.name(key), &[from, to, Self::EXPIRY.as_secs()]);
        for reply in self.connection.run(&pipeline).await.map_err(Failure::from)? {
            reply.map_err(Failure::Refused)?;
        }
        Ok(())
    }
}

/// The first number of a range that ends where the counter is now, if that is after the floor.
fn first_of(last: &Value, wish: &Reservation) -> Option<u64> {
    let Value::Int(last) = last else { return None };
    let before = u64::try_from(*last).ok()?.checked_sub(wish.count)?;
    (before >= wish.floor).then_some(before + 1)
}

/// A counter as Redis keeps it.
fn text(last: &Value) -> String {
    if let Value::Int(last) = last { last.to_string() } else { String::new() }
}
