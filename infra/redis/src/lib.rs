//! A connection to Redis or Valkey, for the adapters that keep something there: one server, a cluster, or a server that
//! sentinels watch over.
//!
//! What is kept there may be lost at any time, and nothing waits long for it: a pipeline is answered or fails within
//! [`RedisConnection::PATIENCE`], at once where Redis is known to be away, and a task looks for Redis again meanwhile.

mod connection;
mod counters;
mod idempotency;
mod key_parts;
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
