//! The options of a process's HTTP layer.

use std::sync::Arc;
use std::time::Duration;

use chat_ports::rate_limit::SharedRateLimiter;

use crate::access_log::AccessLog;
use crate::client_address::TrustedProxies;
use crate::cors::CorsOrigins;
use crate::host_policy::HostPolicy;
use crate::http_limits::HttpLimits;
use crate::rate_limit::RateLimit;

/// The options of a process's HTTP layer: limits, trusted proxies, accepted hosts and origins, and the access log.
#[derive(Clone)]
pub struct HttpOptions {
    /// The largest request body, in bytes. The JSON of a text of 65,536 bytes is six times as long if every byte is
    /// escaped.
    pub max_body_bytes: usize,
    /// Slots for API requests, and memory for bodies. [`serve`](crate::server::serve) takes the same limits.
    pub limits: Arc<HttpLimits>,
    /// How long a handler may take. Must be longer than a query may wait for its consistency token.
    pub deadline: Duration,
    /// The rate limit of each app, if any.
    pub rate_limit: Option<RateLimit>,
    /// Counts requests for all processes together. With `None` each process counts its own.
    pub shared_rate_limits: Option<Arc<dyn SharedRateLimiter>>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// The hosts that requests may be for.
    pub host_policy: HostPolicy,
    /// The origins whose pages may use the API, if any.
    pub cors: Option<CorsOrigins>,
    /// The requests that are logged.
    pub access_log: AccessLog,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_body_bytes: 512 * 1024,
            limits: HttpLimits::new(HttpLimits::DEFAULT_IN_FLIGHT, HttpLimits::DEFAULT_MEMORY_BYTES),
            deadline: Duration::from_secs(30),
            rate_limit: None,
            shared_rate_limits: None,
            trusted_proxies: TrustedProxies::default(),
            host_policy: HostPolicy::default(),
            cors: None,
            access_log: AccessLog::default(),
        }
    }
}
