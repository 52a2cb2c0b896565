//! The router that a server calls: an initial one while the process starts, and then the router of the process.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::SetOnce;
use tokio::time::timeout;

use crate::path_prefixes::{ADMIN_PREFIX, API_PREFIX, CONSOLE_PREFIX};

/// The longest time that a request of an API or of the console waits for the start. Most starts take less. So a process
/// that is killed and started again usually refuses no request, even if its gateway has not noticed and goes on sending
/// requests.
const MAX_START_WAIT: Duration = Duration::from_secs(2);

/// The router of a server. It can be replaced once, when the process has started. Clones share the replacement.
#[derive(Clone)]
pub struct ServedRouter(Arc<Routers>);

struct Routers {
    initial: Router,
    started: SetOnce<Router>,
}

impl ServedRouter {
    /// Serves requests with `initial` until the process has started.
    pub fn starting(initial: Router) -> Self {
        Self(Arc::new(Routers { initial, started: SetOnce::new() }))
    }

    /// Serves all later requests with `router`, also those of connections that are open. A second call changes nothing.
    pub fn start(&self, router: Router) {
        let _ = self.0.started.set(router);
    }

    /// Returns the router for a request to a path. While the process starts, requests of the APIs and the console wait.
    pub(crate) async fn for_request(&self, path: &str) -> Router {
        let Routers { initial, started } = &*self.0;
        if let Some(router) = started.get() {
            return router.clone();
        }
        if [API_PREFIX, ADMIN_PREFIX, CONSOLE_PREFIX].iter().any(|prefix| path.starts_with(prefix)) {
            return timeout(MAX_START_WAIT, started.wait()).await.unwrap_or(initial).clone();
        }
        initial.clone()
    }
}

impl From<Router> for ServedRouter {
    /// The router of a process that has started.
    fn from(router: Router) -> Self {
        let served = Self::starting(router.clone());
        served.start(router);
        served
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    fn answering(status: StatusCode) -> Router {
        Router::new().fallback(async move || status)
    }

    async fn status(app: ServedRouter, path: &'static str) -> StatusCode {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        app.for_request(path).await.oneshot(request).await.unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_of_an_api_waits_for_the_start_and_others_do_not() {
        let app = ServedRouter::starting(answering(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(status(app.clone(), "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        let waiting = tokio::spawn(status(app.clone(), "/api/v1/apps"));
        tokio::time::sleep(MAX_START_WAIT / 2).await;
        assert!(!waiting.is_finished());
        app.start(answering(StatusCode::OK));
        assert_eq!(waiting.await.unwrap(), StatusCode::OK);
        assert_eq!(status(app, "/readyz").await, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_process_that_has_started_do_not_wait() {
        let begun = tokio::time::Instant::now();
        assert_eq!(status(answering(StatusCode::OK).into(), "/api/v1/apps").await, StatusCode::OK);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_takes_long_refuses_requests() {
        let app = ServedRouter::starting(answering(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(status(app, "/admin/v1/projections").await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
