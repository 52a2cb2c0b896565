//! Reservations in Redis or Valkey, for processes on any machine.
//!
//! Each call is one script, so that it happens as a whole. Times are the server's. What is kept may be lost: flushed, or
//! by a restart or a failover that did not have the last writes. So each bucket of keys has a *memory*: since when it
//! remembers, and which run of which server does. Every process of a server has a run id of its own, and another run
//! begins anew. What a running server loses by itself it does not tell: it must not evict keys
//! (`maxmemory-policy noeviction`, which is Redis's default).

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{AppToken, Position, Timestamp};
use redis::{FromRedisValue, ParsingError, RedisError};
use thiserror::Error;

use crate::{Pipeline, RedisConnection, RedisUnavailable, Script, key_parts};
use chat_ports::event_store::LogId;
use chat_ports::idempotency::{
    Claim, CompletedCommand, CreatedId, IdempotencyKeyId, IdempotencyStore, IdempotencyStoreError,
    IdempotencyTerms, KeyLease, KeyRequest, LeaseOwner, LogContent, LookupHint, RenewOutcome, ReserveOutcome,
    StoredAnswer,
};

/// Parts that keys are spread over; each is one slot of a cluster, and has a memory of its own.
const BUCKETS: u8 = 16;

/// Reservations in Redis, in two kinds of hashes:
///
/// - `chat:{LOG-BUCKET}:idempotency`, the memory of a bucket
/// - `chat:{LOG-BUCKET}:idempotency:KEY`, a reservation or an answer
///
/// LOG is the beginning of the log's id, BUCKET a hexadecimal digit, and KEY a hash of the client's key and the path. The
/// token of an app that was created under a key is in the answer, for as long as that is kept.
#[derive(Clone)]
pub struct RedisIdempotencyStore {
    connection: RedisConnection,
    log_key_part: String,
    terms: IdempotencyTerms,
}

/// Begins a memory unless this run of the server has one.
static INITIALIZE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
        if redis.call('HGET', KEYS[1], 'run') ~= run then
            local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
            redis.call('HSET', KEYS[1], 'run', run, 'since', ARGV[1] == 'empty' and 0 or now)
        end
        ",
    )
});

static RESERVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local key, memory = KEYS[1], KEYS[2]
        local payload, owner, app, lease, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local function text(number) return string.format('%.0f', number) end

        local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
        local remembers = redis.call('HMGET', memory, 'run', 'since')
        if remembers[1] ~= run then return {'no memory'} end

        local stored = redis.call('HMGET', key,
            'payload', 'owner', 'app', 'since', 'until', 'claim', 'position', 'number')
        if stored[1] then
            if stored[1] ~= payload then return {'other payload'} end
            if stored[7] then return {'done', stored[7], stored[8] or '', stored[3] or ''} end
            local own = stored[2] == owner
            if not own and tonumber(stored[5]) > now then return {'in flight', stored[4], stored[3]} end
            redis.call('HSET', key, 'until', text(now + lease))
            redis.call('PEXPIRE', key, kept)
            if own then return {stored[6], stored[4], stored[3]} end
            redis.call('HSET', key, 'owner', owner, 'claim', 'doubtful', 'taken', 1)
            return {'doubtful', stored[4], stored[3]}
        end

        local age = now - remembers[2]
        if age < tonumber(lease) then return {'in flight', text(now - kept), ''} end
        local claim, since = 'first', now
        if age < tonumber(kept) then claim, since = 'doubtful', now - kept end
        redis.call('HSET', key, 'payload', payload, 'owner', owner, 'app', app, 'claim', claim,
            'since', text(since), 'until', text(now + lease))
        redis.call('PEXPIRE', key, kept)
        return {claim, text(since), app}
        ",
    )
});

static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local stored = redis.call('HMGET', KEYS[1], 'owner', 'position')
        if stored[1] ~= ARGV[1] or stored[2] then return 0 end
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[2]))
        redis.call('PEXPIRE', KEYS[1], ARGV[3])
        return 1
        ",
    )
});

static COMPLETE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('DEL', KEYS[1])
        redis.call('HSET', KEYS[1], 'payload', ARGV[1], 'position', ARGV[2], ARGV[3], ARGV[4])
        redis.call('PEXPIRE', KEYS[1], ARGV[5])
        ",
    )
});

static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local stored = redis.call('HMGET', KEYS[1], 'owner', 'position', 'taken')
        if stored[1] ~= ARGV[1] or stored[2] then return end
        if stored[3] then redis.call('HSET', KEYS[1], 'until', 0) else redis.call('DEL', KEYS[1]) end
        ",
    )
});

