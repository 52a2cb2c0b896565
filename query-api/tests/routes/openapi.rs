//! The OpenAPI document of the query routes.

use serde_json::{Value, json};

use crate::fixture::*;

#[tokio::test]
async fn every_operation_describes_its_responses_and_problems() {
    let fixture = Fixture::with_projector();
    let document = fixture.get("/openapi.json").await.body;
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if !path.starts_with("/api/") {
                continue;
            }
            operations.push(format!("{} {path}", method.to_uppercase()));
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200"), "{method} {path} has no response 200");
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let reference = response["$ref"].as_str().unwrap_or_else(|| panic!("{path} {status}"));
                let response = document.pointer(reference.trim_start_matches('#')).unwrap();
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{path} {status}");
            }
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(
                parameters.iter().any(|parameter| parameter["name"] == "Consistency-Token"),
                "{method} {path} does not take a token"
            );
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() < "400") {
                let headers = &response["headers"];
                assert_eq!(
                    headers["Consistency-Token"]["schema"],
                    json!({ "type": "string" }),
                    "{path} {status}"
                );
                assert_eq!(headers["Read-Model-Lag"]["schema"]["type"], "integer", "{path} {status}");
            }
        }
    }
    insta::assert_snapshot!(operations.join("\n"), @r"
    GET /api/v1/apps
    GET /api/v1/apps/{app_token}
    GET /api/v1/apps/{app_token}/chats
    GET /api/v1/apps/{app_token}/chats/{chat_number}
    GET /api/v1/apps/{app_token}/chats/{chat_number}/events
    GET /api/v1/apps/{app_token}/chats/{chat_number}/messages
    GET /api/v1/apps/{app_token}/chats/{chat_number}/messages/search
    POST /api/v1/apps/{app_token}/chats/{chat_number}/messages/search
    GET /api/v1/apps/{app_token}/chats/{chat_number}/messages/{message_number}
    GET /api/v1/apps/{app_token}/chats/{chat_number}/messages/{message_number}/history
    GET /api/v1/apps/{app_token}/events
    GET /api/v1/apps/{app_token}/messages/search
    POST /api/v1/apps/{app_token}/messages/search
    ");
}

#[tokio::test]
async fn every_reference_in_the_document_resolves() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    found.push(target.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let fixture = Fixture::with_projector();
    let document = fixture.get("/openapi.json").await.body;
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty(), "the document has no references");
    for target in found {
        assert!(document.pointer(target.strip_prefix('#').unwrap()).is_some(), "nothing at {target}");
    }
}

#[tokio::test]
async fn a_405_lists_the_allowed_methods_and_an_unknown_route_is_a_404() {
    let fixture = Fixture::with_projector();
    let reply = fixture.post(&path(""), &Value::Null).await;
    assert_eq!(reply.problem(), (405, "method_not_allowed"));
    assert_eq!(reply.header("allow"), "GET,HEAD");
    assert_eq!(fixture.get("/api/v1/nothing").await.problem(), (404, "route_not_found"));
}
