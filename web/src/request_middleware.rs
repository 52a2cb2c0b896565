//! The request middleware: the outermost layer of every route, except for CORS, which is around it.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method};
use tower::{Layer, Service};

use crate::access_log::{AccessLog, AnsweredRequest};
use crate::client_address::TrustedProxies;
use crate::compression;
use crate::cors::CorsOrigins;
use crate::error_code::ErrorCode;
use crate::host_policy::HostPolicy;
use crate::http_limits::{HttpLimits, Slot};
use crate::http_options::HttpOptions;
use crate::message_framing::{check_head_size, check_single_headers, check_transfer_coding};
use crate::metrics::http::HttpMetrics;
use crate::problem::Problem;
use crate::query_parameters::QueryParameters;
use crate::request_body::RequestMemory;
use crate::request_context::{RequestContext, X_REQUEST_ID};
use crate::server::connection::{ClientConnection, UnreadBody};
use crate::unsent_response;

/// The layer that creates the [`RequestContext`], checks the host and the names of query parameters, turns panics into
/// problems, renders problems, limits the memory of bodies, compresses responses, and logs and counts requests.
#[derive(Clone)]
pub(crate) struct RequestMiddlewareLayer(Arc<SharedState>);

struct SharedState {
    trusted_proxies: TrustedProxies,
    host_policy: HostPolicy,
    query_parameters: QueryParameters,
    cors: Option<CorsOrigins>,
    limits: Arc<HttpLimits>,
    max_body_bytes: usize,
    access_log: AccessLog,
    http_metrics: HttpMetrics,
}

/// The service of [`RequestMiddlewareLayer`].
#[derive(Clone)]
pub(crate) struct RequestMiddleware<S> {
    inner: S,
    shared: Arc<SharedState>,
}

/// A response extension: the response of an error status keeps its own body, such as a health report, and gets no
/// problem.
#[derive(Clone, Copy)]
pub struct CustomErrorBody;

impl RequestMiddlewareLayer {
    pub(crate) fn new(options: &HttpOptions, query_parameters: QueryParameters) -> Self {
        Self(Arc::new(SharedState {
            trusted_proxies: options.trusted_proxies.clone(),
            host_policy: options.host_policy.clone(),
            query_parameters,
            cors: options.cors.clone(),
            limits: Arc::clone(&options.limits),
            max_body_bytes: options.max_body_bytes,
            access_log: options.access_log,
            http_metrics: HttpMetrics::default(),
        }))
    }
}

impl<S> Layer<S> for RequestMiddlewareLayer {
    type Service = RequestMiddleware<S>;

    fn layer(&self, inner: S) -> RequestMiddleware<S> {
        RequestMiddleware { inner, shared: Arc::clone(&self.0) }
    }
}

impl<S> Service<Request> for RequestMiddleware<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let context = RequestContext::new(&request, &self.shared.trusted_proxies);
        let method = method_label(request.method());
        // The route, never the path: the path contains the app's token.
        let route = request.extensions().get::<MatchedPath>().cloned();
        request.extensions_mut().insert(context.clone());
        let connection = request.extensions_mut().remove::<Arc<ClientConnection>>();
        let version = request.version();
        let takes_body = !matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
        let memory = takes_body.then(|| RequestMemory::new(&self.shared.limits, self.shared.max_body_bytes));
        if let Some(memory) = &memory {
            request.extensions_mut().insert(Arc::clone(memory));
        } else {
            // No handler reads the body, which would only fill the connection's buffers.
            *request.body_mut() = Body::empty();
        }
        let accepted_encodings = compression::accepted_encodings(request.headers());
        let call = self.shared.check(&request).and_then(|()| {
            catch_unwind(AssertUnwindSafe(|| self.inner.call(request)))
                .map_err(|panic| problem_of_panic(&*panic))
        });
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let result = match call {
                Ok(future) => {
                    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| problem_of_panic(&*panic))
                }
                Err(problem) => Err(problem),
            };
            let mut response = match result {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(problem) => problem.into_response(),
            };
            // The handler no longer needs the body.
            drop(memory);
            let mut code = finish_response(&context, &mut response);
            // If a small rest of the request's body is still arriving, an error response is sent only after it. Until
            // then the request does not count against the limit of requests in flight.
            let is_body_arriving =
                |connection: &Arc<ClientConnection>| connection.unread() == Some(UnreadBody::Arriving);
            if code.is_some() && connection.as_ref().is_some_and(is_body_arriving) {
                response.extensions_mut().remove::<Arc<Slot>>();
            }
            let response = compression::compress(response, accepted_encodings).await;
            // If the memory for unsent responses is used up, the client gets `overloaded` instead of the response.
            let response = unsent_response::track(response, &shared.limits, connection, version)
                .unwrap_or_else(|problem| {
                    let mut overloaded = problem.into_response();
                    code = finish_response(&context, &mut overloaded);
                    overloaded
                });

            let (status, elapsed) = (response.status().as_u16(), started.elapsed());
            let route = route.as_ref().map_or("(none)", MatchedPath::as_str);
            shared.http_metrics.record_response(method, route, status, elapsed);
            shared.access_log.record(&AnsweredRequest {
                request_id: context.request_id(),
                client: context.client_address(),
                method,
                route,
                status,
                code,
                elapsed,
            });
            Ok(response)
        })
    }
}

impl SharedState {
    /// Checks the parts of a request that no route checks.
    fn check(&self, request: &Request) -> Result<(), Problem> {
        check_head_size(request)?;
        check_transfer_coding(request.headers())?;
        check_single_headers(request.headers())?;
        self.host_policy.check(request, self.cors.as_ref())?;
        self.query_parameters.check(request)
    }
}

/// Adds the headers that every response has, and the body of a problem. Returns the problem's code.
fn finish_response(context: &RequestContext, response: &mut Response) -> Option<ErrorCode> {
    let problem = response.extensions_mut().remove::<Problem>();
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let problem = match problem {
        None if failed && response.extensions().get::<CustomErrorBody>().is_none() => {
            Some(Problem::from_status(status))
        }
        problem => problem,
    };
    if let Some(problem) = &problem {
        problem.log(context.request_id());
        problem.render(context.request_id(), response);
    }
    // Bodies, `Location` and `Link` hold the credentials of apps: caches may store only responses that are the same for
    // all clients.
    let is_public = |control: &HeaderValue| control.as_bytes().starts_with(b"public");
    if !response.headers().get(CACHE_CONTROL).is_some_and(is_public) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(id) = HeaderValue::from_str(context.request_id()) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    problem.map(|problem| problem.code())
}

/// Returns the method as a metric label. Unknown methods share one, so that clients can't create labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

fn problem_of_panic(panic: &(dyn std::any::Any + Send)) -> Problem {
    let message =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Problem::internal(format!("a handler panicked: {}", message.unwrap_or("no message")))
}
