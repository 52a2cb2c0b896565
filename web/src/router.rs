//! The router of a process: API routes, system routes and the middleware around them.
//!
//! From the outside in: CORS if it is on, the request middleware (request id, checks of host and query parameters,
//! problems, panics, metrics, size and memory of bodies, compression), the rate limit around the routes of apps, and
//! the concurrency limit and the deadline around the routes of the APIs and of the console. System routes have none of
//! these limits, so health checks and metrics are served even while the APIs are overloaded.

use std::sync::Arc;

pub use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
pub use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::error_code::ErrorCode;
pub use crate::http_options::HttpOptions;
use crate::load_limits::{Deadline, LoadLimits, TimeoutCodes};
use crate::metrics::http::register_route_metrics;
use crate::openapi;
pub use crate::path_prefixes::{ADMIN_PREFIX, API_PREFIX};
use crate::problem::Problem;
use crate::query_parameters::QueryParameters;
use crate::rate_limit::{RateLimiter, enforce_rate_limit};
use crate::request_middleware::RequestMiddlewareLayer;
use crate::routes_of_other_roles::{PathMethods, answer_method_not_allowed, route_not_found};
use crate::system_routes::{self, OpenApiJson, SystemServices};

/// The routes of an API. Their paths are those that clients send, with [`API_PREFIX`] or [`ADMIN_PREFIX`].
pub struct ApiRoutes {
    routes: OpenApiRouter,
    audience: Audience,
    timeout_codes: TimeoutCodes,
    /// A layer around the limits.
    outer_layer: Option<OuterLayer>,
}

/// The APIs that a process serves, and the OpenAPI documents of those that other processes serve.
#[derive(Default)]
pub struct ApiSet {
    /// The routes that this process serves.
    pub served: Vec<ApiRoutes>,
    /// The pages of the console, with their whole paths, if this process serves them.
    pub console: Option<Router>,
    /// OpenAPI documents of routes that other processes serve.
    pub of_other_roles: Vec<OpenApi>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Apps,
    Operators,
}

type OuterLayer = Box<dyn FnOnce(OpenApiRouter) -> OpenApiRouter + Send>;

impl ApiRoutes {
    /// Creates API routes that change state: after a missed deadline the outcome is unknown.
    pub fn commands(routes: OpenApiRouter) -> Self {
        Self { routes, audience: Audience::Apps, timeout_codes: TimeoutCodes::Changes, outer_layer: None }
    }

    /// Creates API routes that only read.
    pub fn queries(routes: OpenApiRouter) -> Self {
        Self { routes, audience: Audience::Apps, timeout_codes: TimeoutCodes::Reads, outer_layer: None }
    }

    /// Creates admin routes. The rate limits of apps don't apply to them.
    pub fn admin(routes: OpenApiRouter) -> Self {
        let timeout_codes = TimeoutCodes::ByMethod;
        Self { routes, audience: Audience::Operators, timeout_codes, outer_layer: None }
    }

    /// Adds a layer outside the limits, which also sees the requests that they reject.
    #[must_use]
    pub fn with_outer_layer(
        mut self,
        layer: impl FnOnce(OpenApiRouter) -> OpenApiRouter + Send + 'static,
    ) -> Self {
        self.outer_layer = Some(Box::new(layer));
        self
    }
}

/// Builds two routers of a process: one for clients, with the routes of apps and all system routes except the metrics;
/// and one for operators, with the admin routes, the console and all system routes. `admin_options` are the options of
/// the router for operators.
pub fn build_separate_routers(
    apis: ApiSet,
    system: SystemServices,
    options: &HttpOptions,
    admin_options: &HttpOptions,
) -> (Router, Router) {
    let ApiSet { served, console, of_other_roles } = apis;
    let (admin, public): (Vec<_>, Vec<_>) =
        served.into_iter().partition(|api| api.audience == Audience::Operators);
    // Both routers serve the document of the whole API.
    let mut not_in_public = of_other_roles.clone();
    not_in_public.extend(admin.iter().map(|api| api.routes.get_openapi().clone()));
    let mut not_in_admin = of_other_roles;
    not_in_admin.extend(public.iter().map(|api| api.routes.get_openapi().clone()));
    let public_apis = ApiSet { served: public, console: None, of_other_roles: not_in_public };
    let admin_apis = ApiSet { served: admin, console, of_other_roles: not_in_admin };
    let public_router = build_router(public_apis, system.clone().without_metrics(), options);
    (public_router, build_router(admin_apis, system, admin_options))
}

