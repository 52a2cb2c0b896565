//! Services that the processes on one log share: counters, reserved idempotency keys and rate limits.
//!
//! If Redis is configured, all of them are in Redis. Otherwise, counters and rate limits are local to each process, and
//! idempotency keys are in a SQLite file in the data folder.

use std::path::PathBuf;
use std::sync::Arc;

use chat_ports::counters::{Counters, InProcessCounters};
use chat_ports::event_store::LogId;
use chat_ports::idempotency::IdempotencyStore;
use chat_ports::rate_limit::SharedRateLimiter;
#[cfg(feature = "redis")]
use chat_redis::{RedisConnection, RedisCounters, RedisIdempotencyStore, RedisRateLimiter};
use chat_sqlite::SqliteIdempotencyStore;

use super::StorageLocations;
use crate::failure::Failure;

/// The services that the processes on one log share.
pub(crate) struct CoordinationServices {
    log: LogId,
    idempotency_path: PathBuf,
    #[cfg(feature = "redis")]
    redis: Option<RedisConnection>,
}

impl CoordinationServices {
    /// Creates the services for a log. Redis may be unavailable: the connection is made in the background.
    pub(crate) fn for_log(locations: &StorageLocations, log: LogId) -> Result<Self, Failure> {
        Ok(Self {
            log,
            idempotency_path: locations.idempotency_keys.clone(),
            #[cfg(feature = "redis")]
            redis: locations
                .redis
                .as_ref()
                .map(RedisConnection::open)
                .transpose()
                .map_err(|error| Failure::because("--redis-url (REDIS_URL) can't be used", &error))?,
        })
    }

    /// Returns the connection to Redis; `None` if no Redis is configured.
    #[cfg(feature = "redis")]
    pub(crate) fn redis(&self) -> Option<RedisConnection> {
        self.redis.clone()
    }

    /// Returns the counters that reserve numbers of chats and messages. Without Redis, each call creates new counters.
    pub(crate) fn counters(&self) -> Arc<dyn Counters> {
        #[cfg(feature = "redis")]
        if let Some(connection) = self.redis() {
            return Arc::new(RedisCounters::new(connection, self.log));
        }
        Arc::new(InProcessCounters::default())
    }

    /// Returns the store of reserved idempotency keys.
    pub(crate) fn idempotency_store(&self) -> Result<Arc<dyn IdempotencyStore>, Failure> {
        #[cfg(feature = "redis")]
        if let Some(connection) = self.redis() {
            return Ok(Arc::new(RedisIdempotencyStore::new(connection, self.log)));
        }
        let store = SqliteIdempotencyStore::new(&self.idempotency_path, self.log).map_err(|error| {
            Failure::because("the store of idempotency keys could not be created", &error)
        })?;
        Ok(Arc::new(store))
    }

    /// Returns the rate limits that processes share; `None` if each process has its own.
    pub(crate) fn rate_limits(&self) -> Option<Arc<dyn SharedRateLimiter>> {
        #[cfg(feature = "redis")]
        if let Some(connection) = self.redis() {
            return Some(Arc::new(RedisRateLimiter::new(connection, self.log)));
        }
        None
    }
}
