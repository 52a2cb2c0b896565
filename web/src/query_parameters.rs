//! The check of query parameters: refuses those that a route does not take. A mistyped one would otherwise be ignored.

use std::collections::HashMap;

use axum::extract::{MatchedPath, Request};
use http::Method;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The longest unknown name that a problem quotes. An app's token, which is a credential, is longer.
const MAX_QUOTED_LENGTH: usize = 32;

/// A known name is suggested for an unknown one if their Jaro-Winkler similarity, from 0 to 1, is at least this.
const MIN_SIMILARITY: f64 = 0.65;

/// The query parameters of the routes of the APIs, by path, as the OpenAPI document describes them.
#[derive(Default)]
pub(crate) struct QueryParameters(HashMap<String, PathParameters>);

/// The query parameters of the operations of one path.
type PathParameters = Vec<(Method, Vec<String>)>;

impl QueryParameters {
    /// Reads the parameters of all routes under these path prefixes.
    pub(crate) fn from_document(document: &OpenApi, prefixes: &[&str]) -> Self {
        let paths = document.paths.paths.iter();
        let api_paths = paths.filter(|(path, _)| prefixes.iter().any(|prefix| path.starts_with(prefix)));
        Self(api_paths.map(|(path, item)| (path.clone(), path_parameters(item))).collect())
    }

    /// Refuses a request with a query parameter that its route does not take.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Problem> {
        let Some(query) = request.uri().query() else { return Ok(()) };
        let Some(known) = self.known_names(request) else { return Ok(()) };
        let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        match names.find(|name| !known.iter().any(|known_name| known_name == name)) {
            None => Ok(()),
            Some(unknown) => Err(unknown_parameter(&unknown, known)),
        }
    }

    /// Returns the parameters of the request's route, or `None` if no route of the APIs serves the request.
    fn known_names(&self, request: &Request) -> Option<&[String]> {
        let operations = self.0.get(request.extensions().get::<MatchedPath>()?.as_str())?;
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let (_, names) = operations.iter().find(|(documented, _)| documented == method)?;
        Some(names)
    }
}

fn path_parameters(item: &PathItem) -> PathParameters {
    let operations = [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::DELETE, &item.delete),
    ];
    let operations =
        operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)));
    operations.map(|(method, operation)| (method, query_names(operation))).collect()
}

fn query_names(operation: &Operation) -> Vec<String> {
    let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    let in_query = parameters.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
    in_query.map(|parameter| parameter.name.clone()).collect()
}

fn unknown_parameter(name: &str, known: &[String]) -> Problem {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    let is_quoted = (1..=MAX_QUOTED_LENGTH).contains(&name.len()) && name.bytes().all(is_plain);
    let subject =
        if is_quoted { format!("the query parameter `{name}`") } else { "a query parameter".to_owned() };
    let detail = match nearest_name(name, known).filter(|_| is_quoted) {
        Some(nearest) => format!("{subject} is unknown, did you mean `{nearest}`?"),
        None if known.is_empty() => format!("{subject} is unknown: this route takes none"),
        None => format!("{subject} is unknown: this route takes `{}`", known.join("`, `")),
    };
    Problem::new(ErrorCode::MalformedQuery, detail)
}

fn nearest_name<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let similarities =
        known.iter().map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate.as_str()));
    let (similarity, nearest) = similarities.max_by(|(left, _), (right, _)| left.total_cmp(right))?;
    (similarity >= MIN_SIMILARITY).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_suggested_or_all_are_listed() {
        let known = ["limit", "before", "after", "around"].map(str::to_owned);
        for (unknown, detail) in [
            ("befor", "the query parameter `befor` is unknown, did you mean `before`?"),
            ("Limit", "the query parameter `Limit` is unknown, did you mean `limit`?"),
            ("lmt", "the query parameter `lmt` is unknown, did you mean `limit`?"),
            (
                "page",
                "the query parameter `page` is unknown: this route takes `limit`, `before`, `after`, `around`",
            ),
        ] {
            let problem = unknown_parameter(unknown, &known);
            assert_eq!((problem.code(), problem.detail()), (ErrorCode::MalformedQuery, detail));
        }
        let detail = "the query parameter `limit` is unknown: this route takes none";
        assert_eq!(unknown_parameter("limit", &[]).detail(), detail);
    }

    #[test]
    fn a_long_or_unusual_name_is_not_quoted() {
        let known = ["limit".to_owned()];
        for unknown in ["", "limits and more", "<b>", "limit\u{e9}", "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT"] {
            let detail = "a query parameter is unknown: this route takes `limit`";
            assert_eq!(unknown_parameter(unknown, &known).detail(), detail, "{unknown}");
        }
    }
}
