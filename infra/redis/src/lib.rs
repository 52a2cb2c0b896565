//! Adapters for Redis and Valkey: counters, idempotency store and rate limits. The server is a single one, a cluster,
//! or one monitored by sentinels.
//!
//! Redis may lose data at any time, and no call waits long for it: a pipeline succeeds or fails within
//! [`RedisConnection::TIMEOUT`], and fails at once if the connection was lost longer ago than that. A background task
//! reconnects.

mod connection;
mod counters;
mod idempotency;
mod keys;
mod link;
mod pipeline;
mod rate_limit;
#[cfg(test)]
mod tests;
mod url;

pub use connection::{RedisConnection, RedisUnavailable};
pub use counters::RedisCounters;
pub use idempotency::RedisIdempotencyStore;
pub use rate_limit::RedisRateLimiter;
pub use url::{InvalidRedisUrl, RedisUrl};

use pipeline::{Pipeline, Reply, Script};
