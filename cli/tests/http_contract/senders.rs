//! Tests of senders and data of messages.

use serde_json::{Value, json};

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{chat_path, message_path, number};

fn messages_path(token: &str) -> String {
    format!("{}/messages", chat_path(token, 1))
}

/// JSON of objects inside each other.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_sender_or_invalid_data_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "Hi").await;
    let senders = [
        json!("u-17"),
        json!(["u-17"]),
        json!({}),
        json!({ "id": "" }),
        json!({ "id": 17 }),
        json!({ "id": "x".repeat(129) }),
        json!({ "id": "a\u{7}" }),
        json!({ "id": "a", "name": "x".repeat(256) }),
        json!({ "id": "a", "name": "\0" }),
        json!({ "id": "a", "avatar": "x" }),
    ];
    for sender in senders {
        let reply = contract.post(messages_path(&token), &json!({ "body": "x", "sender": sender })).await;
        assert_problem(&reply, 422, "sender_invalid");
    }
    let too_large = json!({ "a": "x".repeat(4_096) });
    for (data, code) in [
        (json!([]), "data_invalid"),
        (json!("x"), "data_invalid"),
        (nested(17), "data_invalid"),
        (too_large, "data_too_large"),
    ] {
        let body = json!({ "body": "x", "data": data });
        assert_problem(&contract.post(messages_path(&token), &body).await, 422, code);
        assert_problem(&contract.put(message_path(&token, 1, 1), &body).await, 422, code);
    }
    let half_a_pair = r#"{"body":"x","data":{"a":"\ud83e"}}"#;
    let call = contract.client().request(http::Method::POST, messages_path(&token));
    let reply = contract.send(call.header("content-type", "application/json").body(half_a_pair)).await;
    assert_problem(&reply, 422, "data_invalid");

    // The other members are still checked beside a sender and data.
    let reply = contract.post(messages_path(&token), &json!({ "sender": { "id": "a" }, "data": {} })).await;
    assert_problem(&reply, 422, "body_invalid");
    assert_eq!(reply.json()["detail"], "the field `body` is missing");
    let largest = json!({
        "body": "x",
        "sender": { "id": "\u{1f98a}".repeat(128), "name": "\u{1f98a}".repeat(255) },
        "data": nested(16),
    });
    let created = contract.post(messages_path(&token), &largest).await.expect(201);
    assert_eq!(number(&created.json(), "message_number"), 2, "a refused message uses no number");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_needs_the_same_sender_and_data() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let post = async |body: &Value| {
        let call = contract.client().post(messages_path(&token), body);
        contract.send(call.header("idempotency-key", "key")).await
    };
    let first = json!({ "body": "Hi", "sender": { "id": "u-17", "name": "Nadia" }, "data": { "a": 1 } });
    let created = post(&first).await.expect(201);
    let repeated = post(&first).await.expect(201);
    assert_eq!((repeated.header("idempotency-replayed"), &repeated.body), ("true", &created.body));
    for other in [
        json!({ "body": "Hi" }),
        json!({ "body": "Hi", "sender": { "id": "u-17", "name": "Nadia" } }),
        json!({ "body": "Hi", "sender": { "id": "u-17" }, "data": { "a": 1 } }),
        json!({ "body": "Hi", "sender": { "id": "u-18", "name": "Nadia" }, "data": { "a": 1 } }),
        json!({ "body": "Hi", "sender": { "id": "u-17", "name": "Nadia" }, "data": { "a": 2 } }),
    ] {
        assert_problem(&post(&other).await, 422, "idempotency_key_reused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_the_data_alone_changes_the_etag() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.post(messages_path(&token), &json!({ "body": "Hi", "data": { "a": 1 } })).await;
    let path = message_path(&token, 1, 1);
    let before = contract.get_after(&created, path.clone()).await.expect(200).header("etag").to_owned();
    let edited = contract.put(path.clone(), &json!({ "body": "Hi", "data": { "a": 2 } })).await.expect(200);
    let after = contract.get_after(&edited, path.clone()).await.expect(200).header("etag").to_owned();
    assert_ne!(before, after);
    let stale =
        contract.client().put(path, &json!({ "body": "Hi", "data": null })).header("if-match", &before);
    assert_problem(&contract.send(stale).await, 412, "precondition_failed");
}
