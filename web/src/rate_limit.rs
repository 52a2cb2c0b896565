//! Rate limiting: a limit on the requests of each app.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chat_domain::AppToken;
use chat_ports::rate_limit::{RateLimitStatus, SharedRateLimiter};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter as Limiter};
use http::{HeaderName, HeaderValue};
use quick_cache::sync::Cache;
use thiserror::Error;

use crate::error_code::ErrorCode;
use crate::problem::Problem;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The largest number of apps whose requests a process counts at a time. The cache evicts keys seen once before keys
/// used repeatedly, so made-up tokens evict each other and not an app at its limit.
const MAX_TRACKED_APPS: usize = 100_000;

/// A number of requests per window of time: `100/s`, `600/m`, `10000/h`. An app may use them all at once. They are
/// replenished evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    requests: NonZeroU32,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Second,
    Minute,
    Hour,
}

/// The error for text that is not a rate limit.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "a rate limit is a number of requests, from 1 to 1000000, per second, minute or hour: 100/s, 600/m, 10000/h"
)]
pub struct InvalidRateLimit;

impl RateLimit {
    const MAX_REQUESTS: u32 = 1_000_000;

    fn window(self) -> Duration {
        Duration::from_secs(match self.window {
            Window::Second => 1,
            Window::Minute => 60,
            Window::Hour => 3_600,
        })
    }

    fn shared_quota(self) -> chat_ports::rate_limit::Quota {
        chat_ports::rate_limit::Quota { requests: self.requests, window: self.window() }
    }

    fn quota(self) -> Quota {
        match self.window {
            Window::Second => Quota::per_second(self.requests),
            Window::Minute => Quota::per_minute(self.requests),
            Window::Hour => Quota::per_hour(self.requests),
        }
    }
}

impl FromStr for RateLimit {
    type Err = InvalidRateLimit;

    fn from_str(text: &str) -> Result<Self, InvalidRateLimit> {
        let (requests, window) = text.split_once('/').ok_or(InvalidRateLimit)?;
        let requests: NonZeroU32 = requests.parse().map_err(|_| InvalidRateLimit)?;
        if requests.get() > Self::MAX_REQUESTS {
            return Err(InvalidRateLimit);
        }
        let window = match window {
            "s" => Window::Second,
            "m" => Window::Minute,
            "h" => Window::Hour,
            _ => return Err(InvalidRateLimit),
        };
        Ok(Self { requests, window })
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = match self.window {
            Window::Second => 's',
            Window::Minute => 'm',
            Window::Hour => 'h',
        };
        write!(f, "{}/{window}", self.requests)
    }
}

type AppLimiter<C> = Limiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>;

/// Counts the requests of each app against the limit.
pub(crate) struct RateLimiter<C: Clock = DefaultClock> {
    limit: RateLimit,
    /// Counts the requests of all processes together, if configured.
    shared: Option<Arc<dyn SharedRateLimiter>>,
    clock: C,
    limiters: Cache<AppToken, Arc<AppLimiter<C>>>,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit, shared: Option<Arc<dyn SharedRateLimiter>>) -> Self {
        Self { shared, ..Self::with_clock(limit, DefaultClock::default(), MAX_TRACKED_APPS) }
    }
}

impl<C: Clock + Clone> RateLimiter<C> {
    fn with_clock(limit: RateLimit, clock: C, max_apps: usize) -> Self {
        Self { limit, shared: None, clock, limiters: Cache::new(max_apps) }
    }

