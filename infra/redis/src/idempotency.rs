//! The idempotency store in Redis or Valkey, for processes on any machine.
//!
//! Each call but `initialize` is one script. Scripts are atomic and use the server's clock. Redis may lose keys: in a
//! flush, or in a restart or failover without the last writes. So each bucket of keys has a *memory* key. It holds the
//! time since which the bucket has lost no key, and the run id of the server process. Under another run id, the bucket
//! counts as not initialized. The eviction of a reservation would not be detected, so the server must not evict keys
//! (`maxmemory-policy noeviction`, Redis's default).

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{AppToken, Position, Timestamp};
use redis::{FromRedisValue, ParsingError, RedisError};
use thiserror::Error;

use crate::keys::Keys;
use crate::{Pipeline, RedisConnection, RedisUnavailable, Script};
use chat_ports::event_store::LogId;
use chat_ports::idempotency::{
    Claim, CompletedCommand, CreatedId, ExistingEventHint, IdempotencyKeyId, IdempotencyStore,
    IdempotencyStoreError, IdempotencyTerms, KeyLease, KeyRequest, LeaseOwner, LogContent, RenewOutcome,
    ReserveOutcome, StoredAnswer,
};

/// The number of buckets that keys are spread over. The keys of a bucket share a slot of a cluster, and a memory key.
const BUCKETS: u8 = 16;

/// Reservations and answers in Redis, in two kinds of hashes:
///
/// - `chat:{LOG-BUCKET}:idempotency`, the memory key of a bucket
/// - `chat:{LOG-BUCKET}:idempotency:KEY`, a reservation or an answer
///
/// LOG is the end of the log's id, BUCKET a hexadecimal digit, and KEY a hash of the command, the stream and the
/// client's key. The reservation and the answer of a command that creates an app hold the app's token.
#[derive(Clone)]
pub struct RedisIdempotencyStore {
    connection: RedisConnection,
    keys: Keys,
    terms: IdempotencyTerms,
}

/// Initializes a bucket, unless its memory key has the run id of the server. If `ARGV[1]` is `empty`, the log has no
/// events, so no lost key can have led to one, and the time in the memory key is 0.
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

/// Reserves a key. Returns the outcome and its values, which [`parse_outcome`] reads. The field `taken` is set once an
/// owner has taken the key over from another one.
///
/// A key without a reservation may have had one that was lost before the time in the memory key. So such a key is
/// `in flight` until a lease has passed since that time, and its claim is `doubtful` until the retention has passed.
static RESERVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local key, memory = KEYS[1], KEYS[2]
        local payload, owner, app, lease, retention = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
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
            redis.call('PEXPIRE', key, retention)
            if own then return {stored[6], stored[4], stored[3]} end
            redis.call('HSET', key, 'owner', owner, 'claim', 'doubtful', 'taken', 1)
            return {'doubtful', stored[4], stored[3]}
        end

        local age = now - remembers[2]
        if age < tonumber(lease) then return {'in flight', text(now - retention), ''} end
        local claim, since = 'first', now
        if age < tonumber(retention) then claim, since = 'doubtful', now - retention end
        redis.call('HSET', key, 'payload', payload, 'owner', owner, 'app', app, 'claim', claim,
            'since', text(since), 'until', text(now + lease))
        redis.call('PEXPIRE', key, retention)
        return {claim, text(since), app}
        ",
    )
});

/// Restarts the lease if the owner `ARGV[1]` holds the key and the command was not completed. Returns whether it
/// restarted the lease.
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

/// Replaces the reservation with the answer. `ARGV[3]` and `ARGV[4]` are the field of the created id and its value.
static COMPLETE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('DEL', KEYS[1])
        redis.call('HSET', KEYS[1], 'payload', ARGV[1], 'position', ARGV[2], ARGV[3], ARGV[4])
        redis.call('PEXPIRE', KEYS[1], ARGV[5])
        ",
    )
});

