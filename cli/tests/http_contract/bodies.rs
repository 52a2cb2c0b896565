//! Tests of invalid request bodies.

use http::Method;
use serde_json::json;

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{API, app_path, chat_path, message_path};

/// Returns every command route that needs a body, with the required field of the body.
async fn routes_with_body(contract: &Contract) -> Vec<(Method, String, &'static str)> {
    let token = contract.app_with_chat().await;
    contract.message(&token, "Hi").await;
    vec![
        (Method::POST, format!("{API}/apps"), "name"),
        (Method::PUT, app_path(&token), "name"),
        (Method::POST, format!("{}/messages", chat_path(&token, 1)), "body"),
        (Method::PUT, message_path(&token, 1, 1), "body"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_json_is_refused() {
    let contract = Contract::start().await;
    for (method, path, field) in routes_with_body(&contract).await {
        let bodies = [
            String::new(),
            " ".to_owned(),
            "{".to_owned(),
            "nonsense".to_owned(),
            format!("{{\"{field}\":17"),
            format!("{{\"{field}\":\"x\"}} trailing"),
            format!("{{\"{field}\":\"x\",}}"),
            format!("{{'{field}':'x'}}"),
            // A lone surrogate is not a character.
            format!("{{\"{field}\":\"\\ud800\"}}"),
            format!("{{\"{field}\":\"\\udc00\\ud800\"}}"),
            format!("{{\"{field}\":\"\\u12\"}}"),
            // A control character must be escaped (RFC 8259, 7).
            format!("{{\"{field}\":\"a\nb\"}}"),
            "[".repeat(10_000),
        ];
        for body in bodies {
            let call = contract.client().request(method.clone(), path.clone());
            let reply = contract.send(call.header("content-type", "application/json").body(body)).await;
            assert_problem(&reply, 400, "malformed_json");
            let detail = reply.json()["detail"].as_str().expect("a detail").to_owned();
            assert!(!detail.contains("column 0"), "the column is counted from 0: {detail}");
        }
        let call = contract.client().request(method.clone(), path.clone());
        let not_utf_8 = [b"{\"".as_slice(), field.as_bytes(), b"\":\"\xff\xfe\"}"].concat();
        let reply = contract.send(call.header("content-type", "application/json").body(not_utf_8)).await;
        assert_problem(&reply, 400, "malformed_json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_a_wrong_shape_is_refused_with_the_reason() {
    let contract = Contract::start().await;
    for (method, path, field) in routes_with_body(&contract).await {
        let bodies = [
            ("{}".to_owned(), format!("the field `{field}` is missing")),
            ("null".to_owned(), "the body must be a JSON object".to_owned()),
            ("[]".to_owned(), "the body must be a JSON object".to_owned()),
            (format!("[\"{field}\"]"), "the body must be a JSON object".to_owned()),
            (format!("{{\"{field}\":null}}"), format!("`{field}` must be a string")),
            (format!("{{\"{field}\":17}}"), format!("`{field}` must be a string")),
            (format!("{{\"{field}\":[\"x\"]}}"), format!("`{field}` must be a string")),
            (
                format!("{{\"{field}\":\"x\",\"{field}\":\"y\"}}"),
                format!("the field `{field}` is given more than once"),
            ),
        ];
        for (body, detail) in bodies {
            let call = contract.client().request(method.clone(), path.clone());
            let reply = contract.send(call.header("content-type", "application/json").body(body)).await;
            assert_problem(&reply, 422, "body_invalid");
            assert_eq!(reply.json()["detail"], detail, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_content_types_are_accepted() {
    let contract = Contract::start().await;
    for (method, path, field) in routes_with_body(&contract).await {
        let body = json!({ field: "x" }).to_string();
        let call = || contract.client().request(method.clone(), path.clone()).body(body.clone());
        for foreign in
            ["text/plain", "application/x-www-form-urlencoded", "text/json", "application/xml", "json"]
        {
            let reply = contract.send(call().header("content-type", foreign)).await;
            assert_problem(&reply, 415, "unsupported_media_type");
        }
        for accepted in
            ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/x+json"]
        {
            let reply = contract.send(call().header("content-type", accepted)).await;
            assert!(reply.status.is_success(), "{accepted}: {}", reply.status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_members_are_ignored() {
    let contract = Contract::start().await;
    for (method, path, field) in routes_with_body(&contract).await {
        let call = contract.client().request(method, path).json(&json!({ field: "x", "other": [1] }));
        assert!(contract.send(call).await.status.is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_nul_and_too_long_texts_are_refused() {
    let contract = Contract::start().await;
    for (method, path, field) in routes_with_body(&contract).await {
        let send = async |text: String| {
            let call = contract.client().request(method.clone(), path.clone());
            contract.send(call.json(&json!({ field: text }))).await
        };
        for blank in ["", " ", "\t\r\n", "\u{a0}\u{3000}\u{2003}"] {
            assert_problem(&send(blank.to_owned()).await, 422, &format!("{field}_blank"));
        }
        for nul in ["\0", "a\0b"] {
            assert_problem(&send(nul.to_owned()).await, 422, "text_invalid");
        }
        let (longest, too_long) = match field {
            "name" => ("\u{1f98a}".repeat(255), "x".repeat(256)),
            _ => ("\u{e9}".repeat(32_768), "x".repeat(65_537)),
        };
        assert!(send(longest).await.status.is_success());
        assert_problem(&send(too_long).await, 422, &format!("{field}_too_long"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_any_message_is_refused() {
    let contract = Contract::start().await;
    for (method, path, field) in routes_with_body(&contract).await {
        let body = json!({ field: "x".repeat(2_000_000) });
        let call = contract.client().without_keep_alive();
        let reply = contract.send(call.request(method, path).json(&body)).await;
        assert_problem(&reply, 413, "payload_too_large");
    }
}