    /// Counts a request: with the shared limiter if there is one, otherwise for this process alone. If the shared
    /// limiter fails, the request is counted for this process alone, rather than rejected or admitted uncounted.
    async fn count(&self, app: AppToken) -> RateLimitStatus {
        let Some(shared) = &self.shared else { return self.count_locally(app) };
        match shared.count(app, self.limit.shared_quota()).await {
            Ok(status) => status,
            Err(error) => {
                metrics::counter!("chat_rate_limit_unshared_total").increment(1);
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the shared rate limiter failed; counting for this process alone"
                );
                self.count_locally(app)
            }
        }
    }

    fn count_locally(&self, app: AppToken) -> RateLimitStatus {
        let limiter =
            self.limiters.get_or_insert_with(&app, || Ok::<_, std::convert::Infallible>(self.new_limiter()));
        let Ok(limiter) = limiter;
        let (remaining, retry_after) = match limiter.check() {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(self.clock.now()))),
        };
        let used = self.limit.requests.get().saturating_sub(remaining);
        let reset_after = self.limit.window() / self.limit.requests.get() * used;
        RateLimitStatus { remaining, reset_after, retry_after }
    }

    fn new_limiter(&self) -> Arc<AppLimiter<C>> {
        let limiter = Limiter::direct_with_clock(self.limit.quota(), self.clock.clone());
        Arc::new(limiter.with_middleware())
    }

    /// Adds the headers of draft-ietf-httpapi-ratelimit-headers-10, which are structured fields (RFC 9651).
    fn add_headers(&self, status: RateLimitStatus, response: &mut Response) {
        let limit =
            format!("\"default\";r={};t={}", status.remaining, seconds_rounded_up(status.reset_after));
        let policy = format!("\"default\";q={};w={}", self.limit.requests, self.limit.window().as_secs());
        for (name, value) in [(RATE_LIMIT, limit), (RATE_LIMIT_POLICY, policy)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// Converts to seconds, rounded up so that a retry after that time is never too early.
pub fn seconds_rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The rate-limiting middleware. Requests whose path has no valid app token are not counted. Paths that are not UTF-8
/// are rejected by the route itself.
pub(crate) async fn enforce_rate_limit<C>(
    State(limiter): State<Arc<RateLimiter<C>>>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response
where
    C: Clock + Clone + Send + Sync + 'static,
    C::Instant: Send + Sync,
{
    let token = params.iter().flatten().find(|(name, _)| *name == "app_token");
    let Some(Ok(app)) = token.map(|(_, value)| AppToken::parse(value)) else {
        return next.run(request).await;
    };
    let status = limiter.count(app).await;
    let mut response = match status.retry_after {
        None => next.run(request).await,
        Some(wait) => Problem::from_code(ErrorCode::RateLimited)
            .with_retry_after(seconds_rounded_up(wait).max(1))
            .into_response(),
    };
    limiter.add_headers(status, &mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use governor::clock::FakeRelativeClock;
    use http::StatusCode;
    use http::header::RETRY_AFTER;
    use tower::ServiceExt;

    fn app(letter: char) -> AppToken {
        AppToken::parse(&letter.to_string().repeat(36)).unwrap()
    }

    #[test]
    fn limits_round_trip_and_malformed_ones_are_refused() {
        for limit in ["100/s", "600/m", "10000/h"] {
            assert_eq!(limit.parse::<RateLimit>().unwrap().to_string(), limit);
        }
        for wrong in ["", "100", "0/s", "-1/s", "1/d", "1/", "/s", "1.5/s", "1000001/s", "1 /s", "100/s/m"] {
            assert_eq!(wrong.parse::<RateLimit>(), Err(InvalidRateLimit), "{wrong}");
        }
    }

    #[test]
    fn replenishes_evenly_and_separately_for_each_app() {
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::with_clock("60/m".parse().unwrap(), clock.clone(), 10);
        for left in (0..60).rev() {
            assert_eq!(limiter.count_locally(app('a')).remaining, left);
        }
        let refused = limiter.count_locally(app('a'));
        assert_eq!((refused.remaining, refused.retry_after), (0, Some(Duration::from_secs(1))));
        assert_eq!(refused.reset_after, Duration::from_mins(1));
        assert_eq!(limiter.count_locally(app('b')).retry_after, None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.count_locally(app('a')).retry_after, None);
        assert!(limiter.count_locally(app('a')).retry_after.is_some());
    }

    #[test]
    fn made_up_tokens_do_not_evict_an_app_at_its_limit() {
        // The cache is sharded. Each shard must be large enough to recognize repeated keys.
        let limiter = RateLimiter::with_clock("10/h".parse().unwrap(), FakeRelativeClock::default(), 10_000);
        let greedy = app('g');
        for _ in 0..11 {
            limiter.count_locally(greedy);
        }
        let mut number = 0_u32;
        for _ in 0..500 {
            for _ in 0..100 {
                // Each token is another one: its number in base 58, the number of characters that a token may consist of.
                let made_up = AppToken::generate(|buffer| {
                    number += 1;
                    let mut rest = number;
                    for byte in buffer {
                        *byte = u8::try_from(rest % 58).expect("a digit");
                        rest /= 58;
                    }
                });
                limiter.count_locally(made_up);
            }
            assert!(limiter.count_locally(greedy).retry_after.is_some());
        }
        assert!(limiter.limiters.len() <= 10_000);
    }

    #[tokio::test]
    async fn responses_carry_rate_limit_headers() {
        let limiter =
            Arc::new(RateLimiter::with_clock("2/m".parse().unwrap(), FakeRelativeClock::default(), 10));
        let routes = Router::new()
            .route("/apps/{app_token}", get(|| async {}))
            .route_layer(from_fn_with_state(limiter, enforce_rate_limit));
        let send = async |path: String| {
            routes.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
        };
        let path = format!("/apps/{}", app('a').expose());
        let first = send(path.clone()).await;
        assert_eq!(first.headers()["ratelimit"], "\"default\";r=1;t=30");
        assert_eq!(first.headers()["ratelimit-policy"], "\"default\";q=2;w=60");
        assert_eq!(send(path.clone()).await.headers()["ratelimit"], "\"default\";r=0;t=60");
        let refused = send(path).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()[RETRY_AFTER], "30");
        assert_eq!(refused.headers()["ratelimit"], "\"default\";r=0;t=60");
        let other = send("/apps/not-a-token".to_owned()).await;
        assert!(!other.headers().contains_key("ratelimit"));
        let not_utf8 = send("/apps/%FF".to_owned()).await;
        assert_eq!(not_utf8.status(), StatusCode::OK);
        assert!(!not_utf8.headers().contains_key("ratelimit"));
    }
}
