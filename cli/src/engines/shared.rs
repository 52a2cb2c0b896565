//! What processes share beside the log: in Redis where there is one, and else each for itself or in a file.

use std::path::PathBuf;
use std::sync::Arc;

use chat_ports::counters::{Counters, InProcessCounters};
use chat_ports::event_store::LogId;
use chat_ports::idempotency::IdempotencyStore;
use chat_ports::rate_limit::SharedRateLimiter;
use chat_redis::RedisConnection;
use chat_redis::RedisCounters;
use chat_redis::RedisIdempotencyStore;
use chat_redis::RedisRateLimiter;
use chat_sqlite::SqliteIdempotencyStore;

use super::Places;
use crate::failure::Failure;

/// The engines that processes on one log share.
pub(crate) struct Shared {
    log: LogId,
    redis: Option<RedisConnection>,
    reservations: PathBuf,
}

impl Shared {
    /// Those of a log. Redis need not be there yet.
    pub(crate) fn of(places: &Places, log: LogId) -> Result<Self, Failure> {
        let redis = places.redis.as_ref().map(RedisConnection::open).transpose();
        let redis =
            redis.map_err(|error| Failure::because("--redis-url (REDIS_URL) can't be used", &error))?;
        Ok(Self { log, redis, reservations: places.idempotency_keys.clone() })
    }

    /// The connection that all of it is behind; `None` where there is no Redis.
    pub(crate) fn redis(&self) -> Option<RedisConnection> {
        self.redis.clone()
    }

    /// Who hands out numbers.
    pub(crate) fn counters(&self) -> Arc<dyn Counters> {
        match self.redis() {
            None => Arc::new(InProcessCounters::default()),
            Some(connection) => Arc::new(RedisCounters::new(connection, self.log)),
        }
    }

    /// Who is at work on which idempotency key.
    pub(crate) fn reservations(&self) -> Result<Arc<dyn IdempotencyStore>, Failure> {
        if let Some(connection) = self.redis() {
            return Ok(Arc::new(RedisIdempotencyStore::new(connection, self.log)));
        }
        let reservations = SqliteIdempotencyStore::new(&self.reservations, self.log);
        let reservations = reservations.map_err(|error| {
            Failure::because("the thread for idempotency keys could not be started", &error)
        })?;
        Ok(Arc::new(reservations))
    }

    /// Where processes account for the requests of apps together; `None` where each does for itself.
    pub(crate) fn rate_limits(&self) -> Option<Arc<dyn SharedRateLimiter>> {
        let limits = RedisRateLimiter::new(self.redis()?, self.log);
        Some(Arc::new(limits))
    }
}