/// Releases the key if the owner `ARGV[1]` holds it and the command was not completed.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local stored = redis.call('HMGET', KEYS[1], 'owner', 'position', 'taken')
        if stored[1] ~= ARGV[1] or stored[2] then return end
        -- The owner before a takeover may have appended the event, so the key stays doubtful.
        if stored[3] then redis.call('HSET', KEYS[1], 'until', 0) else redis.call('DEL', KEYS[1]) end
        ",
    )
});

/// An error of the Redis idempotency store.
#[derive(Debug, Error)]
enum RedisIdempotencyError {
    #[error(transparent)]
    Unavailable(#[from] RedisUnavailable),
    #[error("Redis refused an idempotency script")]
    Refused(#[from] RedisError),
    #[error("unexpected reply from Redis")]
    UnexpectedReply(#[from] ParsingError),
    /// Holds the first word of the reply only: the others may contain an app's token.
    #[error("unreadable reservation from Redis, which begins with {0:?}")]
    UnreadableReservation(String),
}

impl From<RedisIdempotencyError> for IdempotencyStoreError {
    fn from(failure: RedisIdempotencyError) -> Self {
        Self(Box::new(failure))
    }
}

impl RedisIdempotencyStore {
    /// Creates the store of a log.
    pub fn new(connection: RedisConnection, log: LogId) -> Self {
        Self::with_terms(connection, log, IdempotencyTerms::default())
    }

    /// Like [`RedisIdempotencyStore::new`], with other durations.
    pub fn with_terms(connection: RedisConnection, log: LogId, terms: IdempotencyTerms) -> Self {
        Self { connection, keys: Keys::new(log), terms }
    }

    /// The Redis key of a reservation, and the memory key of its bucket.
    fn redis_keys(&self, IdempotencyKeyId(key): IdempotencyKeyId) -> (String, String) {
        let memory = self.keys.idempotency_memory_key(key[0] % BUCKETS);
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
            pipeline.script(&INITIALIZE, &self.keys.idempotency_memory_key(bucket), log);
        }
        self.run::<()>(&pipeline).await?;
        Ok(())
    }

    async fn reserve(&self, request: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError> {
        let app = request.app.as_ref().map_or("", AppToken::expose).to_owned();
        let arguments = [
            request.fingerprint.to_string(),
            owner_text(request.owner),
            app,
            self.lease_millis(),
            self.retention_millis(),
        ];
        let reply: Vec<String> = self.run_script(request.key, &RESERVE, &arguments).await?;
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

    async fn complete(&self, command: &CompletedCommand) -> Result<(), IdempotencyStoreError> {
        let (field, created) = match command.answer.created {
            CreatedId::App(app) => ("app", app.expose().to_owned()),
            CreatedId::Number(number) => ("number", number.to_string()),
        };
        let position = command.answer.position.get().to_string();
        let arguments =
            [command.fingerprint.to_string(), position, field.to_owned(), created, self.retention_millis()];
        Ok(self.run_script(command.key, &COMPLETE, &arguments).await?)
    }

    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError> {
        Ok(self.run_script(key, &RELEASE, &[owner_text(owner)]).await?)
    }
}

fn owner_text(owner: LeaseOwner) -> String {
    owner.0.simple().to_string()
}

/// Parses the reply of [`RESERVE`]; `None` if it is invalid.
fn parse_outcome(reply: &[String]) -> Option<ReserveOutcome> {
    let reply: Vec<&str> = reply.iter().map(String::as_str).collect();
    // `Some(None)` if there is no token, `None` if the token is invalid.
    let parse_app = |text: &str| {
        if text.is_empty() { Some(None) } else { AppToken::parse(text).ok().map(Some) }
    };
    let parse_hint = |since: &str, token: &str| {
        Some(ExistingEventHint { app: parse_app(token)?, since: Timestamp::from_millis(since.parse().ok()?) })
    };
    let granted = |claim, hint| ReserveOutcome::Granted(KeyLease { claim, hint });
    Some(match *reply {
        ["first", since, token] => granted(Claim::First, parse_hint(since, token)?),
        ["doubtful", since, token] => granted(Claim::Doubtful, parse_hint(since, token)?),
        ["in flight", since, token] => ReserveOutcome::InFlight(parse_hint(since, token)?),
        ["done", position, number, token] => {
            let created = match parse_app(token)? {
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
