//! Tests of `/livez`, `/readyz`, `/metrics`, `/openapi.json` and `/docs`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::contract::Contract;
use crate::harness::api::API;
use crate::harness::deadline::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_reports_liveness_and_readiness() {
    let contract = Contract::start().await;
    for path in ["/livez", "/up"] {
        assert_eq!(contract.client().get(path).send().await.expect(200).json()["status"], "ok", "{path}");
    }
    for path in ["/readyz", "/health"] {
        let ready = contract.client().get(path).send_until(200).await.json();
        assert_eq!(ready["status"], "ok", "{path}");
        let parts = ready["parts"].as_array().expect("parts");
        let projections: BTreeSet<&str> = parts
            .iter()
            .filter(|part| {
                let projection = &part["projection"];
                projection["lag_events"].is_u64() == contract.has_contiguous_positions()
                    && projection["lag_ms"].is_u64()
                    && projection["parked"] == 0
            })
            .filter_map(|part| part["name"].as_str())
            .collect();
        assert_eq!(projections.len(), 2, "{ready}");
    }
    // `Contract::get` also checks the responses against the document.
    contract.get("/livez").await.expect(200);
    eventually("ready", async || (contract.get("/readyz").await.status == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_prometheus_text() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    contract.get_after(&created, format!("{API}/apps/{token}")).await.expect(200);
    let metrics = contract.get("/metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let text = contract.metrics_of_all().await;
    assert!(text.contains("chat_http_requests_total{"), "{text}");
    assert!(text.contains("chat_projection_position"), "{text}");
    assert!(!text.contains(&token), "a metric contains an app's token");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_exactly_the_expected_api_routes() {
    let contract = Contract::start().await;
    let document = contract.document();
    assert!(document.json()["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let app = "/api/v1/apps/{app_token}";
    let chat = "/api/v1/apps/{app_token}/chats/{chat_number}";
    let message = "/api/v1/apps/{app_token}/chats/{chat_number}/messages/{message_number}";
    let expected = [
        ("POST", "/api/v1/apps".to_owned()),
        ("GET", "/api/v1/apps".to_owned()),
        ("GET", app.to_owned()),
        ("PUT", app.to_owned()),
        ("GET", format!("{app}/chats")),
        ("POST", format!("{app}/chats")),
        ("GET", chat.to_owned()),
        ("GET", format!("{chat}/messages")),
        ("POST", format!("{chat}/messages")),
        ("GET", message.to_owned()),
        ("PUT", message.to_owned()),
        ("DELETE", message.to_owned()),
        ("GET", format!("{message}/history")),
        ("GET", format!("{chat}/events")),
        ("GET", format!("{app}/events")),
        ("GET", format!("{chat}/messages/search")),
        ("POST", format!("{chat}/messages/search")),
        ("GET", format!("{app}/messages/search")),
        ("POST", format!("{app}/messages/search")),
    ];
    let expected: BTreeSet<_> =
        expected.into_iter().map(|(method, path)| (method.to_owned(), path)).collect();
    let described: BTreeSet<_> =
        document.operations().into_iter().filter(|(_, path)| path.starts_with("/api/")).collect();
    assert_eq!(described, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_reference_loads_nothing_from_other_servers() {
    let contract = Contract::start().await;
    let page = contract.client().get("/docs").send().await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let html = String::from_utf8_lossy(&page.body).into_owned();
    let loaded: Vec<&str> = html
        .split(['<', '>'])
        .filter(|tag| ["script ", "link ", "img ", "iframe "].iter().any(|name| tag.starts_with(name)))
        .flat_map(|tag| tag.split_whitespace())
        .filter_map(|attribute| attribute.strip_prefix("src=").or_else(|| attribute.strip_prefix("href=")))
        // The slash of a self-closing tag may follow the value.
        .map(|value| value.trim_end_matches('/').trim_matches(['"', '\'']))
        .collect();
    for target in loaded {
        assert!(
            !target.contains("://") && !target.starts_with("//"),
            "{target} is loaded from another server"
        );
        if target.trim_start_matches('/').starts_with("docs/") {
            contract.client().get(format!("/{}", target.trim_start_matches('/'))).send().await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_every_status_of_health() {
    let contract = Contract::start().await;
    let document = contract.document().json();
    // The schema of this `status` was once replaced by the one of operator answers, because the two schemas had the same
    // name.
    let health =
        &document["paths"]["/readyz"]["get"]["responses"]["503"]["content"]["application/json"]["schema"];
    for status in ["ok", "degraded", "down"] {
        let schema = json!({ "allOf": [health], "components": document["components"] });
        let body = json!({ "status": status, "parts": [{ "name": "read_model", "status": status }] });
        assert!(jsonschema::is_valid(&schema, &body), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_redirects_browsers_to_the_reference() {
    let contract = Contract::start().await;
    let page = contract.client().get("/").header("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
    let page = page.send().await.expect(307);
    assert_eq!(page.header("location"), "/docs");
    let other = contract.client().get("/").header("accept", "*/*").send().await.expect(404);
    assert!(other.json()["detail"].as_str().is_some_and(|detail| detail.contains("/docs")), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_code_has_a_page() {
    let contract = Contract::start().await;
    let codes = contract.document().json()["components"]["schemas"]["ErrorCode"]["enum"]
        .as_array()
        .expect("every code");
    for code in [
        "malformed_json",
        "malformed_query",
        "malformed_header",
        "body_invalid",
        "host_invalid",
        "origin_refused",
        "admin_token_missing",
        "admin_token_wrong",
        "app_not_found",
        "chat_not_found",
        "message_not_found",
        "route_not_found",
        "method_not_allowed",
        "payload_too_large",
        "unsupported_media_type",
        "idempotency_in_flight",
        "precondition_failed",
        "name_blank",
        "name_too_long",
        "body_blank",
        "body_too_long",
        "text_invalid",
        "sender_invalid",
        "data_invalid",
        "data_too_large",
        "query_blank",
        "idempotency_key_invalid",
        "idempotency_key_reused",
        "message_deleted",
        "cursor_unknown",
        "rate_limited",
        "event_store_unavailable",
        "stream_truncated",
        "counters_unavailable",
        "read_model_unavailable",
        "read_model_behind",
        "overloaded",
        "outcome_unknown",
        "internal",
    ] {
        assert!(codes.iter().any(|described| described == code), "{code} is not described");
    }
    let index = contract.client().get("/docs/errors").send().await.expect(200);
    let index = String::from_utf8_lossy(&index.body).into_owned();
    for code in codes {
        let code = code.as_str().expect("a code");
        assert!(index.contains(&format!("<code>{code}</code>")), "{code} is not in the index");
        let page = contract.client().get(format!("/docs/errors/{code}")).send().await.expect(200);
        assert!(String::from_utf8_lossy(&page.body).contains(code), "{code}");
    }
}
