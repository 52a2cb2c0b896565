//! Tests of `…/messages` and `…/messages/{message_number}`.

use serde_json::json;

use crate::contract::{Contract, assert_problem, without_times};
use crate::harness::api::{chat_path, message_path, number};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_numbered_from_one_in_each_chat() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    for expected in 1..=3 {
        let created = contract.message(&token, "Hi").await;
        assert_eq!(
            created.json(),
            json!({ "message": "Message created successfully", "message_number": expected })
        );
        assert_eq!(created.header("location"), message_path(&token, 1, expected));
        let read = contract.get_after(&created, created.header("location")).await.expect(200);
        assert_eq!(
            without_times(read.json()),
            json!({ "message_number": expected, "body": "Hi", "created_at": "T", "updated_at": "T" })
        );
        let chat = contract.get_after(&created, chat_path(&token, 1)).await.expect(200);
        assert_eq!(number(&chat.json(), "message_count"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_accepts_messages_as_soon_as_its_creation_is_answered() {
    let contract = Contract::start().await;
    let token = contract.app().await;
    for chat in 1..=20 {
        let chats = format!("{}/chats", crate::harness::api::app_path(&token));
        contract.post(chats, &json!({})).await.expect(201);
        let messages = format!("{}/messages", chat_path(&token, chat));
        contract.post(messages, &json!({ "body": "first" })).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_edited() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "Hi").await;
    let edited = contract.put(message_path(&token, 1, 1), &json!({ "body": "Hello" })).await.expect(200);
    assert_eq!(edited.json(), json!({ "status": "success", "message": "Message edited successfully" }));

    let read = contract.get_after(&edited, message_path(&token, 1, 1)).await.expect(200).json();
    assert_eq!(read["body"], "Hello");
    assert!(read["updated_at"].as_str() >= read["created_at"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_is_gone_and_its_number_is_not_reused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.messages(&token, &["one", "two", "three fox"]).await;
    let deleted = contract.delete(message_path(&token, 1, 3)).await.expect(204);
    assert!(deleted.body.is_empty());

    assert_problem(&contract.get_after(&deleted, message_path(&token, 1, 3)).await, 410, "message_deleted");
    let edit = json!({ "body": "back" });
    assert_problem(&contract.put(message_path(&token, 1, 3), &edit).await, 410, "message_deleted");
    assert_problem(&contract.delete(message_path(&token, 1, 3)).await, 410, "message_deleted");

    let list = contract.get_after(&deleted, format!("{}/messages", chat_path(&token, 1))).await.expect(200);
    let numbers: Vec<u64> = list.json()["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| number(message, "message_number"))
        .collect();
    assert_eq!(numbers, [1, 2]);
    let found =
        contract.get_after(&deleted, format!("{}/messages/search?query=fox", chat_path(&token, 1))).await;
    assert_eq!(found.expect(200).json()["total"], 0);
    let chat = contract.get_after(&deleted, chat_path(&token, 1)).await.expect(200);
    assert_eq!(number(&chat.json(), "message_count"), 2);

    let next = contract.message(&token, "four").await;
    assert_eq!(number(&next.json(), "message_number"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_does_not_exist_is_not_found() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "the only one").await;
    for message in ["2", "0", "-1", "01", "x", "9223372036854775808"] {
        let path = format!("{}/messages/{message}", chat_path(&token, 1));
        assert_problem(&contract.get(path.clone()).await, 404, "message_not_found");
        assert_problem(&contract.get(format!("{path}/history")).await, 404, "message_not_found");
        assert_problem(&contract.put(path.clone(), &json!({ "body": "x" })).await, 404, "message_not_found");
        assert_problem(&contract.delete(path).await, 404, "message_not_found");
    }
}
