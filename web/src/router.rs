//! Puts routes and the layers around them together into what a listener serves.
//!
//! From the outside in: the edge (request id, problems, panics, accounts), the body limit, then, around API routes
//! only, the rate limit, the bound on requests in flight, and the deadline. Health checks and metrics answer however
//! busy the APIs are.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use chat_ports::rate_limit::SharedRateLimiter;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::client_address::TrustedProxies;
use crate::error_code::ErrorCode;
use crate::load_limits::{ConcurrencyLimit, Deadline, LoadLimits};
use crate::openapi;
use crate::problem::Problem;
use crate::rate_limit::{RateLimit, RateLimiter, enforce_rate_limit};
use crate::request_middleware::RequestMiddlewareLayer;
use crate::routes_of_other_roles::{PathMethods, answer_method_not_allowed};
use crate::system_routes::{self, SystemServices};

/// Bounds on requests.
#[derive(Clone)]
pub struct HttpOptions {
    /// The largest body, in bytes. A message of 65,536 bytes takes six times that where every byte is escaped.
    pub max_body_bytes: usize,
    /// API requests in flight at a time; more are answered 503 at once.
    pub max_in_flight: usize,
    /// How long a handler may take. More than a query may wait for its consistency token.
    pub deadline: Duration,
    /// The limit on each app's requests, if any.
    pub rate_limit: Option<RateLimit>,
    /// Where processes account for the limit together; `None` where each does for itself.
    pub shared_rate_limits: Option<Arc<dyn SharedRateLimiter>>,
    /// Whose word on the addresses of clients counts.
    pub trusted_proxies: TrustedProxies,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_body_bytes: 512 * 1024,
            max_in_flight: 4_096,
            deadline: Duration::from_secs(30),
            rate_limit: None,
            shared_rate_limits: None,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

/// Where the APIs' routes are mounted.
pub const API_PREFIX: &str = "/api/v1";

/// Where operators' routes are mounted.
pub const ADMIN_PREFIX: &str = "/admin/v1";

/// An API's routes, to be mounted under [`PREFIX`] or [`ADMIN_PREFIX`].
pub struct ApiRoutes {
    routes: OpenApiRouter,
    /// For whom they are.
    audience: Audience,
    /// What a client is told when a handler missed its deadline.
    timeout_code: ErrorCode,
    /// What goes around the limits.
    outer_layer: Option<OuterLayer>,
}

/// What a process serves of the APIs, and the documents of what other processes serve.
#[derive(Default)]
pub struct ApiSet {
    /// Served here.
    pub served: Vec<ApiRoutes>,
    /// Served elsewhere.
    pub documents_of_other_roles: Vec<OpenApi>,
    /// Operators' routes that are served elsewhere.
    pub admin_documents_of_other_roles: Vec<OpenApi>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Apps,
    Operators,
}

type OuterLayer = Box<dyn FnOnce(OpenApiRouter) -> OpenApiRouter + Send>;

impl ApiRoutes {
    /// Routes that change something: a late answer leaves open whether they did.
    pub fn commands(routes: OpenApiRouter) -> Self {
        Self { routes, audience: Audience::Apps, timeout_code: ErrorCode::OutcomeUnknown, outer_layer: None }
    }

    /// Routes that change nothing.
    pub fn queries(routes: OpenApiRouter) -> Self {
        Self { routes, audience: Audience::Apps, timeout_code: ErrorCode::Overloaded, outer_layer: None }
    }

    /// Operators' routes, which change nothing and take nothing of the rate limits of the apps that they are about.
    pub fn admin(routes: OpenApiRouter) -> Self {
        Self { audience: Audience::Operators, ..Self::queries(routes) }
    }

    /// Puts a layer around the limits too: it sees what they refuse.
    #[must_use]
    pub fn with_outer_layer(
        mut self,
        layer: impl FnOnce(OpenApiRouter) -> OpenApiRouter + Send + 'static,
    ) -> Self {
        self.outer_layer = Some(Box::new(layer));
        self
    }
}

/// Everything a process serves.
pub fn build_router(apis: ApiSet, system: SystemServices, options: &HttpOptions) -> Router {
    let concurrency_limit = Arc::new(ConcurrencyLimit::new(options.max_in_flight));
    let limiter =
        options.rate_limit.map(|limit| Arc::new(RateLimiter::new(limit, options.shared_rate_limits.clone())));
    let all_served =
        apis.documents_of_other_roles.is_empty() && apis.admin_documents_of_other_roles.is_empty();
    let merge_documents = |documents: Vec<OpenApi>| {
        let described = documents.into_iter().map(OpenApiRouter::with_openapi);
        described.fold(OpenApiRouter::new(), OpenApiRouter::merge)
    };
    let (mut app_routes, mut operator_routes) = (
        merge_documents(apis.documents_of_other_roles),
        merge_documents(apis.admin_documents_of_other_roles),
    );
    for ApiRoutes { routes, audience, timeout_code, outer_layer } in apis.served {
        let deadline = Deadline { timeout: options.deadline, code: timeout_code };
        let mut routes =
            routes.route_layer(LoadLimits { concurrency_limit: Arc::clone(&concurrency_limit), deadline });
        if let (Some(limiter), Audience::Apps) = (&limiter, audience) {
            routes = routes.route_layer(from_fn_with_state(Arc::clone(limiter), enforce_rate_limit));
        }
        if let Some(outer_layer) = outer_layer {
            routes = outer_layer(routes);
        }
        match audience {
            Audience::Apps => app_routes = app_routes.merge(routes),
            Audience::Operators => operator_routes = operator_routes.merge(routes),
        }
    }
    let all = OpenApiRouter::with_openapi(openapi::base_document());
    let all = all.nest(API_PREFIX, app_routes).nest(ADMIN_PREFIX, operator_routes);
    let (routes, mut document) = all.split_for_parts();
    document.merge(system_routes::openapi_document());
    let path_methods = PathMethods::from_document(&document);
    let routes = routes
        .merge(system_routes::routes(system, &document))
        .fallback(async || Problem::from_code(ErrorCode::RouteNotFound))
        .method_not_allowed_fallback(async || Problem::from_code(ErrorCode::MethodNotAllowed));
    // Where all of the API is served here, the router itself knows which methods paths take.
    let routes = if all_served {
        routes
    } else {
        routes.layer(from_fn_with_state(path_methods, answer_method_not_allowed))
    };
    // Each call of `layer` puts another box around each route, and calling a route copies all of its boxes.
    routes.layer((
        RequestMiddlewareLayer::new(options.trusted_proxies.clone()),
        DefaultBodyLimit::max(options.max_body_bytes),
    ))
}
