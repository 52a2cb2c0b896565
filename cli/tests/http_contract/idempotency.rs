//! Tests of `Idempotency-Key` on the routes that create apps, chats and messages.

use http::Method;
use serde_json::{Value, json};

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{API, app_path, chat_path, number};
use crate::harness::client::Reply;
use crate::harness::deadline::eventually;

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// Sends a `POST` of JSON with a key.
async fn post(contract: &Contract, path: &str, key: &str, body: &Value) -> Reply {
    contract.send(contract.client().post(path, body).header("idempotency-key", key)).await
}

fn chats_path(token: &str) -> String {
    format!("{}/chats", app_path(token))
}

fn messages_path(token: &str, chat: u64) -> String {
    format!("{}/messages", chat_path(token, chat))
}

/// Asserts that the second response repeats the first one.
#[track_caller]
fn assert_replayed(first: &Reply, repeated: &Reply) {
    assert_eq!((repeated.status, &repeated.body), (first.status, &first.body), "{}", repeated.path);
    assert_eq!(repeated.header("location"), first.header("location"));
    assert_eq!(repeated.header("content-type"), first.header("content-type"));
    assert_eq!(repeated.header("consistency-token"), first.header("consistency-token"));
    assert_eq!(repeated.header("idempotency-replayed"), "true");
    assert!(!first.has("idempotency-replayed"), "the first response is marked as a replay");
    assert_ne!(repeated.header("x-request-id"), first.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_creates_one_entity_for_a_key() {
    let contract = Contract::start().await;
    let apps = format!("{API}/apps");
    let name = json!({ "name": "an app" });
    let app = post(&contract, &apps, KEY, &name).await.expect(201);
    assert_replayed(&app, &post(&contract, &apps, KEY, &name).await);
    let token = app.json()["data"]["app_token"].as_str().expect("a token").to_owned();

    let chat = post(&contract, &chats_path(&token), KEY, &json!({})).await.expect(201);
    assert_replayed(&chat, &post(&contract, &chats_path(&token), KEY, &json!({})).await);
    let without_body =
        |key| contract.client().request(Method::POST, chats_path(&token)).header("idempotency-key", key);
    let chat = contract.send(without_body("no-body")).await.expect(201);
    assert_replayed(&chat, &contract.send(without_body("no-body")).await);

    let body = json!({ "body": "Hi" });
    let message = post(&contract, &messages_path(&token, 1), KEY, &body).await.expect(201);
    for _ in 0..3 {
        assert_replayed(&message, &post(&contract, &messages_path(&token, 1), KEY, &body).await);
    }
    let next = post(&contract, &messages_path(&token, 1), "another", &body).await.expect(201);
    assert_eq!(number(&next.json(), "message_number"), 2);
    let read = contract.get(app_path(&token)).await.expect(200).json();
    assert_eq!(read["chat_count"], 2);
    let all = contract.get(apps).await.expect(200).json();
    assert_eq!(all.as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_applies_to_one_path_only() {
    let contract = Contract::start().await;
    let (token, other) = (contract.app_with_chat().await, contract.app_with_chat().await);
    contract.post(chats_path(&token), &json!({})).await.expect(201);
    for path in [messages_path(&token, 1), messages_path(&token, 2), messages_path(&other, 1)] {
        let sent = post(&contract, &path, KEY, &json!({ "body": path })).await.expect(201);
        assert_eq!(number(&sent.json(), "message_number"), 1, "{path}");
        assert!(!sent.has("idempotency-replayed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_payload_under_the_same_key_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let cases = [
        (format!("{API}/apps"), json!({ "name": "one" }), json!({ "name": "two" })),
        (chats_path(&token), json!({ "color": "red" }), json!({ "color": "blue" })),
        (messages_path(&token, 1), json!({ "body": "one" }), json!({ "body": "two" })),
    ];
    for (path, payload, other) in cases {
        let first = post(&contract, &path, KEY, &payload).await.expect(201);
        let refused = post(&contract, &path, KEY, &other).await;
        assert_problem(&refused, 422, "idempotency_key_reused");
        assert!(!refused.has("idempotency-replayed"));
        assert_replayed(&first, &post(&contract, &path, KEY, &payload).await);
    }
    assert_eq!(contract.get(chat_path(&token, 1)).await.json()["message_count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_with_equal_json_are_the_same_payload() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let send = |path: String, body: &'static str| {
        let call = contract.client().request(Method::POST, path).header("idempotency-key", KEY);
        contract.send(call.header("content-type", "application/json").body(body))
    };
    let first = send(messages_path(&token, 1), r#"{"body":"Gr\u00fc\u00dfe"}"#).await.expect(201);
    assert_replayed(&first, &send(messages_path(&token, 1), "{ \"body\" : \"Grüße\" }\n").await);
    let first = send(chats_path(&token), r#"{"a b":[1,2]}"#).await.expect(201);
    assert_replayed(&first, &send(chats_path(&token), " {\"a b\": [1,\n2]} ").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quoted_key_equals_the_bare_key() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let body = json!({ "body": "Hi" });
    for (index, (bare, quoted)) in
        [(KEY, format!("\"{KEY}\"")), ("a\\b", r#""a\\b""#.to_owned())].iter().enumerate()
    {
        let first = post(&contract, &messages_path(&token, 1), bare, &body).await.expect(201);
        assert_eq!(number(&first.json(), "message_number"), index as u64 + 1);
        assert_replayed(&first, &post(&contract, &messages_path(&token, 1), quoted, &body).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_key_is_refused_before_the_command_is_executed() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let too_long = "k".repeat(256);
    let body = json!({ "body": "Hi", "name": "an app" });
    for path in [format!("{API}/apps"), chats_path(&token), messages_path(&token, 1)] {
        for key in ["", "\"\"", "\"a", "two words", "\"two words\"", "\"a\", \"b\"", too_long.as_str()] {
            let refused = post(&contract, &path, key, &body).await;
            assert_problem(&refused, 422, "idempotency_key_invalid");
        }
        let twice = contract
            .client()
            .post(&*path, &body)
            .header("idempotency-key", "a")
            .header("idempotency-key", "b");
        assert_problem(&contract.send(twice).await, 422, "idempotency_key_invalid");
    }
    assert_eq!(contract.get(app_path(&token)).await.json()["chat_count"], 1);
    assert_eq!(contract.get(chat_path(&token, 1)).await.json()["message_count"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_can_be_repeated_with_the_same_key() {
    let contract = Contract::start().await;
    let token = contract.app().await;
    let body = json!({ "body": "Hi" });
    for _ in 0..2 {
        assert_problem(&post(&contract, &messages_path(&token, 1), KEY, &body).await, 404, "chat_not_found");
    }
    contract.post(chats_path(&token), &json!({})).await.expect(201);
    assert_problem(
        &post(&contract, &messages_path(&token, 1), KEY, &json!({ "body": " " })).await,
        422,
        "body_blank",
    );
    let created = post(&contract, &messages_path(&token, 1), KEY, &body).await.expect(201);
    assert!(!created.has("idempotency-replayed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_and_edits_ignore_the_key() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let message = contract.message(&token, "fox").await;
    // The key is invalid. A route that reads keys refuses it.
    let keyed = |method, path: String, body: Value| {
        let call = contract.client().request(method, path).json(&body).after(&message);
        contract.send(call.header("idempotency-key", "\"no key"))
    };
    let search = format!("{}/search", messages_path(&token, 1));
    for word in ["fox", "dog"] {
        keyed(Method::POST, search.clone(), json!({ "query": word })).await.expect(200);
    }
    let path = format!("{}/1", messages_path(&token, 1));
    for body in ["one", "two"] {
        keyed(Method::PUT, path.clone(), json!({ "body": body })).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_of_a_running_command_is_refused_as_in_flight() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let path = messages_path(&token, 1);
    let body = json!({ "body": "Hi" });
    // Nothing can be appended until the lock is released.
    let Some(locked) = contract.lock_log().await else { return };
    let original = post(&contract, &path, KEY, &body);
    let meanwhile = async {
        // The server executes the request that it receives first: `original` or one of these repetitions. The executed
        // request waits for the lock, and the server refuses every later one.
        eventually("a repetition is refused as in flight", async || {
            let repetition = tokio::time::timeout(
                std::time::Duration::from_millis(100),
                post(&contract, &path, KEY, &body),
            );
            let refused = repetition.await.ok()?;
            assert_problem(&refused, 409, "idempotency_in_flight");
            assert_eq!(refused.header("retry-after"), "1");
            Some(())
        })
        .await;
        assert_problem(
            &post(&contract, &path, KEY, &json!({ "body": "other" })).await,
            422,
            "idempotency_key_reused",
        );
        locked.release().await;
    };
    let (original, ()) = tokio::join!(original, meanwhile);
    if original.status != 409 {
        original.expect(201);
    }
    let answered = eventually("the command is answered", async || {
        let reply = post(&contract, &path, KEY, &body).await;
        (reply.status == 201).then_some(reply)
    })
    .await;
    assert_eq!(number(&answered.json(), "message_number"), 1);
    assert_eq!(answered.header("idempotency-replayed"), "true");
    assert_eq!(contract.get(chat_path(&token, 1)).await.json()["message_count"], 1);
}
