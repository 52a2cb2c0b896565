//! The router that a server calls: one for the time of the start, and then that of the process.

use std::sync::{Arc, OnceLock};

use axum::Router;

/// The router of a server. It can be replaced once, when the process has started. Clones share the replacement.
#[derive(Clone)]
pub struct ServedRouter(Arc<Slots>);

struct Slots {
    initial: Router,
    started: OnceLock<Router>,
}

impl ServedRouter {
    /// Serves requests with `initial` until the process has started.
    pub fn starting(initial: Router) -> Self {
        Self(Arc::new(Slots { initial, started: OnceLock::new() }))
    }

    /// Serves all later requests with `router`, also those of connections that are open. A second call changes nothing.
    pub fn start(&self, router: Router) {
        let _ = self.0.started.set(router);
    }

    /// Returns the router for a request.
    pub(crate) fn current(&self) -> Router {
        self.0.started.get().unwrap_or(&self.0.initial).clone()
    }
}

impl From<Router> for ServedRouter {
    fn from(router: Router) -> Self {
        Self::starting(router)
    }
}