/// Why Redis was of no use.
#[derive(Debug, Error)]
enum RedisIdempotencyError {
    #[error(transparent)]
    Unavailable(#[from] RedisUnavailable),
    #[error("Redis refuses to keep idempotency keys")]
    Refused(#[from] RedisError),
    #[error("Redis answers with something else than was asked for")]
    UnexpectedReply(#[from] ParsingError),
    /// Only the first word is kept: others may be an app's token.
    #[error("Redis answers with a reservation that can't be read, which begins with {0:?}")]
    UnreadableReservation(String),
}

impl From<RedisIdempotencyError> for IdempotencyStoreError {
    fn from(failure: RedisIdempotencyError) -> Self {
        Self(Box::new(failure))
    }
}

impl RedisIdempotencyStore {
    /// The reservations of a log.
    pub fn new(connection: RedisConnection, log: LogId) -> Self {
        Self::with_terms(connection, log, IdempotencyTerms::default())
    }

    /// As [`RedisReservations::new`], on other terms.
    pub fn with_terms(connection: RedisConnection, log: LogId, terms: IdempotencyTerms) -> Self {
        Self { connection, log_key_part: key_parts::for_log(log), terms }
    }

    fn memory_key(&self, bucket: u8) -> String {
        format!("chat:{{{}-{bucket:x}}}:idempotency", self.log_key_part)
    }

    /// The names of a reservation and of the memory of its bucket.
    fn redis_keys(&self, IdempotencyKeyId(key): IdempotencyKeyId) -> (String, String) {
        let memory = self.memory_key(key[0] % BUCKETS);
        (format!("{memory}:{:032x}", u128::from_be_bytes(key)), memory)
    }

    async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline<'_>) -> Result<Vec<T>, RedisIdempotencyError> {
        let replies = self.connection.run(pipeline).await?;
        replies.into_iter().map(|reply| Ok(redis::from_redis_value(reply?)?)).collect()
    }

    /// Runs a script on one reservation.
    async fn run_script<T: FromRedisValue + Default>(
        &self,
        key: IdempotencyKeyId,
        script: &Script,
        arguments: &[String],
    ) -> Result<T, RedisIdempotencyError> {
        let (name, memory) = self.redis_keys(key);
        let mut pipeline = Pipeline::default();
        pipeline.script_on_keys(script, &[&name, &memory], arguments);
        Ok(self.run(&pipeline).await?.pop().unwrap_or_default())
    }

    fn lease_millis(&self) -> String {
        self.terms.lease.as_millis().to_string()
    }

    fn retention_millis(&self) -> String {
        self.terms.retention.as_millis().max(Duration::from_millis(1).as_millis()).to_string()
    }
}

#[async_trait]
impl IdempotencyStore for RedisIdempotencyStore {
    fn terms(&self) -> IdempotencyTerms {
        self.terms
    }

    async fn initialize(&self, log: LogContent) -> Result<(), IdempotencyStoreError> {
        let log = match log {
            LogContent::Empty => "empty",
            LogContent::HasEvents => "begun",
        };
        let mut pipeline = Pipeline::default();
        for bucket in 0..BUCKETS {
            pipeline.script(&INITIALIZE, &self.memory_key(bucket), log);
        }
        self.run::<()>(&pipeline).await?;
        Ok(())
    }

    async fn reserve(&self, wish: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError> {
        let app = wish.app.as_ref().map_or("", AppToken::expose).to_owned();
        let arguments = [
            wish.fingerprint.to_string(),
            owner_text(wish.owner),
            app,
            self.lease_millis(),
            self.retention_millis(),
        ];
        let reply: Vec<String> = self.run_script(wish.key, &RESERVE, &arguments).await?;
        let unreadable =
            || RedisIdempotencyError::UnreadableReservation(reply.first().cloned().unwrap_or_default());
        Ok(parse_outcome(&reply).ok_or_else(unreadable)?)
    }

    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError> {
        let held: bool = self
            .run_script(key, &RENEW, &[owner_text(owner), self.lease_millis(), self.retention_millis()])
            .await?;
        Ok(if held { RenewOutcome::Held } else { RenewOutcome::Lost })
    }

    async fn complete(&self, done: &CompletedCommand) -> Result<(), IdempotencyStoreError> {
        let (what, created) = match done.answer.created {
            CreatedId::App(app) => ("app", app.expose().to_owned()),
            CreatedId::Number(number) => ("number", number.to_string()),
        };
        let position = done.answer.position.get().to_string();
        let arguments =
            [done.fingerprint.to_string(), position, what.to_owned(), created, self.retention_millis()];
        Ok(self.run_script(done.key, &COMPLETE, &arguments).await?)
    }

    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError> {
        Ok(self.run_script(key, &RELEASE, &[owner_text(owner)]).await?)
    }
}

fn owner_text(owner: LeaseOwner) -> String {
    owner.0.simple().to_string()
}

fn parse_outcome(reply: &[String]) -> Option<ReserveOutcome> {
    let reply: Vec<&str> = reply.iter().map(String::as_str).collect();
    let app = |text: &str| {
        if text.is_empty() { Some(None) } else { AppToken::parse(text).ok().map(Some) }
    };
    let trace = |since: &str, token: &str| {
        Some(LookupHint { app: app(token)?, since: Timestamp::from_millis(since.parse().ok()?) })
    };
    let granted = |claim, trace| ReserveOutcome::Granted(KeyLease { claim, hint: trace });
    Some(match *reply {
        ["first", since, token] => granted(Claim::First, trace(since, token)?),
        ["doubtful", since, token] => granted(Claim::Doubtful, trace(since, token)?),
        ["in flight", since, token] => ReserveOutcome::InFlight(trace(since, token)?),
        ["done", position, number, token] => {
            let created = match app(token)? {
                Some(app) => CreatedId::App(app),
                None => CreatedId::Number(number.parse().ok()?),
            };
            ReserveOutcome::Completed(StoredAnswer {
                position: Position::new(position.parse().ok()?),
                created,
            })
        }
        ["other payload"] => ReserveOutcome::PayloadMismatch,
        ["no memory"] => ReserveOutcome::NotInitialized,
        _ => return None,
    })
}
