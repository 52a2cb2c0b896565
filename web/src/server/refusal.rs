//! Early refusal: requests for which there is no room are answered before any route or middleware sees them.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method, Request, StatusCode};
use metrics::counter;
use tokio::time::{Instant, sleep};

use super::connection::ClientConnection;
use crate::cors::CorsOrigins;
use crate::error_code::ErrorCode;
use crate::http_limits::HttpLimits;
use crate::problem::Problem;
use crate::request_context::{X_REQUEST_ID, request_id};
use crate::unsent_response;

/// The number of refusals in each [`WINDOW`] that are sent at once. Later refusals of the window are held back for
/// [`PAUSE`].
const IMMEDIATE_REFUSALS: u64 = 20;
const WINDOW: Duration = Duration::from_millis(100);

/// How long the later refusals of a window are held back: as long as `Retry-After` says. Clients that repeat a refused
/// request at once would otherwise take the processors from the requests that run.
const PAUSE: Duration = Duration::from_secs(1);

/// The most refusals that are held back at a time. Beyond that, the connection of a refused request is closed instead.
const MAX_PAUSED: usize = 16_384;

/// Path prefixes of the API routes, which need a slot. The console needs one too, but only the load limits check that.
const PREFIXES_WITH_SLOTS: [&str; 2] = ["/api/", "/admin/"];

/// Refuses requests, and holds back refusals if they are many.
pub(super) struct Refusals {
    limits: Arc<HttpLimits>,
    cors: Option<CorsOrigins>,
    started: Instant,
    /// Upper 32 bits: the number of the current window. Lower 32 bits: the refusals in that window so far.
    window: AtomicU64,
    paused: AtomicUsize,
}

/// A guard that counts a refusal as held back until the guard is dropped.
struct Paused<'a>(&'a AtomicUsize);

impl Refusals {
    pub(super) fn new(limits: &Arc<HttpLimits>, cors: Option<CorsOrigins>) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::clone(limits),
            cors,
            started: Instant::now(),
            window: AtomicU64::new(0),
            paused: AtomicUsize::new(0),
        })
    }

    /// Refuses a request of an API if no slot is free, or if the client must read earlier responses first. Otherwise
    /// returns the request.
    pub(super) async fn check<B>(
        &self,
        request: Request<B>,
        client: &Arc<ClientConnection>,
    ) -> Result<Request<B>, Response> {
        let path = request.uri().path();
        let needs_slot = PREFIXES_WITH_SLOTS.iter().any(|prefix| path.starts_with(prefix));
        // No route takes `OPTIONS`, only the layer that answers preflight requests.
        if !needs_slot || request.method() == Method::OPTIONS {
            return Ok(request);
        }
        let reason = if client.must_read_first() {
            "response_memory"
        } else if self.limits.ensure_free_slot() {
            return Ok(request);
        } else {
            "in_flight"
        };
        counter!("chat_http_overloaded_total", "reason" => reason).increment(1);
        let (id, version) = (request_id(request.headers()), request.version());
        let cors_headers = self.cors.as_ref().map(|cors| cors.response_headers(&request));
        // The request is not kept while its refusal is held back: an unread body fills the connection's buffers.
        drop(request);
        if !self.is_immediate() {
            let Some(_paused) = self.count_as_paused() else {
                client.close();
                // The connection is closed instead of a response.
                return pending().await;
            };
            sleep(PAUSE).await;
        }
        let problem = Problem::from_code(ErrorCode::Overloaded);
        let mut response = problem.clone().into_response();
        problem.render(&id, &mut response);
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().extend(cors_headers.unwrap_or_default());
        // There is always memory for a response as small as this one.
        Err(unsent_response::track(response, &self.limits, Some(Arc::clone(client)), version)
            .unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response()))
    }

    /// Counts a refusal in the current window. Returns whether it is one of the first, which are sent at once.
    fn is_immediate(&self) -> bool {
        let empty_window =
            u64::try_from(self.started.elapsed().as_millis() / WINDOW.as_millis()).unwrap_or(0) << 32;
        // `max` replaces an earlier window, whose number is smaller, with the current one, which has no refusals yet.
        let count = |window: u64| Some(window.max(empty_window) + 1);
        let before = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .unwrap_or_default()
            .max(empty_window);
        let earlier_refusals = before & u64::from(u32::MAX);
        earlier_refusals < IMMEDIATE_REFUSALS
    }

    /// Counts a refusal as held back, or returns `None` if too many are.
    fn count_as_paused(&self) -> Option<Paused<'_>> {
        let more = |paused: usize| (paused < MAX_PAUSED).then_some(paused + 1);
        self.paused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Paused(&self.paused))
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn holds_back_refusals_beyond_a_few_so_that_repeating_clients_wait() {
        let limits = HttpLimits::new(0, 64 * 1024 * 1024);
        let refusals = Refusals::new(&limits, None);
        let client = ClientConnection::new(&limits);
        let request = || Request::get("/api/v1/apps").body(()).unwrap();
        let mut waits = Vec::new();
        for _ in 0..IMMEDIATE_REFUSALS + 2 {
            let started = Instant::now();
            let response = refusals.check(request(), &client).await.unwrap_err();
            assert_eq!(response.status(), 503);
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            waits.push(started.elapsed());
        }
        let (immediate, held_back) = waits.split_at(usize::try_from(IMMEDIATE_REFUSALS).unwrap());
        assert!(immediate.iter().all(Duration::is_zero), "{immediate:?}");
        assert!(held_back[0] >= PAUSE, "{held_back:?}");
        assert!(held_back[1].is_zero(), "another window has begun: {held_back:?}");
        let health = Request::get("/livez").body(()).unwrap();
        assert!(refusals.check(health, &client).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn closes_the_connection_without_a_response_if_too_many_refusals_are_held_back() {
        let limits = HttpLimits::new(0, 64 * 1024 * 1024);
        let refusals = Refusals::new(&limits, None);
        let client = ClientConnection::new(&limits);
        refusals.window.store(IMMEDIATE_REFUSALS, Ordering::Relaxed);
        refusals.paused.store(MAX_PAUSED, Ordering::Relaxed);
        tokio::select! {
            biased;
            _ = refusals.check(Request::get("/api/v1/apps").body(()).unwrap(), &client) => panic!("answered"),
            () = client.must_close() => {}
        }
    }
}
