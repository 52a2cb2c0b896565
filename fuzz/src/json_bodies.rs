//! JSON bodies of commands and searches. The first byte of a case chooses the route, the rest is the body.

use std::collections::BTreeMap;

use axum::body::Body;
use chat_domain::{AppName, MessageBody};
use form_urlencoded::Serializer;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::search_snippets;
use crate::server::{Answer, app_path, get, send};

/// The error code that a valid command gets, because the log takes no appends.
const CODE_OF_VALID_COMMAND: &str = "event_store_unavailable";

/// A command with a text is accepted only if its body is JSON and the text is valid. A search that is sent as a JSON
/// body finds what the same search in a URL finds.
pub fn check(case: &[u8]) {
    let Some((route, body)) = case.split_first() else { return };
    let routes = [
        (Method::POST, "/api/v1/apps".to_owned()),
        (Method::PUT, app_path("")),
        (Method::POST, app_path("/chats")),
        (Method::POST, app_path("/chats/1/messages")),
        (Method::PUT, app_path("/chats/1/messages/1")),
        (Method::POST, app_path("/chats/1/messages/search")),
        (Method::POST, app_path("/messages/search")),
    ];
    let Some(index) = usize::from(*route).checked_sub(usize::from(b'0')) else { return };
    let Some((method, path)) = routes.get(index) else { return };
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    let answer = send(request.body(Body::from(body.to_vec())).expect("a request"));
    // A parser that ignores texts does not notice bytes that are not UTF-8.
    let is_json = str::from_utf8(body).is_ok_and(|body| serde_json::from_str::<IgnoredAny>(body).is_ok());
    // The values stay raw: only that of the text is checked here.
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| serde_json::from_str::<String>(fields.get(field)?.get()).ok();
    match index {
        0 | 1 => check_command(&answer, is_json, text("name").map(|text| AppName::parse(text).is_ok())),
        2 => {
            let is_accepted = is_json || body.trim_ascii().is_empty();
            assert_eq!(answer.code() == CODE_OF_VALID_COMMAND, is_accepted, "{}", answer.body);
        }
        3 | 4 => check_command(&answer, is_json, text("body").map(|text| MessageBody::parse(text).is_ok())),
        _ => check_search(&answer, is_json, serde_json::from_slice(body).ok().as_ref(), path),
    }
}

fn check_command(answer: &Answer, is_json: bool, has_valid_text: Option<bool>) {
    if answer.code() == CODE_OF_VALID_COMMAND {
        assert_eq!((is_json, has_valid_text), (true, Some(true)), "an invalid command was accepted");
    } else {
        assert!(answer.status.is_client_error(), "{}", answer.body);
        // The code may be `malformed_json` also if `is_json`: half a surrogate pair in a text makes the JSON malformed,
        // which a parser that ignores texts does not notice.
        assert!(is_json || answer.code() == "malformed_json", "{}", answer.body);
        let status = if answer.code() == "malformed_json" { 400 } else { 422 };
        assert_eq!(answer.status, status, "{}", answer.body);
    }
}

fn check_search(answer: &Answer, is_json: bool, body: Option<&Value>, path: &str) {
    if !is_json {
        assert_eq!(answer.code(), "malformed_json");
    }
    if answer.status == 200 {
        for hit in answer.body["messages"].as_array().expect("hits") {
            let (snippet, body) = (hit["snippet"].as_str(), hit["body"].as_str());
            search_snippets::assert_shows_part_of(body.expect("a body"), snippet.expect("a snippet"));
        }
    }
    // A body that has a field twice is refused, but `Value` keeps the field once, so the URL would be valid.
    if matches!(answer.code(), "malformed_json" | "body_invalid") {
        return;
    }
    let Some(url) = body.and_then(|body| url_of_search(body, path)) else { return };
    let by_url = get(&url).expect("a valid URL");
    if answer.status == 200 || by_url.status == 200 {
        assert_eq!((by_url.status, &by_url.body), (answer.status, &answer.body), "{url}");
    }
}

/// Returns the URL of the same search. `None` if the body is not an object or has no `query`, if a field is unknown or
/// has a value of the wrong type, or if the URL is too long.
fn url_of_search(body: &Value, path: &str) -> Option<String> {
    let mut query = Serializer::new(String::new());
    for (field, value) in body.as_object()? {
        let text = match (field.as_str(), value) {
            ("query" | "sort" | "from" | "to" | "cursor", Value::String(text)) => text.clone(),
            ("fuzzy", Value::Bool(fuzzy)) => fuzzy.to_string(),
            ("limit", Value::Number(limit)) if limit.is_i64() => limit.to_string(),
            // Null is the same as absent.
            ("fuzzy" | "sort" | "from" | "to" | "limit" | "cursor", Value::Null) => continue,
            _ => return None,
        };
        query.append_pair(field, &text);
    }
    let url = format!("{path}?{}", query.finish());
    // A `Uri` holds less than 64 KiB.
    (body["query"].is_string() && url.len() < 60_000).then_some(url)
}
