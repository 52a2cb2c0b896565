//! The rate limit port: request quotas of apps, counted by all processes together.
//!
//! Promises of every adapter: each request that may pass is counted, atomically with the decision, and only once unless
//! a connection to the store breaks; counts are not durable; every [`SharedRateLimiterError`] is worth a retry.

use std::error::Error as StdError;
use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::AppToken;
use thiserror::Error;

/// A number of requests per window. A burst may use the whole quota at once; the quota refills evenly over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests per window.
    pub requests: NonZeroU32,
    /// The length of the window.
    pub window: Duration,
}

/// The state of an app's quota after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Requests that may follow immediately.
    pub remaining: u32,
    /// The time until the quota is full again.
    pub reset_after: Duration,
    /// `None` if the request may pass, otherwise the time until a request may pass.
    pub retry_after: Option<Duration>,
}

/// A rate limiter that all processes share.
#[async_trait]
pub trait SharedRateLimiter: Send + Sync + 'static {
    /// Decides whether a request of an app may pass. If so, counts the request.
    async fn count(&self, app: AppToken, quota: Quota) -> Result<RateLimitStatus, SharedRateLimiterError>;
}

/// The quotas are unavailable. Worth a retry.
#[derive(Debug, Error)]
#[error("the rate limits are unavailable")]
pub struct SharedRateLimiterError(#[source] pub Box<dyn StdError + Send + Sync>);
