//! Tests of senders and data of messages.

use serde_json::{Value, json};

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{app_path, chat_path, message_path, number};
use crate::harness::client::Reply;

fn messages_path(token: &str) -> String {
    format!("{}/messages", chat_path(token, 1))
}

/// Returns this number of JSON objects inside each other. The innermost one is empty.
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
    // The field `body` is required even with a valid sender and valid data.
    let reply = contract.post(messages_path(&token), &json!({ "sender": { "id": "a" }, "data": {} })).await;
    assert_problem(&reply, 422, "body_invalid");
    assert_eq!(reply.json()["detail"], "the field `body` is missing");
    let largest = json!({
        "body": "x",
        "sender": { "id": "\u{1f98a}".repeat(128), "name": "\u{1f98a}".repeat(255) },
        "data": nested(16),
    });
    let created = contract.post(messages_path(&token), &largest).await.expect(201);
    assert_eq!(number(&created.json(), "message_number"), 2, "a refused message used a number");
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

/// Creates messages 1 to `count` in chat 1: 1, 4, 7 … are by the sender `u-1`, 2, 5, 8 … by `u-2`, and 3, 6, 9 … have no
/// sender. Returns the response to the last one.
async fn messages_of_senders(contract: &Contract, token: &str, count: u64) -> Reply {
    let mut last = None;
    for message in 1..=count {
        let mut body = json!({ "body": format!("fox {message}"), "data": { "number": message } });
        if message % 3 != 0 {
            body["sender"] = json!({ "id": format!("u-{}", message % 3), "name": "Nadia" });
        }
        last = Some(contract.post(messages_path(token), &body).await.expect(201));
    }
    last.expect("a message")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_and_data_come_back_in_reads_and_searches() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let data = r#"{"b":1.50,"a":[12345678901234567890,null],"\u00e9":"\u0000 x"}"#;
    let body =
        format!(r#"{{ "body": "a fox", "sender": {{ "id": "u-17", "name": "Nadia" }}, "data": {data} }}"#);
    let call = contract.client().request(http::Method::POST, messages_path(&token));
    let created = contract.send(call.header("content-type", "application/json").body(body)).await.expect(201);
    assert_eq!(created.json(), json!({ "message": "Message created successfully", "message_number": 1 }));
    contract.message(&token, "a plain fox").await;

    let sent = format!(r#""sender":{{"id":"u-17","name":"Nadia"}},"data":{data}"#);
    let search = json!({ "query": "fox" });
    for reply in [
        contract.get(message_path(&token, 1, 1)).await,
        contract.get(messages_path(&token)).await,
        contract.get(format!("{}/history", message_path(&token, 1, 1))).await,
        contract.get(format!("{}/search?query=fox", messages_path(&token))).await,
        contract.post(format!("{}/search", messages_path(&token)), &search).await,
        contract.post(format!("{}/messages/search", app_path(&token)), &search).await,
    ] {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(text.matches(&sent).count(), 1, "{}: {text}", reply.path);
        assert_eq!(text.matches("\"sender\"").count(), 1, "{}: {text}", reply.path);
    }
    let plain = contract.get(message_path(&token, 1, 2)).await.expect(200).json();
    let members: Vec<_> = plain.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["body", "created_at", "message_number", "updated_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_keeps_replaces_or_removes_the_data() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let sender = json!({ "id": "u-17" });
    let first = json!({ "body": "fox 0", "sender": sender, "data": { "a": 1 } });
    contract.post(messages_path(&token), &first).await.expect(201);
    let path = message_path(&token, 1, 1);
    let edits = [
        (json!({ "body": "fox 1" }), Some(json!({ "a": 1 }))),
        (json!({ "body": "fox 2", "data": { "b": 2 } }), Some(json!({ "b": 2 }))),
        // An edit ignores `sender`.
        (json!({ "body": "fox 3", "sender": 5 }), Some(json!({ "b": 2 }))),
        (json!({ "body": "fox 4", "data": null }), None),
        (json!({ "body": "fox 5" }), None),
    ];
    for (edit, data) in &edits {
        let edited = contract.put(path.clone(), edit).await.expect(200);
        let read = contract.get_after(&edited, path.clone()).await.expect(200).json();
        assert_eq!((read.get("data"), &read["sender"]), (data.as_ref(), &sender));
        let found = contract.get(format!("{}/search?query=fox", messages_path(&token))).await.expect(200);
        let hit = &found.json()["messages"][0];
        assert_eq!((hit.get("data"), &hit["sender"], &hit["body"]), (data.as_ref(), &sender, &edit["body"]));
    }
    contract.delete(path.clone()).await.expect(204);

    let expected: Vec<_> = [Some(json!({ "a": 1 }))]
        .into_iter()
        .chain(edits.into_iter().map(|(_, data)| data))
        .map(|data| (data, Some(sender.clone())))
        // The deletion is the last version, and has neither data nor sender.
        .chain([(None, None)])
        .collect();
    for limit in [1, 2, 100] {
        let mut versions = Vec::new();
        let mut next = String::new();
        loop {
            let page = contract.get(format!("{path}/history?limit={limit}{next}")).await.expect(200);
            for version in page.json()["versions"].as_array().expect("versions") {
                versions.push((version.get("data").cloned(), version.get("sender").cloned()));
            }
            if !page.has("next-cursor") {
                break;
            }
            next = format!("&cursor={}", page.header("next-cursor"));
        }
        assert_eq!(versions, expected, "pages of {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_searches_are_restricted_to_one_sender() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let last = messages_of_senders(&contract, &token, 20).await;
    let numbers = |reply: &Reply| -> Vec<u64> {
        let messages = reply.json()["messages"].as_array().expect("messages").clone();
        messages.iter().map(|message| number(message, "message_number")).collect()
    };
    let newest = contract.get_after(&last, format!("{}?sender=u-2&limit=3", messages_path(&token))).await;
    assert_eq!(numbers(&newest), [14, 17, 20]);
    assert!(newest.header("link").contains("sender=u-2"), "the link lacks the filter");

    // Follows the pages from the oldest message on, by cursor.
    let (mut listed, mut page_start) = (Vec::new(), "after=0".to_owned());
    loop {
        let path = format!("{}?sender=u-1&limit=2&{page_start}", messages_path(&token));
        let page = contract.get(path).await.expect(200);
        listed.extend(numbers(&page));
        if !page.has("next-cursor") {
            break;
        }
        page_start = format!("cursor={}", page.header("next-cursor"));
    }
    assert_eq!(listed, [1, 4, 7, 10, 13, 16, 19]);
    for unknown in ["u-3", "U-1", "u"] {
        let page = contract.get(format!("{}?sender={unknown}", messages_path(&token))).await.expect(200);
        assert!(numbers(&page).is_empty() && !page.has("link"), "{unknown}");
    }

    let search = json!({ "query": "fox", "sender": "u-2", "sort": "newest", "limit": 4 });
    for path in [messages_path(&token), format!("{}/messages", app_path(&token))] {
        let found = contract.post(format!("{path}/search"), &search).await.expect(200);
        assert_eq!((numbers(&found), &found.json()["total"]), (vec![20, 17, 14, 11], &json!(7)));
        let rest = format!("{path}/search?query=fox&sender=u-2&sort=newest&limit=4&cursor=");
        let rest = contract.get(rest + found.header("next-cursor")).await.expect(200);
        assert_eq!(numbers(&rest), [8, 5, 2]);
    }

    for wrong in ["", &"x".repeat(129), "%00"] {
        let page = format!("{}?sender={wrong}", messages_path(&token));
        let search_page = format!("{}/search?query=x&sender={wrong}", messages_path(&token));
        for path in [page, search_page] {
            let reply = contract.get(path).await;
            assert_problem(&reply, 400, "malformed_query");
        }
    }
    let wrong = json!({ "query": "fox", "sender": "" });
    let reply = contract.post(format!("{}/search", messages_path(&token)), &wrong).await;
    assert_problem(&reply, 422, "body_invalid");
}
