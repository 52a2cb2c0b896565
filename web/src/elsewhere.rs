//! Routes that other processes of the same API serve.
//!
//! A gateway splits requests by method and path, so a method that a path does not take may arrive where the path is not
//! known, or known with other methods. The answer is to be that of the whole API.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use utoipa::openapi::{OpenApi, PathItem};

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// Which methods the paths of an API take, wherever they are served.
#[derive(Clone)]
pub(crate) struct WholeApi(Arc<[(String, Vec<&'static str>)]>);

impl WholeApi {
    pub(crate) fn of(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter();
        let mut paths: Vec<_> = paths.map(|(template, item)| (template.clone(), methods(item))).collect();
        // Of two templates of one path, the one that spells out more of it counts.
        paths.sort_by_key(|(template, _)| template.matches('{').count());
        Self(paths.into())
    }

    fn methods(&self, path: &str) -> Option<&[&'static str]> {
        let found = self.0.iter().find(|(template, _)| is_of(path, template))?;
        Some(&found.1)
    }
}

fn methods(item: &PathItem) -> Vec<&'static str> {
    let operations = [
        ("GET", &item.get),
        ("HEAD", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("DELETE", &item.delete),
    ];
    operations.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| method).collect()
}

/// Whether a path is one of those that a template such as `/apps/{app_token}` stands for.
fn is_of(path: &str, template: &str) -> bool {
    let mut segments = path.split('/');
    let fits = template.split('/').all(|of_template| {
        segments.next().is_some_and(|segment| {
            if of_template.starts_with('{') { !segment.is_empty() } else { segment == of_template }
        })
    });
    fits && segments.next().is_none()
}

/// The middleware: says of a method that no process takes what the whole API says of it.
pub(crate) async fn answer_for_the_whole(
    State(api): State<WholeApi>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if !matches!(response.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND) {
        return response;
    }
    match api.methods(&path) {
        Some(methods) if !methods.contains(&method.as_str()) => {
            let mut response = Problem::of(ErrorCode::MethodNotAllowed).into_response();
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
    fn a_path_is_found_by_its_template() {
        let template = "/api/v1/apps/{app_token}/chats/{chat_number}";
        assert!(is_of("/api/v1/apps/x/chats/1", template));
        for other in ["/api/v1/apps/x/chats", "/api/v1/apps/x/chats/", "/api/v1/apps/x/chats/1/messages", "/"]
        {
            assert!(!is_of(other, template), "{other}");
        }
    }
}
