//! Checks responses against an OpenAPI 3.1 document.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::harness::client::Reply;

/// Headers that the document must describe for each 2xx or 304 response that has them.
const HEADERS_TO_DESCRIBE: [&str; 8] = [
    "location",
    "etag",
    "link",
    "next-cursor",
    "prev-cursor",
    "consistency-token",
    "read-model-lag",
    "idempotency-replayed",
];

/// An OpenAPI document.
pub struct Document {
    document: Value,
}

impl Document {
    /// Wraps a document.
    pub fn new(document: Value) -> Self {
        Self { document }
    }

    /// Returns the document as JSON.
    pub fn json(&self) -> &Value {
        &self.document
    }

    /// Returns every operation as its method and path template.
    pub fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.document["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(template, item)| {
            let methods = item.as_object().expect("a path item").keys();
            methods
                .filter(|method| is_method(method))
                .map(move |method| (method.to_uppercase(), template.clone()))
        });
        operations.collect()
    }

    /// Asserts that the document describes a response. If the document does not have the path, the path must be outside
    /// `/api/`, or the response must be a 404. If the document has the path without the method, the response must be a
    /// 404 or 405.
    #[track_caller]
    pub fn check(&self, reply: &Reply) {
        // A path under `/api/` that is not described must not be served.
        let Some((template, item)) = self.path_item(&reply.path) else {
            assert!(
                reply.status == 404 || !reply.path.starts_with("/api/"),
                "{} is not described",
                reply.path
            );
            return;
        };
        let method = if reply.method == Method::HEAD { Method::GET } else { reply.method.clone() };
        let Some(operation) = item.get(method.as_str().to_lowercase()) else {
            let label = format!("{} {template}", reply.method);
            let is_expected = matches!(reply.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND);
            assert!(is_expected, "{label} answered {} and is not described", reply.status);
            return;
        };
        let label = format!("{} {template} {}", reply.method, reply.status.as_u16());
        let responses = &operation["responses"];
        let response = responses
            .get(reply.status.as_str())
            .or_else(|| responses.get("default"))
            .unwrap_or_else(|| panic!("{label} is not described; its body: {:?}", reply.body));
        let response = self.resolve(response);
        self.check_headers(reply, response, &label);
        if reply.method != Method::HEAD {
            self.check_body(reply, response, &label);
        }
    }

    fn check_headers(&self, reply: &Reply, response: &Value, label: &str) {
        let no_headers = Map::new();
        let described = response["headers"].as_object().unwrap_or(&no_headers);
        for (name, header) in described {
            let header = self.resolve(header);
            let Some(value) = reply.headers.get(name.to_lowercase()) else {
                assert_ne!(header["required"], true, "{label}: {name} is missing");
                continue;
            };
            let text = value.to_str().expect("a header of ASCII");
            let number = text.parse::<u64>().map(Value::from);
            let value = match self.resolve(&header["schema"])["type"].as_str() {
                Some("integer" | "number") => number.unwrap_or_else(|_| panic!("{label}: {name} is {text}")),
                _ => json!(text),
            };
            self.check_schema(&header["schema"], &value, &format!("{label}, header {name}"));
        }
        if reply.status.is_success() || reply.status == StatusCode::NOT_MODIFIED {
            for name in HEADERS_TO_DESCRIBE.into_iter().filter(|name| reply.has(name)) {
                let is_described = described.keys().any(|described| described.eq_ignore_ascii_case(name));
                assert!(is_described, "{label}: the header {name} is not described");
            }
        }
    }

    fn check_body(&self, reply: &Reply, response: &Value, label: &str) {
        let Some(content) = response["content"].as_object().filter(|content| !content.is_empty()) else {
            assert!(reply.body.is_empty(), "{label}: the body is not described: {:?}", reply.body);
            return;
        };
        let content_type = reply.header("content-type");
        let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (_, media_type) = content
            .iter()
            .find(|(described, _)| essence(described) == essence(content_type))
            .unwrap_or_else(|| panic!("{label}: {content_type} is not described"));
        let is_json = essence(content_type).ends_with("json");
        let body = if is_json { reply.json() } else { json!(String::from_utf8_lossy(&reply.body)) };
        if let Some(schema) = media_type.get("schema") {
            self.check_schema(schema, &body, label);
        }
    }

    fn check_schema(&self, schema: &Value, value: &Value, label: &str) {
        let root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.document["components"],
        });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&root)
            .unwrap_or_else(|error| panic!("{label}: the schema is invalid: {error}"));
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{error} at {:?}", error.instance_path().to_string()))
            .collect();
        assert!(errors.is_empty(), "{label}: {errors:#?}\nin {value}");
    }

    /// Returns the path item of a path, and its template. If several templates match, the one with the fewest
    /// parameters wins.
    fn path_item(&self, path: &str) -> Option<(&str, &Value)> {
        let path = path.split('?').next().unwrap_or_default();
        let paths = self.document["paths"].as_object().expect("paths");
        let mut matching: Vec<_> =
            paths.iter().filter(|(template, _)| template_matches(template, path)).collect();
        matching.sort_by_key(|(template, _)| template.matches('{').count());
        matching.first().map(|(template, item)| (template.as_str(), *item))
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let pointer =
            reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} points outside the document"));
        self.document.pointer(pointer).unwrap_or_else(|| panic!("{reference} does not resolve"))
    }
}

fn is_method(name: &str) -> bool {
    ["get", "put", "post", "delete", "options", "head", "patch", "trace"].contains(&name)
}

fn template_matches(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(expected), Some(found)) => {
                let parameter = expected.starts_with('{') && expected.ends_with('}');
                if !(expected == found || (parameter && !found.is_empty())) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}
