//! Tests of `Consistency-Token`, `Prefer: wait` and `Read-Model-Lag`.

use serde_json::json;

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{
    API, app_path, chat_path, create_app, create_chat, create_message, message_path, number,
};
use crate::harness::deadline::eventually;
use crate::harness::deployment::Deployment;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_with_a_commands_token_sees_the_command() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    for expected in 1..=50 {
        let created = contract.message(&token, &format!("needle{expected}")).await;
        let read = contract.get_after(&created, message_path(&token, 1, expected)).await.expect(200);
        assert_eq!(read.json()["body"], format!("needle{expected}"));
        let search = format!("{}/messages/search?query=needle{expected}", app_path(&token));
        let found = contract.get_after(&created, search).await.expect(200);
        assert_eq!(number(&found.json(), "total"), 1, "needle{expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_accept_the_token_of_every_command() {
    let contract = Contract::start().await;
    let app = contract.post(format!("{API}/apps"), &json!({ "name": "x" })).await.expect(201);
    let token = app.json()["data"]["app_token"].as_str().expect("a token").to_owned();
    let chat = contract.post(format!("{}/chats", app_path(&token)), &json!({})).await.expect(201);
    let message = contract.message(&token, "x").await;
    let rename = contract.put(app_path(&token), &json!({ "name": "y" })).await.expect(200);
    let edit = contract.put(message_path(&token, 1, 1), &json!({ "body": "y" })).await.expect(200);
    let delete = contract.delete(message_path(&token, 1, 1)).await.expect(204);
    let refused = contract.delete(message_path(&token, 1, 1)).await.expect(410);
    for command in [app, chat, message, rename, edit, delete, refused] {
        contract.get_after(&command, app_path(&token)).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_report_their_position() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "fox").await;
    for path in [
        format!("{API}/apps"),
        app_path(&token),
        format!("{}/chats", app_path(&token)),
        chat_path(&token, 1),
        format!("{}/messages", chat_path(&token, 1)),
        message_path(&token, 1, 1),
        format!("{}/history", message_path(&token, 1, 1)),
        format!("{}/messages/search?query=fox", chat_path(&token, 1)),
        format!("{}/messages/search?query=fox", app_path(&token)),
    ] {
        // The lag is left out if the log does not answer in time, as on a busy machine.
        let answer = eventually("a response with its lag", async || {
            let answer = contract.get_after(&created, path.clone()).await.expect(200);
            answer.has("read-model-lag").then_some(answer)
        })
        .await;
        assert!(answer.header("read-model-lag").parse::<u64>().is_ok(), "{path}");
        contract.get_after(&answer, path).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_log_never_issued_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "fox").await;
    // Each log has its own tag, so the same position of another log has another token.
    let other = Deployment::serve().await;
    let other_app = create_app(other.client(), "an app").await;
    create_chat(other.client(), &other_app).await;
    let other_created = create_message(other.client(), &other_app, 1, "fox").await;
    let issued = created.header("consistency-token");
    let (tag, _) = issued.split_once('.').expect("a tag and a position");
    let beyond_the_head = format!("{tag}.zzzzzzzzzz");
    let without_tag = "v1-zzzzzzzzzz";
    for unknown in [other_created.header("consistency-token"), &beyond_the_head, without_tag] {
        assert_ne!(unknown, issued);
        for path in [
            format!("{API}/apps"),
            app_path(&token),
            message_path(&token, 1, 1),
            format!("{}/history", message_path(&token, 1, 1)),
            format!("{}/messages/search?query=fox", app_path(&token)),
        ] {
            let get = contract.client().get(path).header("consistency-token", unknown);
            let refused = contract.send(get.header("prefer", "wait=10")).await;
            assert_problem(&refused, 400, "consistency_token_unknown");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_token_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app().await;
    for wrong in ["", "x", "17", "v1-", "v1-UPPER", "v1-99999999999999999999999"] {
        let get = contract.client().get(app_path(&token)).header("consistency-token", wrong);
        assert_problem(&contract.send(get).await, 400, "malformed_header");
    }
}
