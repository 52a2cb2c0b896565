//! Routes of other roles: a process answers 405 also for paths that it does not serve itself, and names the role that
//! serves a route.
//!
//! A gateway routes requests by method and path. So a request with an unsupported method may reach a process that does
//! not serve the path, or serves it with other methods. The response must be the same as from a process that serves all
//! roles.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use utoipa::openapi::{OpenApi, PathItem};

use crate::error_code::ErrorCode;
use crate::path_prefixes::{ADMIN_PREFIX, API_PREFIX};
use crate::problem::Problem;

/// The methods of every path of the whole API.
#[derive(Clone)]
pub(crate) struct PathMethods(Arc<[(String, Vec<&'static str>)]>);

impl PathMethods {
    pub(crate) fn from_document(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter();
        let mut paths: Vec<_> =
            paths.map(|(template, item)| (template.clone(), documented_methods(item))).collect();
        // If two templates match a path, the one with fewer parameters wins.
        paths.sort_by_key(|(template, _)| template.matches('{').count());
        Self(paths.into())
    }

    fn allowed_methods(&self, path: &str) -> Option<&[&'static str]> {
        let entry = self.0.iter().find(|(template, _)| matches_template(path, template))?;
        Some(&entry.1)
    }
}

fn documented_methods(item: &PathItem) -> Vec<&'static str> {
    let operations = [
        ("GET", &item.get),
        ("HEAD", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("DELETE", &item.delete),
    ];
    operations.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| method).collect()
}

/// Whether a path matches a template such as `/apps/{app_token}`.
fn matches_template(path: &str, template: &str) -> bool {
    let mut segments = path.split('/');
    let segments_match = template.split('/').all(|template_segment| {
        segments.next().is_some_and(|segment| {
            if template_segment.starts_with('{') { !segment.is_empty() } else { segment == template_segment }
        })
    });
    segments_match && segments.next().is_none()
}

/// Creates the problem of a request for which there is no route here. Says which role serves the route, if one does.
pub(crate) fn route_not_found(path_methods: &PathMethods, request: &Request) -> Problem {
    let (method, path) = (request.method().as_str(), request.uri().path());
    if path_methods.allowed_methods(path).is_none_or(|methods| !methods.contains(&method)) {
        return Problem::from_code(ErrorCode::RouteNotFound);
    }
    let detail = if path.starts_with(ADMIN_PREFIX) {
        "this address does not serve the admin API: `serve` and `query-api` serve it, at their `--admin-listen-addr` if \
         they have one"
    } else if path.starts_with(API_PREFIX) && matches!(method, "GET" | "HEAD") {
        "this address does not serve this route: `serve` and `query-api` do, at their `--listen-addr`"
    } else if path.starts_with(API_PREFIX) {
        "this address does not serve this route: `serve` and `command-api` do, at their `--listen-addr`"
    } else {
        return Problem::from_code(ErrorCode::RouteNotFound);
    };
    Problem::new(ErrorCode::RouteNotFound, detail)
}

/// The middleware that answers 405 if no process supports the method at the path. `Allow` lists the methods that the
/// path has in the whole API.
///
/// Handlers pass through it too: for `PUT …/messages/search`, the command API takes `search` for the number of a message, and
/// answers 404.
pub(crate) async fn answer_method_not_allowed(
    State(path_methods): State<PathMethods>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if !matches!(response.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND) {
        return response;
    }
    match path_methods.allowed_methods(&path) {
        Some(methods) if !methods.contains(&method.as_str()) => {
            let mut response = Problem::from_code(ErrorCode::MethodNotAllowed).into_response();
            if let Ok(allow) = HeaderValue::try_from(methods.join(",")) {
                response.headers_mut().insert(ALLOW, allow);
            }
            response
        }
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_their_template() {
        let template = "/api/v1/apps/{app_token}/chats/{chat_number}";
        assert!(matches_template("/api/v1/apps/x/chats/1", template));
        for other in ["/api/v1/apps/x/chats", "/api/v1/apps/x/chats/", "/api/v1/apps/x/chats/1/messages", "/"]
        {
            assert!(!matches_template(other, template), "{other}");
        }
    }
}