/// Builds the router of a process that is starting: the system routes, and 503 for everything else. `documents`
/// returns the OpenAPI documents of the whole API. They are made on request, because hardly any process is asked for
/// them while it starts.
pub fn build_starting_router(
    documents: impl FnOnce() -> Vec<OpenApi> + Send + 'static,
    system: SystemServices,
    options: &HttpOptions,
) -> Router {
    let starting = "the server is starting and has not opened its engines yet; nothing was changed";
    let document = OpenApiJson::on_first_request(move || {
        let mut document = openapi::base_document();
        for part in documents() {
            document.merge(part);
        }
        add_system_routes(&mut document);
        document
    });
    let routes = system_routes::routes(system, document)
        .fallback(async move || Problem::new(ErrorCode::EventStoreUnavailable, starting))
        .method_not_allowed_fallback(async || Problem::from_code(ErrorCode::MethodNotAllowed));
    add_outer_layers(routes, options, QueryParameters::default())
}

/// Builds the router of a process from its APIs and the system routes.
pub fn build_router(apis: ApiSet, system: SystemServices, options: &HttpOptions) -> Router {
    let rate_limiter =
        options.rate_limit.map(|limit| Arc::new(RateLimiter::new(limit, options.shared_rate_limits.clone())));
    let serves_all_apis = apis.of_other_roles.is_empty();
    let mut api_routes = OpenApiRouter::with_openapi(openapi::base_document());
    for document in apis.of_other_roles {
        api_routes.get_openapi_mut().merge(document);
    }
    for ApiRoutes { routes, audience, timeout_codes, outer_layer } in apis.served {
        register_route_metrics(routes.get_openapi());
        let deadline = Deadline { timeout: options.deadline, codes: timeout_codes };
        let mut routes = routes.route_layer(LoadLimits { limits: Arc::clone(&options.limits), deadline });
        if let (Some(rate_limiter), Audience::Apps) = (&rate_limiter, audience) {
            routes = routes.route_layer(from_fn_with_state(Arc::clone(rate_limiter), enforce_rate_limit));
        }
        if let Some(outer_layer) = outer_layer {
            routes = outer_layer(routes);
        }
        api_routes = api_routes.merge(routes);
    }
    let (routes, mut document) = api_routes.split_for_parts();
    add_system_routes(&mut document);
    register_route_metrics(&system_routes::openapi_document());
    let path_methods = PathMethods::from_document(&document);
    let load = LoadLimits {
        limits: Arc::clone(&options.limits),
        deadline: Deadline { timeout: options.deadline, codes: TimeoutCodes::ByMethod },
    };
    // `route_layer` panics on a router without routes, so the limits are added only if there is a console.
    let console = apis.console.map(|console| console.route_layer(load)).unwrap_or_default();
    let known_routes = path_methods.clone();
    let routes = routes
        .merge(console)
        .merge(system_routes::routes(system, OpenApiJson::new(&document)))
        .fallback(async move |request: Request| route_not_found(&known_routes, &request))
        .method_not_allowed_fallback(async || Problem::from_code(ErrorCode::MethodNotAllowed));
    // In a process that serves all APIs, the router itself has the methods of every path.
    let routes = if serves_all_apis {
        routes
    } else {
        routes.layer(from_fn_with_state(path_methods, answer_method_not_allowed))
    };
    let query_parameters = QueryParameters::from_document(&document, &[API_PREFIX, ADMIN_PREFIX]);
    add_outer_layers(routes, options, query_parameters)
}

/// Completes the document of the API routes with the system routes, which every process serves.
fn add_system_routes(document: &mut OpenApi) {
    document.merge(system_routes::openapi_document());
    openapi::finish_document(document);
}

/// Adds the layers around all routes. Each call of `layer` boxes every route again, and each request clones all boxes
/// of its route. So the second call, for CORS, is made only if pages of other origins may use the API.
fn add_outer_layers(routes: Router, options: &HttpOptions, query_parameters: QueryParameters) -> Router {
    let routes = routes.layer(RequestMiddlewareLayer::new(options, query_parameters));
    match &options.cors {
        // Around the request middleware, so that pages can read its errors.
        Some(origins) => routes.layer(origins.layer()),
        None => routes,
    }
}
