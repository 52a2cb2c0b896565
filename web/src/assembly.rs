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
use chat_ports::rate_limit::RateLimits;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::client_address::TrustedProxies;
use crate::edge::Edge;
use crate::elsewhere::{WholeApi, answer_for_the_whole};
use crate::error_code::ErrorCode;
use crate::limits::{Deadline, Limits, Slots};
use crate::openapi;
use crate::problem::Problem;
use crate::rate_limit::{RateLimit, RateLimiter, limit_app};
use crate::system::{self, System};

/// Bounds on requests.
#[derive(Clone)]
pub struct HttpOptions {
    /// The largest body, in bytes. A message of 65,536 bytes takes six times that where every byte is escaped.
    pub max_body: usize,
    /// API requests in flight at a time; more are answered 503 at once.
    pub max_in_flight: usize,
    /// How long a handler may take. More than a query may wait for its consistency token.
    pub deadline: Duration,
    /// The limit on each app's requests, if any.
    pub rate_limit: Option<RateLimit>,
    /// Where processes account for the limit together; `None` where each does for itself.
    pub shared_limits: Option<Arc<dyn RateLimits>>,
    /// Whose word on the addresses of clients counts.
    pub trusted_proxies: TrustedProxies,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_body: 512 * 1024,
            max_in_flight: 4_096,
            deadline: Duration::from_secs(30),
            rate_limit: None,
            shared_limits: None,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

/// Where the APIs' routes are mounted.
pub const PREFIX: &str = "/api/v1";

/// Where operators' routes are mounted.
pub const ADMIN_PREFIX: &str = "/admin/v1";

/// An API's routes, to be mounted under [`PREFIX`] or [`ADMIN_PREFIX`].
pub struct Api {
    routes: OpenApiRouter,
    /// For whom they are.
    audience: Audience,
    /// What a client is told when a handler missed its deadline.
    late: ErrorCode,
    /// What goes around the limits.
    around: Option<Around>,
}

/// What a process serves of the APIs, and the documents of what other processes serve.
#[derive(Default)]
pub struct Apis {
    /// Served here.
    pub served: Vec<Api>,
    /// Served elsewhere.
    pub documented: Vec<OpenApi>,
    /// Operators' routes that are served elsewhere.
    pub documented_admin: Vec<OpenApi>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Apps,
    Operators,
}

type Around = Box<dyn FnOnce(OpenApiRouter) -> OpenApiRouter + Send>;

impl Api {
    /// Routes that change something: a late answer leaves open whether they did.
    pub fn commands(routes: OpenApiRouter) -> Self {
        Self { routes, audience: Audience::Apps, late: ErrorCode::OutcomeUnknown, around: None }
    }

    /// Routes that change nothing.
    pub fn queries(routes: OpenApiRouter) -> Self {
        Self { routes, audience: Audience::Apps, late: ErrorCode::Overloaded, around: None }
    }

    /// Operators' routes, which change nothing and take nothing of the rate limits of the apps that they are about.
    pub fn admin(routes: OpenApiRouter) -> Self {
        Self { audience: Audience::Operators, ..Self::queries(routes) }
    }

    /// Puts a layer around the limits too: it sees what they refuse.
    #[must_use]
    pub fn around(mut self, layer: impl FnOnce(OpenApiRouter) -> OpenApiRouter + Send + 'static) -> Self {
        self.around = Some(Box::new(layer));
        self
    }
}

/// Everything a process serves.
pub fn assemble(apis: Apis, system: System, options: &HttpOptions) -> Router {
    let slots = Arc::new(Slots::new(options.max_in_flight));
    let limiter =
        options.rate_limit.map(|limit| Arc::new(RateLimiter::new(limit, options.shared_limits.clone())));
    let all_served = apis.documented.is_empty() && apis.documented_admin.is_empty();
    let described = |documents: Vec<OpenApi>| {
        let described = documents.into_iter().map(OpenApiRouter::with_openapi);
        described.fold(OpenApiRouter::new(), OpenApiRouter::merge)
    };
    let (mut of_apps, mut of_operators) = (described(apis.documented), described(apis.documented_admin));
    for Api { routes, audience, late, around } in apis.served {
        let deadline = Deadline { after: options.deadline, code: late };
        let mut routes = routes.route_layer(Limits { slots: Arc::clone(&slots), deadline });
        if let (Some(limiter), Audience::Apps) = (&limiter, audience) {
            routes = routes.route_layer(from_fn_with_state(Arc::clone(limiter), limit_app));
        }
        if let Some(around) = around {
            routes = around(routes);
        }
        match audience {
            Audience::Apps => of_apps = of_apps.merge(routes),
            Audience::Operators => of_operators = of_operators.merge(routes),
        }
    }
    let all = OpenApiRouter::with_openapi(openapi::base());
    let all = all.nest(PREFIX, of_apps).nest(ADMIN_PREFIX, of_operators);
    let (routes, mut document) = all.split_for_parts();
    document.merge(system::document());
    let whole = WholeApi::of(&document);
    let routes = routes
        .merge(system::routes(system, &document))
        .fallback(async || Problem::of(ErrorCode::RouteNotFound))
        .method_not_allowed_fallback(async || Problem::of(ErrorCode::MethodNotAllowed));
    // Where all of the API is served here, the router itself knows which methods paths take.
    let routes =
        if all_served { routes } else { routes.layer(from_fn_with_state(whole, answer_for_the_whole)) };
    // Each call of `layer` puts another box around each route, and calling a route copies all of its boxes.
    routes.layer((Edge::new(options.trusted_proxies.clone()), DefaultBodyLimit::max(options.max_body)))
}
