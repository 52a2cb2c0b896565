//! Tests of unknown paths, methods and query parameters, `HEAD`, and request ids.

use http::Method;

use crate::contract::{Contract, NO_APP, assert_problem};
use crate::harness::api::{API, app_path, chat_path, message_path};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_are_not_found() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let paths = [
        "/".to_owned(),
        "/api".to_owned(),
        API.to_owned(),
        format!("{API}/"),
        format!("{API}/nothing"),
        "/api/v2/apps".to_owned(),
        "//".to_owned(),
        "/%ff%fe".to_owned(),
        "/..%2f..%2fetc%2fpasswd".to_owned(),
        format!("/{}", "x".repeat(4_000)),
        format!("{}/nothing", app_path(&token)),
        format!("{}/chats/1/messages/1/nothing", app_path(&token)),
        format!("{}/chats/1/messages/1/history/1", app_path(&token)),
        "/docs/errors/nothing".to_owned(),
        "/docs/errors/../errors".to_owned(),
        "/docs/assets/nothing".to_owned(),
    ];
    for path in paths {
        assert_problem(&contract.get(path).await, 404, "route_not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_parameter_that_a_route_does_not_take_is_refused() {
    let contract = Contract::start().await;
    for (method, template) in contract.document().operations() {
        if !template.starts_with("/api/") && !template.starts_with("/admin/") {
            continue;
        }
        let path = template.replace("{app_token}", NO_APP).replace(['{', '}'], "");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let call = contract.client().request(method, format!("{path}?nonsense=1"));
        let reply = contract.send(call).await;
        assert_problem(&reply, 400, "malformed_query");
        let detail = reply.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.starts_with("the query parameter `nonsense` is unknown"), "{template}: {detail}");
    }
    let mistyped = contract.get(format!("{}/messages?befor=5", chat_path(NO_APP, 1))).await;
    let detail = "the query parameter `befor` is unknown, did you mean `before`?";
    assert_eq!(mistyped.json()["detail"], detail);
    // Probes and scrapers may add parameters to the system routes.
    contract.client().get("/livez?nonsense=1").send().await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_405_lists_the_methods_of_the_path() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let chat = chat_path(&token, 1);
    let paths: [(String, &[&str]); 10] = [
        (format!("{API}/apps"), &["GET", "POST"]),
        (app_path(&token), &["GET", "PUT"]),
        (format!("{}/chats", app_path(&token)), &["GET", "POST"]),
        (chat.clone(), &["GET"]),
        (format!("{chat}/messages"), &["GET", "POST"]),
        (message_path(&token, 1, 1), &["GET", "PUT", "DELETE"]),
        (format!("{}/history", message_path(&token, 1, 1)), &["GET"]),
        (format!("{chat}/messages/search"), &["GET", "POST"]),
        (format!("{}/messages/search", app_path(&token)), &["GET", "POST"]),
        ("/livez".to_owned(), &["GET"]),
    ];
    for (path, allowed) in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            if allowed.contains(&method) {
                continue;
            }
            let name = Method::from_bytes(method.as_bytes()).expect("a method");
            let reply = contract.send(contract.client().request(name, path.clone())).await;
            assert_problem(&reply, 405, "method_not_allowed");
            let allow: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
            for allowed_method in allowed {
                assert!(allow.contains(allowed_method), "{path}: {allowed_method} is missing in {allow:?}");
            }
            assert!(!allow.contains(&method), "{path}: the refused {method} is in {allow:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_answers_like_get_without_the_body() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    for path in [app_path(&token), message_path(&token, 1, 1), "/livez".to_owned()] {
        let get = contract.get_after(&created, path.clone()).await.expect(200);
        let head = contract.client().request(Method::HEAD, path.clone()).after(&created);
        let head = contract.send(head).await.expect(200);
        assert!(head.body.is_empty());
        assert_eq!(head.headers.get("content-type"), get.headers.get("content-type"), "{path}");
        assert_eq!(head.headers.get("etag"), get.headers.get("etag"), "{path}");
    }
    let missing = contract.client().request(Method::HEAD, format!("{}/chats/9", app_path(&token)));
    assert!(contract.send(missing).await.expect(404).body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_has_the_request_id_of_the_client() {
    let contract = Contract::start().await;
    let call = contract.client().get("/nothing").header("x-request-id", "my-id-17");
    let reply = contract.send(call).await.expect(404);
    assert_eq!(reply.header("x-request-id"), "my-id-17");
    assert_eq!(reply.json()["request_id"], "my-id-17");
    let (one, other) = (contract.get("/livez").await, contract.get("/livez").await);
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
}
