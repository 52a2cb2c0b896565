//! The rate limit port: what each app has left of its requests, accounted for by all processes together.

use std::error::Error as StdError;
use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::AppToken;
use thiserror::Error;

/// So many requests in so much time, all at once if need be; they grow back evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a window.
    pub requests: NonZeroU32,
    /// The window.
    pub window: Duration,
}

/// What an app has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Requests that may follow at once.
    pub remaining: u32,
    /// Until all of the quota has grown back.
    pub reset_after: Duration,
    /// `None`: the request may pass. Else: not before this.
    pub retry_after: Option<Duration>,
}

/// Accounts for requests.
#[async_trait]
pub trait SharedRateLimiter: Send + Sync + 'static {
    /// Counts a request of an app, if it may pass.
    async fn count(&self, app: AppToken, quota: Quota) -> Result<RateLimitStatus, SharedRateLimiterError>;
}

/// Nobody can say what an app has left. Worth a retry.
#[derive(Debug, Error)]
#[error("the rate limits can't be reached now")]
pub struct SharedRateLimiterError(#[source] pub Box<dyn StdError + Send + Sync>);
