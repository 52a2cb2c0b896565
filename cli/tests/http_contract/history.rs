//! Tests of `…/messages/{message_number}/history`.

use serde_json::json;

use crate::contract::{Contract, without_times};
use crate::harness::api::message_path;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_has_its_versions_oldest_first() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.messages(&token, &["another", "Hi"]).await;
    let message = message_path(&token, 1, 2);
    contract.put(message.clone(), &json!({ "body": "Hello" })).await.expect(200);
    contract.put(message_path(&token, 1, 1), &json!({ "body": "not this one" })).await.expect(200);
    let edited = contract.put(message.clone(), &json!({ "body": "Hello!" })).await.expect(200);

    let history = contract.get_after(&edited, format!("{message}/history")).await.expect(200);
    let versions = json!([
        { "body": "Hi", "at": "T", "event": "MessageCreated" },
        { "body": "Hello", "at": "T", "event": "MessageEdited" },
        { "body": "Hello!", "at": "T", "event": "MessageEdited" },
    ]);
    assert_eq!(without_times(history.json()), json!({ "message_number": 2, "versions": versions }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_the_last_version_and_has_no_body() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "Hi").await;
    let message = message_path(&token, 1, 1);
    let deleted = contract.delete(message.clone()).await.expect(204);

    let history = contract.get_after(&deleted, format!("{message}/history")).await.expect(200);
    let versions = json!([
        { "body": "Hi", "at": "T", "event": "MessageCreated" },
        { "at": "T", "event": "MessageDeleted" },
    ]);
    assert_eq!(without_times(history.json()), json!({ "message_number": 1, "versions": versions }));
}
